"""The page inside Airflow that shows what was made."""
