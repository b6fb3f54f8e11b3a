"""Airflow's REST API as far as the gallery asks it, answered from dicts, with the gallery mounted in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from airflow_media_tasks.gallery import app, items, results


INSTANCES = "/api/v2/dags/{dag}/dagRuns/{run}/taskInstances"
RESULT = {
    "id": "videos/text2video/1",
    "operation": "text_to_video",
    "media_conn_id": "kling_default",
    "provider": "kling",
    "arguments": {"prompt": "a fox"},
    "model": None,
    "files": [],
    "cost": {"unit": "USD", "amount": "0.5", "estimated": None},
    "submitted_at": "2026-01-01T00:00:00+00:00",
    "finished_at": "2026-01-01T00:00:42+00:00",
}


def instance_of(run: str, *, dag: str = "films", state: str = "success", **more: Any) -> dict[str, Any]:
    """A task instance as the API lists it."""
    return {
        "id": f"{dag}/{run}",
        "dag_id": dag,
        "dag_run_id": run,
        "task_id": "video",
        "map_index": -1,
        "try_number": 1,
        "state": state,
        "operator_name": "GenerateVideoOperator",
        "rendered_map_index": None,
        "start_date": "2026-01-01T00:00:00Z",
        "end_date": "2026-01-01T00:01:00Z",
        "rendered_fields": {},
        **more,
    }


def landed(path: Path, content: bytes, **more: Any) -> dict[str, Any]:
    """The dict of a film that has landed at *path*, where it is now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {
        "kind": "video",
        "url": "https://cdn.example/film.mp4",
        "path": f"file://{path}",
        "content_type": "video/mp4",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        **more,
    }


class Manager:
    """An auth manager that lets everybody do everything."""

    def is_authorized_dag(self, **_: Any) -> bool:
        """As of Airflow's."""
        return True


class Airflow:
    """What it knows: task instances, XComs and records by DAG, run and key; what it was asked, in `asked`."""

    def __init__(self) -> None:
        self.instances: dict[tuple[str, str], dict[str, Any]] = {}
        self.xcoms: dict[tuple[str, str, str], Any] = {}
        self.records: dict[tuple[str, str, str], Any] = {}
        self.asked: list[str] = []
        self.cleared: list[tuple[Any, ...]] = []
        self.on_write: Callable[[], None] = lambda: None
        self.now = lambda: datetime.now(timezone.utc)
        """By the clock of its database."""
        self.manager: Any = Manager()
        self.user: Any = object()
        self.app = FastAPI()
        self._answer()
        self.app.mount("/media-tasks", app.app)
        self.client = TestClient(
            self.app,
            base_url="http://airflow",
            raise_server_exceptions=False,
            headers={"Authorization": "Bearer x"},
        )
        for memory in (items._results, items._listed, items._large, results._words):
            memory.clear()

    def add(self, run: str, value: Any = None, *, key: str = "return_value", **more: Any) -> None:
        """A task instance of this run, and an XCom of it."""
        instance = instance_of(run, **more)
        place = (instance["dag_id"], run)
        self.instances[place] = instance
        self.xcoms = {name: one for name, one in self.xcoms.items() if name[:2] != place}
        if value is not None:
            self.xcoms[(*place, key)] = value

    def add_iteration(self, run: str, number: int, value: Any) -> None:
        """A task instance of an iteration of a task loop in this run, and what it returned (Airflow 3.4)."""
        region = {"region_id": str(UUID(int=7)), "region_index": number}
        at = {"loop_iteration": {"loop_id": "once", "iteration": number}, "id": f"films/{run}/{number}"}
        self.instances["films", f"{run}/{number}"] = instance_of(run, **region, **at)
        self.xcoms["films", f"{run}/{number}", "return_value"] = value

    def get(self, route: str, run: str | None = None, **more: Any) -> Any:
        """The reply of one of the page's routes, asked for the task instance of a run, if one is named."""
        headers = more.pop("headers", {})
        place = {} if run is None else {"dag_id": "films", "run_id": run, "task_id": "video"}
        return self.client.get(f"/media-tasks/{route}", params={**place, **more} or None, headers=headers)

    def item(self, run: str, **more: Any) -> Any:
        """The item of this run, as the detail view gets it."""
        reply = self.get("api/item", run, **more)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def items(self) -> Any:
        """Those of the page, by their runs."""
        reply = self.get("api/items")
        assert reply.status_code == 200, reply.text
        return {item["run_id"]: item for item in reply.json()["items"]}

    def _answer(self) -> None:
        def found(box: dict[Any, Any], key: Any) -> Any:
            if key not in box:
                raise HTTPException(404, "not found")
            return box[key]

        @self.app.middleware("http")
        async def note(request: Request, go_on: Any) -> Any:
            if request.scope["path"].startswith("/api/"):
                self.asked.append(request.scope["path"])
            return await go_on(request)

        @self.app.get(INSTANCES)
        async def listed(
            dag: str,
            run: str,
            operator_name_pattern: str = "",
            start_date_lte: datetime | None = None,
            limit: int = 1000,
            cursor: str = "",
        ) -> Any:
            # What has not begun is before whatever is still to come.
            open_end = start_date_lte is None or self.now() <= start_date_lte
            wanted = [
                one
                for one in self.instances.values()
                if dag in ("~", one["dag_id"])
                and run in ("~", one["dag_run_id"])
                and any(part in one["operator_name"] for part in operator_name_pattern.split("|"))
                and (one["start_date"] is not None or open_end)
            ]
            end = int(cursor or 0) + limit
            more = str(end) if end < len(wanted) else None
            return {"task_instances": wanted[int(cursor or 0) : end], "next_cursor": more}

        @self.app.get(INSTANCES + "/{task}")
        async def one(dag: str, run: str, task: str, region_index: int = -1) -> Any:  # of the path
            return found(self.instances, (dag, run) if region_index < 0 else (dag, f"{run}/{region_index}"))

        @self.app.get(INSTANCES + "/{task}/xcomEntries/{key}")
        async def xcom(dag: str, run: str, task: str, key: str, region_index: int = -1) -> Any:  # of the path
            run = run if region_index < 0 else f"{run}/{region_index}"
            return JSONResponse({"key": key, "value": found(self.xcoms, (dag, run, key))})

        @self.app.get(INSTANCES + "/{task}/state-store/{key:path}")
        async def record(dag: str, run: str, task: str, key: str) -> Any:  # of the path
            return JSONResponse({"value": found(self.records, (dag, run, key))})

        self._take(found)

    def _take(self, found: Callable[[dict[Any, Any], Any], Any]) -> None:

        @self.app.put(INSTANCES + "/{task}/state-store/{key:path}", status_code=204)
        async def write(dag: str, run: str, task: str, key: str, request: Request) -> None:  # of the path
            body = await request.json()
            assert body.keys() == {"value", "expires_at"}
            self.records[dag, run, key] = body["value"]
            self.on_write()

        @self.app.post("/api/v2/dags/{dag}/clearTaskInstances")
        async def clear(dag: str, request: Request) -> Any:  # of the path
            body = await request.json()
            ids = body.get("task_instance_ids", [])  # Airflow 3.4
            named = [one["task_id"] for one in self.instances.values() if one["id"] in ids]
            self.cleared.append((dag, body["dag_run_id"], *body.get("task_ids", named)))
            found(self.instances, (dag, body["dag_run_id"]))["state"] = None
            return {"task_instances": []}


def mounted(monkeypatch: Any) -> Airflow:
    """An Airflow with nothing in it, in which the gallery asks who may do what."""
    airflow = Airflow()
    monkeypatch.setattr(app, "get_auth_manager", lambda: airflow.manager)
    monkeypatch.setitem(app.app.dependency_overrides, get_user, lambda: airflow.user)
    return airflow
