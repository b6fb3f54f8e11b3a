"""The button on a task that leads to what it made."""

from __future__ import annotations

from urllib.parse import urlencode

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.types import TaskInstanceKey


PREFIX = "/media-tasks"
"""Where Airflow mounts the gallery."""


class MediaResultLink(BaseOperatorLink):
    """Opens the gallery at this task instance."""

    @property
    def name(self) -> str:
        """The button's text."""
        return "Media"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """The same in every phase of a task, and for each try: it depends on nothing but the key.

        Airflow asks again after every phase, in a process that knows nothing of the phase before.
        """
        place = {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": ti_key.task_id,
            "map_index": ti_key.map_index,
        }
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        return f"{base}{PREFIX}/item?{urlencode(place)}"
