"""What the gallery shows: pictures, a film, a sound, something that failed, something nobody knows about."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_media_tasks.operators import (
    DownloadMediaOperator,
    GenerateAudioOperator,
    GenerateImageOperator,
    GenerateMediaBatchOperator,
    GenerateVideoOperator,
    MediaTaskOperator,
)


OUTPUT = os.environ["MEDIA_OUTPUT"]
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> a fox"
# Airflow itself uses tries up where a deferral is short (apache/airflow#71580).
QUICK = {"poll_interval": 1, "retries": 30, "retry_delay": timedelta(seconds=1)}

with DAG("shown", default_args=QUICK):
    GenerateImageOperator.partial(
        task_id="pictures", media_conn_id="vap_default", save_to=f"{OUTPUT}/pictures/"
    ).expand(prompt=["A lighthouse at dawn", "A harbour in the fog", "An orange grove"])
    GenerateImageOperator(
        task_id="hostile", media_conn_id="vap_default", prompt=HOSTILE, save_to=f"{OUTPUT}/h/"
    )
    film = GenerateVideoOperator(
        task_id="film", media_conn_id="kling_default", prompt="A paper boat on a stream"
    )
    DownloadMediaOperator(task_id="land", media=film.output, destination=f"{OUTPUT}/film/")
    GenerateAudioOperator(
        task_id="sound",
        media_conn_id="kling_default",
        operation="text_to_audio",
        prompt="Rain on a tin roof",
        save_to=f"{OUTPUT}/s/",
    )
    GenerateImageOperator(
        task_id="refused", media_conn_id="vap_default", prompt="Something else [sim:reject=moderation]"
    )
    GenerateMediaBatchOperator(
        task_id="batch",
        media_conn_id="vap_default",
        operation="text_to_image",
        requests=[
            {"prompt": "A red kite"},
            {"prompt": "A blue kite"},
            {"prompt": "A kite that is refused [sim:reject=moderation]"},
        ],
        save_to=f"{OUTPUT}/batch/",
    )
    # One at a time, and the second one stays.
    GenerateMediaBatchOperator(
        task_id="climbing",
        media_conn_id="vap_default",
        operation="text_to_image",
        requests=[{"prompt": "A step"}, {"prompt": "A summit, for a year [sim:seconds=100000]"}],
        concurrency=1,
        save_to=f"{OUTPUT}/climbing/",
    )
    for task_id in ("unknown", "lost"):
        MediaTaskOperator(
            task_id=task_id,
            media_conn_id="vap_default",
            operation="remove_background",
            arguments={"image_url": f"https://cdn.example/{task_id}.png?[sim:lose-reply*1]"},
            retries=0,
        )
    GenerateVideoOperator(
        task_id="slow", media_conn_id="kling_default", prompt="A glacier, for a year [sim:seconds=100000]"
    )
