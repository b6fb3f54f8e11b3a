"""What stands behind `GenerateMediaBatchOperator`: many requests in one Airflow task."""
