"""The routes of the page: what they show and change is what Airflow lets their user see and change."""

from __future__ import annotations

import asyncio
import base64
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.sdk.configuration import conf
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from airflow_media_tasks.gallery import files, items
from airflow_media_tasks.gallery.airflow_api import AirflowApi, at, instance_path
from airflow_media_tasks.links import PREFIX
from airflow_media_tasks.records import KEY


PAGE = 60
"""Items of a page."""
SEARCHED = 100
"""Task instances that are listed together where most of them are not shown; Airflow gives no more."""
BUDGET = 0.8
"""Seconds after which a search answers with what it has, and says how far back it has looked."""
RUNNING = ("running", "queued", "scheduled", "deferred", "up_for_reschedule", "restarting", "awaiting_input")
STATES = {
    "queued": ("scheduled", "queued", *RUNNING),
    "running": RUNNING,
    "succeeded": ("success",),
    "failed": ("failed", "up_for_retry"),
    "unknown": ("failed", "up_for_retry"),
}
"""Airflow's states in which an item of a status can be."""

HERE = Path(__file__).parent
_HOST = re.compile(r"[A-Za-z0-9.-]+")
STATIC = {
    path.name: (path, {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}[path.suffix])
    for path in (HERE / "static").iterdir()
    if path.suffix in (".css", ".js", ".svg")
}
Json = dict[str, Any]


class Gallery(FastAPI):
    """The application; it remembers which Airflow it is mounted in."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As of FastAPI."""
        scope["airflow"] = scope.get("app")
        await super().__call__(scope, receive, send)


app = Gallery(
    title="Media", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)]
)


class Filters(BaseModel):
    """What the page is to show; empty means everything."""

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int | None = None
    provider: str = ""
    kind: str = ""
    status: str = ""
    q: str = ""
    since: str = ""
    until: str = ""

    @property
    def search(self) -> dict[str, str]:
        """Those that Airflow's API does not know."""
        return {"provider": self.provider, "kind": self.kind, "status": self.status, "q": self.q}

    def wants(self, item: Mapping[str, Any]) -> bool:
        """Whether *item* is to be shown."""
        return items.is_wanted(item, **self.search)

    def path(self) -> str:
        """The API's list of task instances that these are for."""
        run_id = self.run_id if self.dag_id else ""
        return f"{at('dags', self.dag_id or '~', 'dagRuns', run_id or '~')}/taskInstances"

    def query(self) -> dict[str, Any]:
        """Those that Airflow's API knows."""
        query: dict[str, Any] = {
            "operator_name_pattern": items.OPERATORS,
            "task_id": self.task_id or None,
            "map_index": self.map_index if self.task_id else None,
            "state": STATES.get(self.status),
            "start_date_gte": self.since or None,
            "start_date_lte": self.until or None,
        }
        return {name: value for name, value in query.items() if value is not None}


FiltersQuery = Annotated[Filters, Depends()]


class Place(BaseModel):
    """A task instance, as an action names it; *number* is that of a batch's request."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    number: int | None = None


class Adoption(Place):
    """The provider's task that a submission became."""

    media_task_id: str


@app.get("/")
@app.get("/item")
async def page() -> HTMLResponse:
    """The page itself; its script asks for the rest."""
    base = conf.get("api", "base_url", fallback="/").rstrip("/")
    base = "/" + base.split("://", 1)[-1].partition("/")[2] if "://" in base else base
    html = (HERE / "page.html").read_text(encoding="utf-8")
    text = html.replace("%BASE%", base.rstrip("/") + PREFIX).replace("%AIRFLOW%", base.rstrip("/"))
    return HTMLResponse(text, headers={"Content-Security-Policy": _policy(), **_HEADERS})


_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def _policy() -> str:
    """No script, style or request but our own; media from here, or by https from where a result says.

    Hosts without https are only those that the setting `allowed_hosts` names: a simulator's, for example.
    """
    named = conf.get("media_tasks", "allowed_hosts", fallback="").split(",")
    own = [host for part in named if _HOST.fullmatch(host := part.strip())]
    media = " ".join(["'self'", "https:", *(f"http://{host}:*" for host in own)])
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src {media} data:; media-src {media}; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    )


@app.get("/static/{name}")
async def static(name: str) -> Response:
    """Our own script and styles."""
    if name not in STATIC:
        raise HTTPException(404, "no such file")
    path, media_type = STATIC[name]
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=60"}
    return Response(path.read_bytes(), media_type=media_type, headers=headers)


@app.get("/api/items")
async def list_items(request: Request, user: GetUserDep, filters: FiltersQuery, cursor: str = "") -> Json:
    """A page of items, newest first; fewer, with a cursor, where the search took too long."""
    clock = items.Clock(BUDGET)
    found: list[Json] = []
    looked_back_to = None
    async with AirflowApi(request) as api:
        after: str | None = _decoded(cursor)
        while after is not None and len(found) < PAGE // 2 and not (looked_back_to and clock.is_over):
            limit = SEARCHED if filters.q else PAGE
            query = {**filters.query(), "order_by": "-start_date", "limit": limit, "cursor": after}
            listed = await api.call("GET", filters.path(), params=query)
            instances = _readable(user, listed["task_instances"])
            wanted = [instance for instance in instances if items.may_match(instance, filters.q)]
            made = await asyncio.gather(*(items.item_of(api, instance) for instance in wanted))
            found += [item for item in made if item is not None and filters.wants(item)]
            if instances:
                looked_back_to = instances[-1]["start_date"] or looked_back_to
            after = listed.get("next_cursor")
            if not listed["task_instances"]:
                after = None
        await _use_landed_copies(api, user, found)
    for item in found:
        item["can_edit"] = _may_edit(user, item["dag_id"])
    return {
        "items": found,
        "cursor": None if after is None else base64.urlsafe_b64encode(after.encode()).decode(),
        "looked_back_to": looked_back_to,
    }


def _decoded(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor.encode()).decode()
    except ValueError:
        raise HTTPException(400, "the cursor is none of ours") from None


@app.get("/api/item")
async def one_item(
    request: Request,
    user: GetUserDep,
    place: Annotated[Place, Depends()],
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Json:
    """Everything about one task instance; of a batch also a page of its requests."""
    _must_read(user, place.dag_id)
    async with AirflowApi(request) as api:
        item = await items.item_of(api, await _instance(api, place))
        if item is None:
            raise HTTPException(404, "this task has made no media")
        item["can_edit"] = _may_edit(user, place.dag_id)
        await _use_landed_copies(api, user, [item])
    if item["batch"] is not None:
        requests = await asyncio.to_thread(
            _requests_of, item, offset if place.number is None else place.number
        )
        if place.number is not None:
            if not requests or requests[0]["number"] != place.number:
                raise HTTPException(404, "this batch has no such request")
            return requests[0]
        item["batch"]["items"] = requests
    return item


def _requests_of(item: Json, offset: int) -> list[Json]:
    try:
        return items.batch_items(item, item["batch"]["results"], offset)
    except Exception:  # noqa: BLE001  # fsspec lets each store raise errors of its own
        return []


@app.get("/api/totals")
async def totals(request: Request, user: GetUserDep, filters: FiltersQuery) -> Json:
    """What was made and spent, as far as can be told in a moment; `complete` says whether that is all."""
    clock = items.Clock(2 * BUDGET)
    today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0).isoformat()
    made: list[Json] = []
    after: str | None = ""
    looked_back_to = ""
    async with AirflowApi(request, background=True) as api:
        while after is not None and not (made and clock.is_over) and not await request.is_disconnected():
            query = {**filters.query(), "order_by": "-start_date", "limit": SEARCHED, "cursor": after}
            listed = await api.call("GET", filters.path(), params=query)
            instances = _readable(user, listed["task_instances"])
            wanted = [instance for instance in instances if items.may_match(instance, filters.q)]
            some = await asyncio.gather(*(items.item_of(api, instance) for instance in wanted))
            made += [item for item in some if item is not None and filters.wants(item)]
            looked_back_to = instances[-1]["start_date"] or looked_back_to if instances else looked_back_to
            after = listed.get("next_cursor") if listed["task_instances"] else None
    counts: dict[str, int] = defaultdict(int)
    providers: dict[str, list[Json]] = defaultdict(list)
    for item in made:
        batch = item["batch"]
        counts["succeeded"] += _made_by(item)
        counts["failed"] += batch["failed"] if batch else item["status"] in ("failed", "unknown")
        counts["running"] += item["status"] in ("running", "queued")
        providers[item["provider"] or "other"].append(item)
    ended = counts["succeeded"] + counts["failed"]
    seconds = [item["seconds"] for item in made if item["seconds"] is not None]
    return {
        "made": counts["succeeded"],
        "failed": counts["failed"],
        "running": counts["running"],
        "success_rate": counts["succeeded"] / ended if ended else None,
        "median_seconds": statistics.median(seconds) if seconds else None,
        "spent": _sum(made),
        "spent_today": _sum([item for item in made if (item["finished_at"] or "") >= today]),
        "by_provider": [
            {
                "provider": provider,
                "made": sum(
                    item["batch"]["succeeded"] if item["batch"] else item["status"] == "succeeded"
                    for item in own
                ),
                "spent": _sum(own),
            }
            for provider, own in sorted(providers.items())
        ],
        "complete": after is None,
        "complete_today": after is None or "" < looked_back_to < today,
    }


def _made_by(item: Json) -> int:
    """How many results the item stands for."""
    return int(item["batch"]["succeeded"] if item["batch"] else item["status"] == "succeeded")


def _sum(made: list[Json]) -> list[Json]:
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for item in made:
        costs = (item["batch"] or {}).get("cost") if item["batch"] else [item["cost"]]
        for cost in costs or []:
            if isinstance(cost, dict) and cost.get("amount"):
                try:
                    spent[str(cost.get("unit"))] += Decimal(str(cost["amount"]))
                except InvalidOperation:
                    continue
    return [{"unit": unit, "amount": f"{amount:f}"} for unit, amount in sorted(spent.items())]


@app.get("/file")
async def landed_file(
    request: Request,
    user: GetUserDep,
    place: Annotated[Place, Depends()],
    n: Annotated[int, Query(ge=0)],
    range_header: Annotated[str | None, Header(alias="range")] = None,
) -> Response:
    """A landed file of a task instance, by its number: which path that is, is in our own record alone."""
    _must_read(user, place.dag_id)
    result = items.listed_of(place.model_dump(exclude={"number"}))
    if result is None:
        async with AirflowApi(request) as api:
            instance = await _instance(api, place)
            result = await items.result_of(api, instance) if instance["state"] == "success" else None
            if result is None:
                result = await items.xcom(api, instance, "media_batch")
    if place.number is not None and isinstance(result, dict) and "results" in result:
        result = await asyncio.to_thread(_line_of, result["results"], place.number)
    file = items.file_at(result, n)
    if file is None:
        raise HTTPException(404, "no file of this number has landed")
    return await asyncio.to_thread(files.send, file["path"], file.get("content_type"), range_header)


def _line_of(path: str, number: int) -> Json | None:
    try:
        return items.line_at(path, number)
    except Exception:  # noqa: BLE001  # fsspec lets each store raise errors of its own
        return None


def _from_our_page(x_media_tasks: Annotated[str | None, Header()] = None) -> None:
    """A header that another site's form or link cannot send."""
    if x_media_tasks is None:
        raise HTTPException(403, "actions are only taken from the page itself")


@app.post("/api/adopt", dependencies=[Depends(_from_our_page)])
async def adopt(request: Request, user: GetUserDep, adoption: Adoption) -> Json:
    """Notes which of the provider's tasks an unknown submission became, and clears the task."""
    return await _decide(request, user, adoption, phase="adopted", media_task_id=adoption.media_task_id)


@app.post("/api/resubmit", dependencies=[Depends(_from_our_page)])
async def resubmit(request: Request, user: GetUserDep, place: Place) -> Json:
    """Gives an unknown submission up, and clears the task, which submits anew and pays."""
    return await _decide(request, user, place, phase="abandoned")


async def _decide(request: Request, user: GetUserDep, place: Place, **answer: str) -> Json:
    if not _may_edit(user, place.dag_id):
        raise HTTPException(403, "this user may not change task instances of this DAG")
    async with AirflowApi(request) as api:
        instance = await _instance(api, place)
        written = await items.record(api, instance, place.number)
        if written is None or written.get("phase") != "intent":
            raise HTTPException(409, "there is no submission whose outcome is unknown")
        key = KEY if place.number is None else f"{KEY}.{place.number}"
        path = f"{instance_path(place.dag_id, place.run_id, place.task_id)}/state-store/{key}"
        await api.call(
            "PUT",
            path,
            params={"map_index": place.map_index},
            json={"value": {**written, **answer}, "expires_at": None},
        )
        wanted: Any = [place.task_id, place.map_index] if place.map_index >= 0 else place.task_id
        await api.call(
            "POST",
            f"{at('dags', place.dag_id)}/clearTaskInstances",
            json={
                "dry_run": False,
                "dag_run_id": place.run_id,
                "task_ids": [wanted],
                "only_failed": False,
                "include_downstream": True,
            },
        )
    return {"ok": True}


async def _instance(api: AirflowApi, place: Place) -> Json:
    path = instance_path(place.dag_id, place.run_id, place.task_id)
    instance: Json = await api.call("GET", path if place.map_index < 0 else f"{path}/{place.map_index}")
    return instance


def _readable(user: Any, instances: list[Json]) -> list[Json]:
    """Those whose XComs the user may read: what is remembered here is not asked of Airflow again."""
    allowed = {dag_id: _may(user, "GET", dag_id) for dag_id in {each["dag_id"] for each in instances}}
    return [instance for instance in instances if allowed[instance["dag_id"]]]


def _must_read(user: Any, dag_id: str) -> None:
    if not _may(user, "GET", dag_id):
        raise HTTPException(403, "this user may not read this DAG")


def _may(user: Any, method: Any, dag_id: str, entity: DagAccessEntity = DagAccessEntity.XCOM) -> bool:
    details = DagDetails(id=dag_id)
    return get_auth_manager().is_authorized_dag(
        method=method, access_entity=entity, details=details, user=user
    )


def _may_edit(user: Any, dag_id: str) -> bool:
    return _may(user, "PUT", dag_id, DagAccessEntity.TASK_INSTANCE)


async def _use_landed_copies(api: AirflowApi, user: Any, found: list[Json]) -> None:
    """Looks for downloads, in the same runs, of what was made and not landed by its own task."""
    runs = {
        (item["dag_id"], item["run_id"])
        for item in found
        if any(not file["landed"] for file in item["files"])
    }
    copies: dict[str, tuple[Mapping[str, Any], int, Json]] = {}

    async def look(dag_id: str, run_id: str) -> None:
        query = {"operator_name_pattern": "DownloadMedia", "state": "success", "limit": 100}
        path = f"{at('dags', dag_id, 'dagRuns', run_id)}/taskInstances"
        listed = await api.call("GET", path, params=query)
        instances = _readable(user, listed["task_instances"])
        results = await asyncio.gather(*(items.result_of(api, instance) for instance in instances))
        for instance, result in zip(instances, results, strict=True):
            for number, file in enumerate(result.get("files") or [] if isinstance(result, dict) else []):
                if isinstance(file, dict) and isinstance(file.get("path"), str) and file.get("url"):
                    copies[file["url"]] = (instance, number, file)

    await asyncio.gather(*(look(*run) for run in runs))
    items.use_landed_copies(found, copies)
