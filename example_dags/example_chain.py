"""Go on with what was made: a film is extended and then speaks, another one is upscaled.

Providers know what they have made by an id, and operations on it ask for that: `video.output["video_id"]` is
the id of a video, `output["file_ids"]` those of all files. Nothing is downloaded on the way; only the end of
each chain lands. What has been made stays made: a later step that fails is retried alone.

Connections: `kling_default`, `acedata_default`. Files: `<MEDIA_OUTPUT>/chain/speaking.mp4` and `large.mp4`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import dag

from airflow_media_tasks.operators import GenerateVideoOperator, MediaTaskOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_chain]
@dag(schedule=None, tags=["media"], default_args=RETRIES, doc_md=__doc__)
def example_chain() -> None:
    video = GenerateVideoOperator(
        task_id="video",
        media_conn_id="kling_default",
        prompt="A clay captain looks out over the sea",
    )
    longer = MediaTaskOperator(
        task_id="longer",
        media_conn_id="kling_default",
        operation="extend_video",
        arguments={"video_id": video.output["video_id"], "prompt": "She turns around"},
    )
    MediaTaskOperator(
        task_id="speaking",
        media_conn_id="kling_default",
        operation="lip_sync",
        arguments={
            "video_id": longer.output["video_id"],
            "text": "Land ahead, at last!",
            "voice_id": "girlfriend_1_speech02",
            "voice_language": "en",
        },
        save_to=f"{OUTPUT}/chain/speaking.mp4",
    )

    small = GenerateVideoOperator(
        task_id="small",
        media_conn_id="acedata_default",
        operation="veo/text_to_video",
        prompt="A harbour wakes up, seen from above",
    )
    MediaTaskOperator(
        task_id="large",
        media_conn_id="acedata_default",
        operation="veo/upscale_video",
        arguments={"video_id": small.output["video_id"], "resolution": "4k"},
        save_to=f"{OUTPUT}/chain/large.mp4",
    )


# [END howto_chain]


example_chain()
