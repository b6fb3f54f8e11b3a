"""What Airflow's UI gets: the gallery in its navigation, and as a tab of each DAG run and task instance."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.configuration import conf
from starlette.types import Receive, Scope, Send

from airflow_media_tasks.links import PAGE, PREFIX, RUN_TAB, TASK_TAB


_BASE = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX
_INSTANCE = "dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}"


async def gallery(scope: Scope, receive: Receive, send: Send) -> None:
    """The page, imported when it is first asked for: workers load plugins too, and serve no pages."""
    from airflow_media_tasks.gallery.app import app  # noqa: PLC0415  # see above

    await app(scope, receive, send)


class MediaTasksPlugin(AirflowPlugin):
    """The gallery."""

    name = "media_tasks"
    fastapi_apps = [{"name": "Media", "app": gallery, "url_prefix": PREFIX}]  # noqa: RUF012  # as Airflow has it
    external_views: list[Any] = [  # noqa: RUF012  # as Airflow has it
        {
            "name": "Media",
            "href": f"{_BASE}/",
            "destination": "nav",
            "url_route": PAGE,
            "icon": f"{_BASE}/static/icon.svg",
            "icon_dark_mode": f"{_BASE}/static/icon-dark.svg",
            "nav_top_level": True,
        },
        {
            "name": "Media",
            "href": f"{_BASE}/?dag_id={{DAG_ID}}&run_id={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": RUN_TAB,
        },
        {
            "name": "Media",
            "href": f"{_BASE}/item?{_INSTANCE}",
            "destination": "task_instance",
            "url_route": TASK_TAB,
        },
    ]
