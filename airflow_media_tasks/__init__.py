"""Generate images, video, music and speech from Apache Airflow, and pay for each of them once."""

__version__ = "0.1.0"
