"""The one place where a submission happens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Context

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import MediaTask


def submit_once(hook: MediaHook, operation: str, arguments: Mapping[str, Any], context: Context) -> MediaTask:
    """Submits one task under the `client_ref` of this task instance."""
    return hook.submit(operation, arguments, client_ref=client_ref(context))


def client_ref(context: Context) -> str:
    """Our name for a submission: the same for every try of one generation of one task instance.

    A generation ends with a clear, which raises `max_tries`; a retry leaves it as it is. `ti.id` changes with
    each try and so names nothing that must be found again.
    """
    ti = context["ti"]
    place = (ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index), str(ti.max_tries))
    return "amt-" + hashlib.sha256("\0".join(place).encode()).hexdigest()[:32]
