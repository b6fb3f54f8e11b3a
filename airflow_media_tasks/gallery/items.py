"""What task instances have left, asked of Airflow and remembered, for `cards` to make the page's items of."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fastapi import HTTPException

from airflow_media_tasks.batch.pages import BATCH, page_of
from airflow_media_tasks.gallery import cards, files, results, schema
from airflow_media_tasks.gallery.airflow_api import AirflowApi, at, instance_path
from airflow_media_tasks.gallery.memory import Memory
from airflow_media_tasks.gallery.schema import Unreadable
from airflow_media_tasks.landing.landed import KEY as LANDED
from airflow_media_tasks.submissions.records import KEY


OPERATORS = "Media|Generate"
"""What is in the name of an operator of ours, or of one derived from ours; more is told by its XComs."""
RESULTS = 64 * 1024 * 1024
"""Bytes of results that one API server remembers; what has succeeded does not change any more."""
LINES = 16 * 1024 * 1024
"""Bytes of lines of batches that it remembers: the pictures of a page are asked for right after it."""
LARGE_FOR = 60.0
"""Seconds for which what is too large is not asked for again."""
LARGE = 1000
"""How many of them are known."""
BATCH_PAGE = 60
FOUND = 30
"""Requests of a batch that one look at a search finds."""
_LIKE_AN_ID = re.compile(r"(?=.*\d)[\w/.:-]{8,}")
_TRUNCATED = "max_templated_field_length"
"""What Airflow writes into a rendered argument of which it kept only the beginning."""
_OURS = b'"media_'
"""What is in every XCom of ours: `media_conn_id`, or of a download `media_task_id`."""
LATE = 60.0
"""Seconds for which a worker may go on with a task that Airflow has ended already."""

Json = dict[str, Any]
Instance = Mapping[str, Any]
"""A task instance, as Airflow's API lists it."""
Body = bytes | int | Unreadable | None
"""Airflow's answer, as it came; of one that is too large, how large; None where there is no such thing."""

_results = Memory(RESULTS)
_listed = Memory(LINES)
_searcher = ThreadPoolExecutor(1, thread_name_prefix="gallery-search")
"""One batch is searched at a time, whoever searches; pictures do not wait for it."""
_large: OrderedDict[tuple[Any, ...], tuple[float, int]] = OrderedDict()


async def items_of(api: AirflowApi, instances: Sequence[Instance]) -> list[Json]:
    """The page's items for those of the task instances that make media.

    Whoever calls this has made sure that the user may read XComs of their DAGs.
    """
    return [item for _, item in await _pairs_of(api, instances)]


async def _pairs_of(api: AirflowApi, instances: Sequence[Instance]) -> list[tuple[Instance, Json]]:
    bodies = await asyncio.gather(*(_left_by(api, instance) for instance in instances))
    return await asyncio.to_thread(_pairs, instances, bodies)


@dataclass(frozen=True)
class Cursor:
    """Where a list of items goes on.

    :param after: Airflow's own cursor, of a page of task instances.
    :param instance: id of the one in that page from which to go on; empty for the first.
    :param number: the request of this one, a batch, from which to go on.
    """

    after: str = ""
    instance: str = ""
    number: int = 0


@dataclass(frozen=True)
class Look:
    """What was found at one look.

    :param looked_back_to: when what was looked at last had begun.
    :param rest: where in the same page of task instances to go on, or None if it is through.
    """

    items: list[Json]
    looked_back_to: str | None
    rest: Cursor | None


async def look_through(
    api: AirflowApi, instances: Sequence[Instance], q: str, at: Cursor, *, whole: bool
) -> AsyncIterator[Look]:
    """The items of a page of task instances from *at*, of a search those that have *q*.

    A batch is searched by the prompts of its requests; each one that is found is an item. Its results have
    to be read for that, so there is a look for each batch: whoever asks may stop behind any of them.

    :param whole: whether a batch with such a request is wanted, and not the request.
    """
    ids = [instance["id"] for instance in instances]
    left = instances[ids.index(at.instance) if at.instance in ids else 0 :]
    back_to = left[-1]["start_date"] if left else None
    pairs = await _pairs_of(api, [instance for instance in left if may_match(instance, q)])
    if not q:
        yield Look([item for _, item in pairs], back_to, None)
        return
    found: list[Json] = []
    for place, (instance, item) in enumerate(pairs):
        if item["batch"] is None:
            found += [item] if _has(item, q) else []
            continue
        more: int | None = at.number if instance["id"] == at.instance else 0
        while more is not None:
            requests, more = await _requests_with(api, instance, item, q, more, whole=whole)
            rest = instance if more is not None else pairs[place + 1][0] if place + 1 < len(pairs) else None
            going_on = None if rest is None else Cursor(at.after, rest["id"], more or 0)
            yield Look([*found, *requests], instance["start_date"], going_on)
            found = []
    yield Look(found, back_to, None)


async def _requests_with(
    api: AirflowApi, instance: Instance, batch: Json, q: str, first: int, *, whole: bool
) -> tuple[list[Json], int | None]:
    """Some requests of a *batch* that have *q*, from number *first*, and the number from which to go on."""
    if batch["batch"]["results"] is None:
        # It runs: there is only what Airflow shows of its arguments.
        return [batch] if q.lower() in _rendered(instance) else [], None
    try:
        manifest = manifest_of(await returned_by(api, instance))
    except Unreadable:
        # It has been cleared at this moment.
        return [], None

    def search() -> tuple[list[Json], int | None]:
        lines, more = results.search(manifest, q.lower(), first, 1 if whole else FOUND)
        for number, line in lines:
            _listed.keep((manifest.results, manifest.results_sha256, number), line)
        return [cards.request_of(batch, number, _json(line)) for number, line in lines], more

    try:
        found, more = await asyncio.wrap_future(_searcher.submit(search))
    except HTTPException:
        # Its own page says why its results cannot be read.
        return [], None
    return ([batch] if found else [], None) if whole else (found, more)


def _pairs(
    instances: Sequence[Instance], bodies: Sequence[Mapping[str, Body]]
) -> list[tuple[Instance, Json]]:
    found = []
    for instance, left in zip(instances, bodies, strict=True):
        card = cards.card_of(instance, {name: _value(body) for name, body in left.items()})
        if card is not None:
            found.append((instance, card))
        if card is not None and card["unreadable"]:
            # It may be put right.
            for name in _FINAL.values():
                _results.forget((instance["id"], instance["try_number"], name))
    return found


def _value(body: Body) -> Any:
    """What Airflow's answer is about; an Unreadable where it cannot be read."""
    answer = _json(body)
    return answer.get("value") if isinstance(answer, dict) else answer


def _json(body: Body) -> Any:
    try:
        if isinstance(body, int):
            raise Unreadable(schema.too_large(body))
        return schema.json_of(body) if isinstance(body, bytes) else body
    except Unreadable as error:
        return error


_FINAL = {"result": "return_value", "error": "media_error", "manifest": "media_batch", "urls": "urls"}
"""The XComs of a task instance that has ended, by what they are to a card; they do not change any more."""


async def _left_by(api: AirflowApi, instance: Instance) -> dict[str, Body]:
    if instance["state"] == "success":
        return {"result": await _final(api, instance, "return_value")}
    if instance["start_date"] is None:
        # No worker has had it; listed where the database's clock is behind ours.
        return {}
    read = _final if _is_over(instance) else _xcom
    batch = "Batch" in (instance["operator_name"] or "")
    written, error, manifest = await asyncio.gather(
        _body(api, f"{_path(instance)}/state-store/{BATCH if batch else KEY}", instance),
        read(api, instance, "media_error"),
        read(api, instance, "media_batch"),
    )
    left = {"progress" if batch else "record": written, "error": error, "manifest": manifest}
    is_accepted = isinstance(written, bytes) and b'"media_task_id"' in written
    if instance["state"] in cards.STOPPED and manifest is None and (error is None or is_accepted):
        # Airflow may have ended it while its worker went on, or what was made has not landed.
        left["result"], left["urls"], left["landed"] = await asyncio.gather(
            read(api, instance, "return_value"),
            read(api, instance, "urls"),
            _body(api, f"{_path(instance)}/state-store/{LANDED}", instance),
        )
    return left


def _is_over(instance: Mapping[str, Any]) -> bool:
    """Whether a task instance has failed for good, and no worker writes for it any more."""
    if instance["state"] != "failed" or instance["end_date"] is None:
        return False
    ended = datetime.fromisoformat(instance["end_date"].replace("Z", "+00:00"))
    return (datetime.now(timezone.utc) - ended).total_seconds() > LATE


async def _final(api: AirflowApi, instance: Mapping[str, Any], name: str) -> Body:
    """An XCom of a task instance that has ended, which is asked for once."""
    key = (instance["id"], instance["try_number"], name)
    known = _results.get(key)
    if known is not None:
        return known or None
    until, size = _large.get(key, (0.0, 0))
    if time.monotonic() < until:
        return size
    body = await _xcom(api, instance, name)
    if isinstance(body, int):
        _large[key] = (time.monotonic() + LARGE_FOR, body)
        while len(_large) > LARGE:
            _large.popitem(last=False)
    elif not isinstance(body, Unreadable):
        _results.keep(key, body or b"")
    return body


async def _xcom(api: AirflowApi, instance: Mapping[str, Any], name: str) -> Body:
    return await _body(api, f"{_path(instance)}/xcomEntries/{name}", instance)


async def _body(api: AirflowApi, path: str, instance: Mapping[str, Any]) -> Body:
    try:
        body = await api.find(path, params=where(instance))
    except HTTPException as error:
        if error.status_code < 500:  # what Airflow refuses it refuses for the whole page
            raise
        return Unreadable(f"Airflow itself answers {error.status_code} when it is asked for")
    if body is None or len(body) <= schema.ITEM_BYTES:
        return body
    # Another package's operator may return what it likes.
    return len(body) if _OURS in body else None


def where(instance: Mapping[str, Any]) -> Json:
    """What tells a task instance apart from others of its task, as Airflow's API wants it."""
    region = {name: instance[name] for name in cards.REGION if instance.get(name) is not None}
    return region or {"map_index": instance["map_index"]}


def _path(instance: Mapping[str, Any]) -> str:
    return instance_path(instance["dag_id"], instance["dag_run_id"], instance["task_id"])


async def record(api: AirflowApi, instance: Mapping[str, Any], number: int | None = None) -> Json | None:
    """The record of the task instance's submission, or of one request of its batch; or None."""
    if number is None:
        value = await entry(api, instance, KEY)
    else:
        name = page_of(await entry(api, instance, BATCH), number)
        page = None if name is None else await entry(api, instance, name)
        value = page.get(str(number)) if isinstance(page, dict) else None
    return value if isinstance(value, dict) else None


async def entry(api: AirflowApi, instance: Mapping[str, Any], key: str) -> Any:
    """An entry of the task instance's state store; an Unreadable, or None."""
    return _value(await _body(api, f"{_path(instance)}/{at('state-store', key)}", instance))


async def returned_by(api: AirflowApi, instance: Mapping[str, Any]) -> Any:
    """What a task instance returned, in whatever state it is, or what a batch that failed left; or None.

    An Unreadable, where that is what it is. Whoever calls this has made sure that the user may read XComs of
    this DAG.
    """
    if instance["state"] == "success":
        body = await _final(api, instance, "return_value")
    else:
        body = await _xcom(api, instance, "media_batch")
        if body is None and instance["state"] in cards.STOPPED:
            body = await _xcom(api, instance, "return_value")
    return await asyncio.to_thread(_value, body)


def manifest_of(value: Any) -> schema.Manifest:
    """The manifest that a batch left. Raises Unreadable if it is none."""
    return schema.read(schema.Manifest, value)


async def requests_of(
    item: Mapping[str, Any], manifest: schema.Manifest, first: int, count: int
) -> list[Json]:
    """The items of up to *count* requests of a batch from number *first*.

    :raises HTTPException: 404 if the batch's results are not what it wrote, or not to be read.
    """

    def read() -> list[Json]:
        found = results.lines(manifest, first, count)
        for number, line in enumerate(found, first):
            if isinstance(line, bytes):
                _listed.keep((manifest.results, manifest.results_sha256, number), line)
        return [cards.request_of(item, number, _json(line)) for number, line in enumerate(found, first)]

    return await files.away(read)


async def file_of(value: Any, number: int | None, n: int) -> files.Recorded | None:
    """The landed file *n* of what a task instance returned, or of request *number* of a batch; or None.

    :raises HTTPException: 404 if the batch's results are not what it wrote, or not to be read.
    """
    try:
        if number is not None:
            manifest = manifest_of(value)
            value = await files.away(lambda: _line_at(manifest, number))
        found = schema.read(schema.Landed, value).files
    except Unreadable:
        return None
    if not 0 <= n < len(found) or found[n].path is None:
        return None
    file = found[n]
    return files.Recorded(str(file.path), file.sha256, file.size, file.ends_sha256, file.content_type)


def _line_at(manifest: schema.Manifest, number: int) -> Any:
    line: bytes | int | None = _listed.get((manifest.results, manifest.results_sha256, number))
    if line is None:
        line = next(iter(results.lines(manifest, number, 1)), None)
    return _json(line)


def is_wanted(item: Mapping[str, Any], *, provider: str, kind: str, status: str) -> bool:
    """Whether *item* passes the filters that Airflow's API does not know; an empty one lets all pass."""
    if item["is_download"] and item["status"] != "failed":
        # What it has landed is shown where it was made; its own page has it, too.
        return False
    return (
        (not provider or item["provider"] == provider)
        and (not kind or item["kind"] == kind)
        and (not status or item["status"] == status)
    )


def _has(item: Mapping[str, Any], q: str) -> bool:
    """Whether *q* is in the prompt of an item, or in its id at the provider."""
    return q.lower() in f"{item['prompt'] or ''} {item['media_task_id'] or ''}".lower()


def may_match(instance: Instance, q: str) -> bool:
    """Whether the rendered arguments of a task instance leave it open that its item has *q* in its prompt.

    They come with the list of instances, so most of what is not searched for need not be looked at. The
    requests of a batch are a text where they are a path, or too many for Airflow.
    """
    fields = instance.get("rendered_fields")
    if not isinstance(fields, dict) or not fields or _LIKE_AN_ID.fullmatch(q):
        return True
    text = _rendered(instance)
    return q.lower() in text or _TRUNCATED in text or isinstance(fields.get("requests"), str)


def _rendered(instance: Instance) -> str:
    """The texts in the rendered arguments of a task instance, in lower case."""
    return "\n".join(_texts(instance.get("rendered_fields"))).lower()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


class Clock:
    """A time budget in seconds."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether it is used up."""
        return time.monotonic() >= self._ends
