"""`MediaTaskSensor`: wait for a task that something else submitted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, Context, RetryPolicy, XComArg
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException
from typing_extensions import Unpack

from airflow_media_tasks.deferring import WaitsForMediaTask
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.links import MediaResultLink, ProviderConsoleLink
from airflow_media_tasks.parameters import Parameter, SensorArguments, seconds
from airflow_media_tasks.retries import MediaRetryPolicy
from airflow_media_tasks.task import MediaNotFoundError, MediaTaskError, MediaTaskTimeout


if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import PlainXComArg


class MediaTaskSensor(WaitsForMediaTask, BaseSensorOperator):
    """Succeeds when a provider's task has, with the task as its result; submits nothing and costs nothing.

    The task may have been submitted by an operator, by a hook, or outside Airflow altogether.

    :param media_task_id: the task's handle, for example `luma/<id>` or `videos/text2video/<id>` (templated).
    :param media_conn_id: connection of the account it was submitted with (templated).
    :param poll_interval: seconds between two looks, default 10 (templated).
    :param timeout: seconds or timedelta after which the sensor fails, as for every sensor
        (templated).
    :param deferrable: True (default) waits in the triggerer and holds no worker slot.
    :param retry_policy: default `MediaRetryPolicy`: an id that cannot be is not asked for again.
    :raises MediaTaskError: the typed error of a task that failed; with `soft_fail` the sensor is skipped.
    :raises AirflowSensorTimeout: at *timeout*.
    """

    template_fields: Sequence[str] = ("media_task_id", "media_conn_id", "poll_interval", "timeout")
    operator_extra_links = (MediaResultLink(), ProviderConsoleLink())

    timeout = Parameter(seconds)

    if TYPE_CHECKING:

        @property
        def output(self) -> PlainXComArg:
            """As of `LandsMedia`."""

    def __init__(
        self,
        *,
        media_task_id: str | XComArg,
        media_conn_id: str | XComArg,
        poll_interval: float | timedelta | str | XComArg = 10.0,
        timeout: float | timedelta | str | XComArg | None = None,
        deferrable: bool = True,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Unpack[SensorArguments],
    ) -> None:
        super().__init__(retry_policy=retry_policy or MediaRetryPolicy(), **kwargs)
        if timeout is not None:
            self.timeout = timeout
        self.poll_interval = poll_interval
        self.media_task_id: Any = media_task_id
        self.media_conn_id = media_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        """Looks once here, where a wrong id or key is seen at once, then waits."""
        try:
            hook = get_media_hook(self.media_conn_id)
            media_task_id = hook.check_id(self.media_task_id)
            try:
                task = hook.get_task(media_task_id)
            except MediaNotFoundError:
                # Some providers show a task only seconds after they accepted it; the trigger has patience.
                self.log.info("%s does not show %s yet", hook.conn_type, media_task_id)
            else:
                if task.status.is_terminal:
                    return self.result(context, task)
                self.log.info("%s is %s", media_task_id, task.status)
            return self.wait(context, media_task_id, deadline=time.time() + self.timeout)
        except MediaTaskError as error:
            raise self._verdict(error) from error

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """As of `WaitsForMediaTask`, with a sensor's own ways to fail."""
        try:
            return super().execute_complete(context, event)
        except MediaTaskError as error:
            raise self._verdict(error) from error

    def _verdict(self, error: MediaTaskError) -> Exception:
        if self.soft_fail or self.never_fail:
            # On the way back from the triggerer Airflow replaces the reason by a sentence of its own.
            self.log.warning("skipped: %s", error)
            return AirflowSkipException(str(error))
        return AirflowSensorTimeout(str(error)) if isinstance(error, MediaTaskTimeout) else error
