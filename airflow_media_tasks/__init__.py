"""Generate images, video, music and sound from Apache Airflow, and pay for each of them once."""

__version__ = "0.1.0"
