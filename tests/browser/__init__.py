"""The gallery on a real Airflow, in a real browser."""
