"""What Airflow's UI gets: the page in the navigation, and as a tab of each DAG run and task instance."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.configuration import conf

from airflow_media_tasks.gallery.app import PREFIX, app


_BASE = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX


class MediaTasksPlugin(AirflowPlugin):
    """The gallery."""

    name = "media_tasks"
    fastapi_apps: ClassVar[list[Any]] = [{"name": "Media", "app": app, "url_prefix": PREFIX}]
    external_views: ClassVar[list[Any]] = [
        {
            "name": "Media",
            "href": f"{_BASE}/",
            "destination": "nav",
            "url_route": "media",
            "icon": f"{_BASE}/static/icon.svg",
            "icon_dark_mode": f"{_BASE}/static/icon-dark.svg",
            "nav_top_level": True,
        },
        {
            "name": "Media",
            "href": f"{_BASE}/?dag_id={{DAG_ID}}&run_id={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "media-run",
        },
        {
            "name": "Media",
            "href": f"{_BASE}/item?dag_id={{DAG_ID}}&run_id={{RUN_ID}}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": "media-task",
        },
    ]
