"""The routes of the page: what they show and change is what Airflow lets their user see and change."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.datamodels.task_instances import ClearTaskInstancesBody
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.models.dag import DagModel
from airflow.sdk.configuration import conf
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field
from pydantic_core import from_json, to_json
from starlette.types import Receive, Scope, Send

from airflow_media_tasks.gallery import cards, files, items, roots
from airflow_media_tasks.gallery.airflow_api import ALL, AirflowApi, at, instance_path
from airflow_media_tasks.gallery.totals import Totals
from airflow_media_tasks.links import PREFIX
from airflow_media_tasks.submissions import answers


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
    "succeeded": ("success", "failed", "up_for_retry"),
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
_ANSWERING = asyncio.Lock()
"""Whoever answers second, of two at the same moment, sees the first one's answer."""


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
        """Those that Airflow's API does not know, but for the words, which `items.look_through` takes."""
        return {"provider": self.provider, "kind": self.kind, "status": self.status}

    def wants(self, item: Mapping[str, Any]) -> bool:
        """Whether *item* is to be shown."""
        return items.is_wanted(item, **self.search)

    def path(self) -> str:
        """The API's list of task instances that these are for."""
        run_id = self.run_id if self.dag_id else ""
        return f"{at('dags', self.dag_id or ALL, 'dagRuns', run_id or ALL)}/taskInstances"

    def query(self) -> dict[str, Any]:
        """Those that Airflow's API knows; and that nothing is to be listed that has not begun.

        It has left nothing, there may be thousands of it, and PostgreSQL lists it first. To Airflow it begins
        when it is asked for, which is after *now*.
        """
        now = datetime.now(timezone.utc).isoformat()
        query: dict[str, Any] = {
            "operator_name_pattern": items.OPERATORS,
            "task_id": self.task_id or None,
            "map_index": self.map_index if self.task_id else None,
            "state": STATES.get(self.status),
            "start_date_gte": self.since or None,
            "start_date_lte": self.until or now,
        }
        return {name: value for name, value in query.items() if value is not None}


FiltersQuery = Annotated[Filters, Depends()]


class Place(BaseModel):
    """A task instance, as an action names it; *number* is that of a batch's request.

    A region is what tells the iterations of a loop apart, from Airflow 3.4 on.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    region_id: UUID | None = None
    region_index: int | None = None
    number: int | None = None


class Question(Place):
    """The submission whose outcome is unknown, as the page shows it; *client_ref* is its reference."""

    client_ref: Annotated[str, Field(max_length=200)]


class Adoption(Question):
    """The provider's task that a submission became."""

    media_task_id: Annotated[str, Field(min_length=1, max_length=512)]


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


async def _sent(value: Json) -> Response:
    """*value* as JSON, which is written away from the event loop; a number that JSON has not is null."""
    body = await asyncio.to_thread(to_json, value, inf_nan_mode="null")
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


@app.get("/api/items")
async def list_items(request: Request, user: GetUserDep, filters: FiltersQuery, cursor: str = "") -> Response:
    """A page of items, newest first; fewer, with a cursor, where the search took too long."""
    clock = items.Clock(BUDGET)
    found: list[Json] = []
    looked_back_to = None
    at: items.Cursor | None = _decoded(cursor)
    async with AirflowApi(request) as api:
        is_enough = False
        while at is not None and not is_enough:
            async for look in _looks(api, user, filters, at, SEARCHED if filters.q else PAGE):
                found += look.items
                looked_back_to = look.looked_back_to or looked_back_to
                at = look.rest
                is_enough = clock.is_over or len(found) >= PAGE // 2
                if is_enough:
                    break
        await _use_landed_copies(api, user, found)
    editable = await _allowed(user, "PUT", DagAccessEntity.TASK_INSTANCE, {item["dag_id"] for item in found})
    return await _sent(
        {
            "items": [{**cards.on_a_card(item), "can_edit": item["dag_id"] in editable} for item in found],
            "cursor": None if at is None else _encoded(at),
            "looked_back_to": looked_back_to,
            "setting": _setting_for(found),
        }
    )


def _setting_for(found: Iterable[Json]) -> str | None:
    """The line that is to be set so that what has landed is sent from there; None where one is set."""
    if roots.configured():
        return None
    landed = [(file["path"], item) for item in found for file in item["files"] if file["landed"]]
    batches = [
        (item["batch"]["results"], item) for item in found if item["batch"] and item["batch"]["results"]
    ]
    return roots.setting_for([*landed, *batches])


async def _looks(
    api: AirflowApi, user: Any, filters: Filters, at: items.Cursor, limit: int
) -> AsyncIterator[items.Look]:
    """Looks at a page of task instances from *at*; behind the last one it goes on with the next page."""
    query = {**filters.query(), "order_by": "-start_date", "limit": limit, "cursor": at.after}
    listed = await api.call("GET", filters.path(), params=query)
    instances = await _readable(user, listed["task_instances"])
    after = listed.get("next_cursor") if listed["task_instances"] else None
    whole = filters.kind == "batch"
    async for look in items.look_through(api, instances, filters.q, at, whole=whole):
        wanted = [item for item in look.items if filters.wants(item)]
        following = None if after is None else items.Cursor(after)
        yield items.Look(wanted, look.looked_back_to, look.rest or following)


def _encoded(at: items.Cursor) -> str:
    return base64.urlsafe_b64encode(to_json([at.after, at.instance, at.number])).decode()


def _decoded(cursor: str) -> items.Cursor:
    if not cursor:
        return items.Cursor()
    try:
        after, instance, number = from_json(base64.urlsafe_b64decode(cursor.encode()))
        if not isinstance(after, str) or not isinstance(instance, str) or type(number) is not int:
            raise ValueError(cursor)
    except (ValueError, TypeError):
        raise HTTPException(400, "the cursor is none of ours") from None
    return items.Cursor(after, instance, max(number, 0))


@app.get("/api/item")
async def one_item(
    request: Request,
    user: GetUserDep,
    place: Annotated[Place, Depends()],
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Response:
    """Everything about one task instance; of a batch also a page of its requests."""
    await _must_read(user, place.dag_id)
    async with AirflowApi(request) as api:
        instance = await _instance(api, place)
        item = next(iter(await items.items_of(api, [instance])), None)
        if item is None:
            raise HTTPException(404, "this task has made no media")
        item["can_edit"] = await _may_edit(user, place.dag_id)
        await _use_landed_copies(api, user, [item])
        manifest = await items.returned_by(api, instance) if item["batch"] is not None else None
    item["setting"] = _setting_for([item])
    if manifest is None:
        return await _sent(item)
    if place.number is not None:
        found = await items.requests_of(item, items.manifest_of(manifest), place.number, 1)
        if not found:
            raise HTTPException(404, "this batch has no such request")
        return await _sent({**found[0], "setting": _setting_for(found)})
    try:
        found = await items.requests_of(item, items.manifest_of(manifest), offset, items.BATCH_PAGE)
    except HTTPException as error:
        item["batch"]["why"] = item["batch"]["why"] or error.detail
        found = []
    item["batch"]["items"] = [cards.on_a_card(one) for one in found]
    item["setting"] = _setting_for([item, *found])
    return await _sent(item)


@app.get("/api/totals")
async def totals(request: Request, user: GetUserDep, filters: FiltersQuery) -> Response:
    """What was made and spent, as far as can be told in a moment; `complete` says whether that is all."""
    clock = items.Clock(2 * BUDGET)
    made = Totals()
    at: items.Cursor | None = items.Cursor()
    looked_back_to = ""
    async with AirflowApi(request, background=True) as api:
        is_enough = False
        while at is not None and not is_enough and not await request.is_disconnected():
            async for look in _looks(api, user, filters, at, SEARCHED):
                made.add(look.items)
                looked_back_to = look.looked_back_to or looked_back_to
                at = look.rest
                is_enough = clock.is_over
                if is_enough:
                    break
    complete = {
        "complete": at is None,
        "complete_today": at is None or "" < looked_back_to < made.today,
    }
    return await _sent({**made.told(), **complete})


@app.get("/file")
async def landed_file(
    request: Request,
    user: GetUserDep,
    place: Annotated[Place, Depends()],
    n: Annotated[int, Query(ge=0)],
    sha256: str = "",
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """A landed file of a task instance, by its number and, as the page asks for it, its content.

    What is there is asked of Airflow each time, in the user's name; see `files` for what is sent of it.
    """
    await _must_read(user, place.dag_id)
    async with AirflowApi(request) as api:
        instance = await _instance(api, place)
        value = await items.returned_by(api, instance)
    file = await items.file_of(value, place.number, n)
    if file is None or sha256 not in ("", file.sha256):
        raise HTTPException(404, "no such file has landed here")
    return await files.send(file, range_header=range_header, if_none_match=if_none_match, if_range=if_range)


def _from_our_page(x_media_tasks: Annotated[str | None, Header()] = None) -> None:
    """A header that another site's form or link cannot send."""
    if x_media_tasks is None:
        raise HTTPException(403, "actions are only taken from the page itself")


@app.post("/api/adopt", dependencies=[Depends(_from_our_page)])
async def adopt(request: Request, user: GetUserDep, adoption: Adoption) -> Json:
    """Answers which of the provider's tasks an unknown submission became, and clears the task."""
    return await _answer(request, user, adoption, adoption.media_task_id)


@app.post("/api/resubmit", dependencies=[Depends(_from_our_page)])
async def resubmit(request: Request, user: GetUserDep, question: Question) -> Json:
    """Gives an unknown submission up, and clears the task, which submits anew and pays."""
    return await _answer(request, user, question, None)


async def _answer(request: Request, user: GetUserDep, question: Question, media_task_id: str | None) -> Json:
    """Writes the answer, which is an entry of its own, and clears the task, whose next try reads it."""
    if not await _may_edit(user, question.dag_id):
        raise HTTPException(403, "this user may not change task instances of this DAG")
    async with AirflowApi(request) as api:
        async with _ANSWERING:
            instance = await _instance(api, question)
            record = await items.record(api, instance, question.number)
            try:
                reference = answers.reference_of(instance["state"], record, question.client_ref)
                key = answers.key_of(reference)
                given = await items.entry(api, instance, key)
                answer = answers.answer(given, record or {}, media_task_id).to_dict()
            except answers.NotAnswerable as error:
                raise HTTPException(409, str(error)) from None
            task = instance_path(question.dag_id, question.run_id, question.task_id)
            await api.call(
                "PUT",
                f"{task}/{at('state-store', key)}",
                params=items.where(instance),
                json={"value": answer, "expires_at": None},
            )
            if await items.entry(api, instance, key) != answer:
                raise HTTPException(409, "somebody else has answered at the same moment")
        # From Airflow 3.4 on each try has an id of its own, and another one may have begun since.
        clear = _clear_of(await _instance(api, question))
        await api.call("POST", f"{at('dags', question.dag_id)}/clearTaskInstances", json=clear)
    return {"ok": True}


def _clear_of(instance: Json) -> Json:
    """A clear of this task instance and of what comes after it, which keeps what is recorded of it."""
    body = {
        "dry_run": False,
        "dag_run_id": instance["dag_run_id"],
        "only_failed": False,
        "include_downstream": True,
    }
    if "keep_task_state" in ClearTaskInstancesBody.model_fields:
        return {**body, "task_instance_ids": [instance["id"]], "keep_task_state": True}
    mapped = instance["map_index"] >= 0
    return {
        **body,
        "task_ids": [[instance["task_id"], instance["map_index"]] if mapped else instance["task_id"]],
    }


async def _instance(api: AirflowApi, place: Place) -> Json:
    path = instance_path(place.dag_id, place.run_id, place.task_id)
    if place.region_id is not None:
        region = {"region_id": str(place.region_id), "region_index": place.region_index}
        instance: Json = await api.call("GET", path, params=region)
    else:
        instance = await api.call("GET", path if place.map_index < 0 else f"{path}/{place.map_index}")
    return instance


async def _readable(user: Any, instances: Sequence[Json]) -> list[Json]:
    """Those whose XComs the user may read: what is remembered here is not asked of Airflow again."""
    dag_ids = {instance["dag_id"] for instance in instances}
    allowed = await _allowed(user, "GET", DagAccessEntity.XCOM, dag_ids)
    return [instance for instance in instances if instance["dag_id"] in allowed]


async def _must_read(user: Any, dag_id: str) -> None:
    if not await _allowed(user, "GET", DagAccessEntity.XCOM, {dag_id}):
        raise HTTPException(403, "this user may not read this DAG")


async def _may_edit(user: Any, dag_id: str) -> bool:
    return bool(await _allowed(user, "PUT", DagAccessEntity.TASK_INSTANCE, {dag_id}))


async def _allowed(user: Any, method: Any, entity: DagAccessEntity, dag_ids: Iterable[str]) -> set[str]:
    """Those of the DAGs of which the user may do this.

    Asked as Airflow's own routes ask (`requires_access_dag`), with the team whose DAG it is; that is in the
    database, and may take a while.
    """
    in_teams = conf.getboolean("core", "multi_team", fallback=False)

    def may(dag_id: str) -> bool:
        team_name = DagModel.get_team_name(dag_id) if in_teams else None
        return get_auth_manager().is_authorized_dag(
            method=method,
            access_entity=entity,
            details=DagDetails(id=dag_id, team_name=team_name),
            user=user,
        )

    return await asyncio.to_thread(lambda: {dag_id for dag_id in dag_ids if may(dag_id)})


async def _use_landed_copies(api: AirflowApi, user: Any, found: list[Json]) -> None:
    """Looks for downloads, in the same runs, of what was made and not landed by its own task."""
    runs = {
        (item["dag_id"], item["run_id"])
        for item in found
        if any(not file["landed"] for file in item["files"])
    }
    copies: dict[str, Json] = {}

    async def look(dag_id: str, run_id: str) -> None:
        query = {"operator_name_pattern": cards.DOWNLOADS, "state": "success", "limit": 100}
        path = f"{at('dags', dag_id, 'dagRuns', run_id)}/taskInstances"
        listed = await api.call("GET", path, params=query)
        instances = await _readable(user, listed["task_instances"])
        results = await asyncio.gather(*(items.returned_by(api, instance) for instance in instances))
        some = await asyncio.to_thread(lambda: [*map(cards.copies_in, instances, results)])
        for one in some:
            copies.update(one)

    await asyncio.gather(*(look(*run) for run in runs))
    cards.use_landed_copies(found, copies)
