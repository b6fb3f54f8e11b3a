"""The buttons on a task that lead to what it made, and to its provider's own account of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.types import TaskInstanceKey

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.task import MediaTaskError


PREFIX = "/media-tasks"
"""Where Airflow mounts the gallery."""
PAGE, RUN_TAB, TASK_TAB = "media", "media-run", "media-task"
"""What Airflow's own addresses call the gallery in its navigation, and as a tab of a run and of a task."""


class MediaResultLink(BaseOperatorLink):
    """Opens the tab *Media* of this task instance."""

    @property
    def name(self) -> str:
        """The button's text."""
        return "Media"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """The same in every phase of a task, and for each try: it depends on nothing but the key.

        Airflow asks again after every phase, in a process that knows nothing of the phase before.
        """
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        # From a worker it is the task instance itself; in Airflow 3.4 that one knows where in a loop it is.
        instance: Any = ti_key
        if hasattr(instance, "region_id") and "loop" in instance.get_template_context():
            place: dict[str, Any] = {
                "dag_id": ti_key.dag_id,
                "run_id": ti_key.run_id,
                "task_id": ti_key.task_id,
                "map_index": ti_key.map_index,
                "region_id": instance.region_id,
                "region_index": instance.region_index,
            }
            # A tab is not told of iterations; the page in the navigation takes any address of ours.
            return f"{base}/plugin/{PAGE}{urlsplit(base).path}{PREFIX}/item?{urlencode(place)}"
        dag_id, run_id, task_id = (
            quote(name, safe="") for name in (ti_key.dag_id, ti_key.run_id, ti_key.task_id)
        )
        mapped = "" if ti_key.map_index in (None, -1) else f"/mapped/{ti_key.map_index}"
        return f"{base}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}/plugin/{TASK_TAB}"


class ProviderConsoleLink(BaseOperatorLink):
    """Opens the provider's console, where the account's own usage is shown; no button where there is none."""

    @property
    def name(self) -> str:
        """The button's text."""
        return "Provider console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """The same in every phase: it depends on nothing but the connection's type."""
        try:
            return get_media_hook(getattr(operator, "media_conn_id", "")).console_url or ""
        except MediaTaskError:
            # The task itself says what is wrong with its connection.
            return ""
