"""What `test_clears` clears: a single task, mapped ones, those of a mapped group, a batch, a user's code."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import Param, dag, task, task_group

from airflow_media_tasks.operators import GenerateMediaBatchOperator, GenerateVideoOperator


OUTPUT = os.environ["MEDIA_OUTPUT"]
PROMPTS = ["first", "second", "third"]
# Airflow loses a try where a deferral ends as soon as it has begun (apache/airflow#71580), as a clear and a
# clock that is moved make it end here.
SETTINGS = {"schedule": None, "default_args": {"retries": 4, "retry_delay": timedelta(seconds=1)}}


@dag(**SETTINGS, params={"media_conn_id": Param("kling_default"), "operation": Param("text_to_video")})
def clears_single() -> None:
    """One film."""
    GenerateVideoOperator(
        task_id="video",
        media_conn_id="{{ params.media_conn_id }}",
        operation="{{ params.operation }}",
        prompt="single {{ run_id }}",
        poll_interval=1,
    )


@dag(**SETTINGS)
def clears_mapped() -> None:
    """Three, mapped."""
    GenerateVideoOperator.partial(
        task_id="video", media_conn_id="acedata_default", operation="veo/text_to_video", poll_interval=1
    ).expand(prompt=[f"{prompt} {{{{ run_id }}}}" for prompt in PROMPTS])


@dag(**SETTINGS)
def clears_group() -> None:
    """Three, each in a task group that is mapped."""

    @task_group
    def film(prompt: str) -> None:
        """One of them."""
        GenerateVideoOperator(
            task_id="video",
            media_conn_id="vap_default",
            operation="text_to_video",
            prompt=prompt,
            poll_interval=1,
        )

    film.expand(prompt=[f"grouped {prompt}" for prompt in PROMPTS])


@dag(**SETTINGS)
def clears_batch() -> None:
    """Five pictures, of which two are soon there."""
    GenerateMediaBatchOperator(
        task_id="batch",
        media_conn_id="kling_default",
        operation="text_to_image",
        requests=[
            {"prompt": f"{{{{ run_id }}}} {number} [sim:seconds={100 if number < 2 else 900}]"}
            for number in range(5)
        ],
        results=f"{OUTPUT}/clears/{{{{ run_id }}}}.jsonl",
        poll_interval=1,
    )


@dag(**SETTINGS)
def clears_code() -> None:
    """A user's own code, which pays for nothing."""

    @task
    def code(ti: object = None) -> int:
        """Which try it is."""
        return ti.try_number  # type: ignore[attr-defined]  # the task instance that Airflow gives

    code()


clears_single()
clears_mapped()
clears_group()
clears_batch()
clears_code()
