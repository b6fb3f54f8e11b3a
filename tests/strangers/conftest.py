"""What the tests here share: a hook of a connection to a server, and looking at a task until it has ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_media_tasks.hooks.base import MediaHook, get_media_hook
from airflow_media_tasks.operators import MediaTaskOperator
from airflow_media_tasks.task import MediaTask


Connected = Callable[..., MediaHook]
Landed = Callable[[str, dict[str, Any]], tuple[dict[str, Any], list[bytes]]]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Connected:
    """Makes a hook of a connection with these fields, whose id is `stranger`."""

    def make(**fields: Any) -> MediaHook:
        monkeypatch.setenv("AIRFLOW_CONN_STRANGER", json.dumps(fields))
        hook = get_media_hook("stranger")
        hook.retry_wait = 0.001
        return hook

    return make


@pytest.fixture
def landed(complete: Callable[[Any], Any], tmp_path: Path) -> Landed:
    """Runs an operator of an operation with these arguments on `stranger`: its result, and what landed."""

    def run(operation: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        operator = MediaTaskOperator(
            task_id="task",
            media_conn_id="stranger",
            operation=operation,
            arguments=arguments,
            poll_interval=0.05,
            save_to=f"file://{tmp_path}/{{index}}{{ext}}",
        )
        result = complete(operator)
        return result, [Path(path.removeprefix("file://")).read_bytes() for path in result["paths"]]

    return run


def looks_at(hook: MediaHook, task: MediaTask) -> list[MediaTask]:
    """*task* as it was submitted, and as it is at each further look until it has ended."""
    seen = [task]
    while not seen[-1].status.is_terminal:
        seen.append(hook.get_task(task.id))
        assert len(seen) < 10
    return seen
