"""What the operators and the sensor share: how a task is waited for, and the one way in which that ends."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_media_tasks.parameters import Parameter, interval
from airflow_media_tasks.submissions.records import Place
from airflow_media_tasks.task import MediaProviderError, MediaTask, TaskStatus, shown
from airflow_media_tasks.triggers import MediaTaskTrigger


if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    _Base = BaseOperator
else:
    _Base = object

_NAMED_XCOMS = ("id", "url", "urls", "file_ids", "video_id")
"""Parts of the result that are XComs of their own: `output["url"]` asks for one of that key."""
_URLS_IN_LOG = 5


def made_by(context: Context) -> dict[str, Any]:
    """What names the task instance that runs in *context*, and its try."""
    return {**Place.of(context).named(), "try_number": context["ti"].try_number}


class WaitsForMediaTask(_Base):
    """Mixed into operators that wait for one provider's task."""

    media_conn_id: Any
    poll_interval = Parameter(interval)
    deferrable: bool

    def wait(
        self,
        context: Context,
        media_task_id: str,
        *,
        deadline: float,
        queue_deadline: float | None = None,
        operation: str = "",
        submitted_at: float | None = None,
    ) -> dict[str, Any]:
        """Waits in the triggerer, or here if not `deferrable`; both end in `execute_complete`.

        :param deadline: unix seconds.
        :param queue_deadline: unix seconds, or None.
        :param operation: what was submitted, if we know it.
        :param submitted_at: unix seconds, if we know it.
        """
        trigger = MediaTaskTrigger(
            media_task_id,
            self.media_conn_id,
            self.poll_interval,
            deadline,
            queue_deadline,
            operation,
            submitted_at,
        )
        if self.deferrable:
            # The trigger keeps the deadline itself; this is only for a triggerer that is gone.
            spare = timedelta(seconds=max(deadline - time.time(), 0) + 120)
            self.defer(trigger=trigger, method_name="execute_complete", timeout=spare)
        return self.execute_complete(context, asyncio.run(trigger.wait()).to_dict())

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """The result for XCom, or the typed error that *event* tells of.

        An event crosses the metadata database and perhaps an upgrade: it is checked, and one that makes no
        sense is an error that can be retried, never a result.
        """
        try:
            task = MediaTask.from_dict(event)
        except ValueError as error:
            raise MediaProviderError(f"the trigger's event is no media task: {error}") from error
        return self.result(context, task)

    def result(self, context: Context, task: MediaTask) -> dict[str, Any]:
        """What goes to XCom for a finished *task*; raises its error if it failed."""
        if task.error is not None:
            raise task.error
        if task.status is not TaskStatus.SUCCEEDED:
            raise MediaProviderError(
                f"{task.id} is {task.status}, and nothing says why", media_task_id=task.id
            )
        more = len(task.urls) - _URLS_IN_LOG
        self.log.info(
            "%s finished with %d files%s: %s%s",
            task.id,
            len(task.files),
            f", cost {task.cost.amount} {task.cost.unit}" if task.cost and task.cost.amount else "",
            ", ".join(shown(url, 300) for url in task.urls[:_URLS_IN_LOG]),
            f" and {more} more" if more > 0 else "",
        )
        ti = context["ti"]
        result = {
            **task.to_dict(),
            "file_ids": task.file_ids,
            "video_id": task.video_id,
            "media_conn_id": self.media_conn_id,
            "made_by": made_by(context),
        }
        for name in _NAMED_XCOMS:
            if result[name] is not None:
                ti.xcom_push(key=name, value=result[name])
        return result
