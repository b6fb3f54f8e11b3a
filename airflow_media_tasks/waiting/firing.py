"""What every trigger of ours is: it fires with what Airflow can take, and ends when a user ends its task."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.task import MediaTaskError, shown


_UNFIT = re.compile("[\0\ud800-\udfff]")
_KILLS: set[asyncio.Future[None]] = set()
"""Cancellations under way, which nothing else refers to."""


class Fires(BaseTrigger):
    """Fires once, with an event that Airflow can send and store, or fails in a way that it survives.

    An event, or the text of an exception, that Airflow's encoder does not take ends the triggerer, with the
    triggers of all teams, and ends it again after each restart (seen in 3.3.2: `sync_state_to_supervisor`
    catches NotImplementedError, the encoder also raises OverflowError and UnicodeEncodeError). So does a
    constructor that raises anything but TypeError: those of this module raise nothing.
    """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the one event and returns at once, so that nothing is left to be cancelled."""
        try:
            event = fit(await self._event())
        except Exception as error:  # noqa: BLE001  # Airflow gets its text, but none of its objects
            raise RuntimeError(fit(f"the trigger failed: {type(error).__name__}: {error!s:.1000}")) from None
        yield TriggerEvent(event)

    async def _event(self) -> dict[str, Any]:
        """What the event says, once it is time for it."""
        raise NotImplementedError


class CancelsWhenKilled(Fires):
    """What happens at the provider when a user ends an Airflow task that waits: one policy for all."""

    media_conn_id: str

    @property
    def media_task_ids(self) -> Sequence[str]:
        """What is waited for."""
        raise NotImplementedError

    async def on_kill(self) -> None:
        """A user failed or cleared the waiting task: cancels at the provider where that is possible.

        Airflow 3.3 cancels this method after a second, so the work is shielded from it.
        """
        work = asyncio.ensure_future(self._cancel_if_killed())
        _KILLS.add(work)
        work.add_done_callback(_KILLS.discard)
        await asyncio.shield(work)

    async def _cancel_if_killed(self) -> None:
        if not await asyncio.to_thread(self._was_killed):
            return
        hook = await asyncio.to_thread(get_media_hook, self.media_conn_id)
        if not hook.can_cancel:
            self.log.warning(
                "%s cannot be cancelled: it goes on there and is billed. Clearing this Airflow task "
                "while it still runs waits for it again and pays nothing",
                ", ".join(self.media_task_ids[:5]) + (" and more" if len(self.media_task_ids) > 5 else ""),
            )
            return
        async with hook:
            for media_task_id in self.media_task_ids:
                try:
                    await hook.acancel_task(media_task_id)
                except MediaTaskError as error:
                    self.log.warning("%s could not be cancelled: %s", media_task_id, error)
                else:
                    self.log.info("%s was cancelled at the provider", media_task_id)

    def _was_killed(self) -> bool:
        """Whether somebody ended the Airflow task, as against a triggerer that lost this trigger to another.

        Airflow 3.3 calls `on_kill` for both, and after a clear too, sometimes when the next try is under way
        (the next try decides about the provider's task then). This is the one place that tells them apart.
        """
        ti = self.task_instance
        if ti is None:
            return False
        states = RuntimeTaskInstance.get_task_states(
            ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id]
        ).get(ti.run_id, {})
        # A mapped task's key carries its index.
        state = next(iter(states.values()), "removed")
        return state in ("success", "failed", "skipped", "upstream_failed", "removed")


def moment(value: Any, latest: float) -> float:
    """*value* in unix seconds, no later than *latest*. Raises ValueError for what is no moment."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{shown(value)} is no time in unix seconds")
    return float(min(value, latest))


def fit(value: Any) -> Any:
    """*value* as what every encoder on an event's way takes: MessagePack, JSON, and PostgreSQL's JSON."""
    if isinstance(value, str):
        return _UNFIT.sub("\ufffd", value)
    if isinstance(value, dict):
        return {fit(str(key)): fit(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [fit(part) for part in value]
    if isinstance(value, (int, float)) and not abs(value) < 2**63:
        return None
    return value
