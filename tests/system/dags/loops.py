"""What `test_loops` runs on Airflow 3.4: three iterations, of which the second is killed after its POST."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from airflow import sdk
from airflow.sdk import dag, task_group

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.operators import GenerateVideoOperator
from airflow_media_tasks.task import MediaTask


OUTPUT = os.environ["MEDIA_OUTPUT"]


class DiesOnce(GenerateVideoOperator):
    """Its process is gone when the provider has accepted the second iteration, once in each run."""

    def execute(self, context: Any) -> dict[str, Any]:
        """As usual, but for that."""
        submit = MediaHook.submit
        mark = Path(f"{OUTPUT.removeprefix('file://')}/{context['ti'].dag_id}-{context['run_id']}.killed")

        def submit_and_die(hook: MediaHook, *given: Any, **named: Any) -> MediaTask:
            accepted = submit(hook, *given, **named)
            if context["loop"].index == 1 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return accepted

        with patch.object(MediaHook, "submit", submit_and_die):
            return super().execute(context)


@dag(schedule=None, default_args={"retries": 3, "retry_delay": timedelta(seconds=1)})
def loops() -> None:
    """Three films, one after the other."""

    @task_group
    def once() -> Any:
        """One of them."""
        return DiesOnce(
            task_id="film",
            media_conn_id="kling_default",
            operation="text_to_video",
            prompt="loop {{ run_id }}",
            save_to=f"{OUTPUT}/loops/",
            poll_interval=1,
        ).output

    def until(loop: Any) -> bool:
        """After the third."""
        return bool(loop.index >= 2)

    once.loop(max_iterations=3, until=until)


if hasattr(sdk, "LoopDecision"):
    loops()
