"""What the page shows of a task instance: read from its XComs and its record in the state store."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pkgutil import resolve_name
from typing import Any
from urllib.parse import urlencode

from airflow.sdk import ObjectStoragePath

from airflow_media_tasks.gallery.airflow_api import AirflowApi, instance_path
from airflow_media_tasks.get_provider_info import get_provider_info
from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.records import KEY


OPERATORS = "Media|Generate"
"""What is in the name of an operator of ours, or of one derived from ours; more is told by its XComs."""
RESULTS = 20_000
"""Results that one API server remembers; what has succeeded does not change any more."""
BATCH_PAGE = 60
_LIKE_AN_ID = re.compile(r"(?=.*\d)[\w/.:-]{8,}")
_TRUNCATED = "max_templated_field_length"
"""What Airflow writes into a rendered argument of which it kept only the beginning."""

Json = dict[str, Any]

ADVICE = {
    "MediaAuthError": "Look at the key in the connection, then clear the task.",
    "MediaFundsError": "Charge the account or raise the limit, then clear the task. Nothing was paid.",
    "MediaRateLimitError": "Clear the task later; an Airflow pool keeps an account within its limits.",
    "MediaConcurrencyError": "Clear the task later; an Airflow pool keeps an account within its limits.",
    "MediaModerationError": "Change the prompt or the source: the same request would be refused again.",
    "MediaRequestError": "Correct the argument that the message names.",
    "MediaNotFoundError": "The provider does not know this task. Clear it to submit a new one.",
    "MediaExpiredError": "The files are gone at the provider. Clear the task to make them anew, and pay.",
    "MediaProviderError": "The provider's fault: clear the task. What was paid is not paid again.",
    "MediaTaskFailed": "Clear the task to submit it again.",
    "MediaTaskTimeout": "It may still finish: clear the task and it goes on waiting, without paying.",
    "SubmissionOutcomeUnknown": "Adopt the task that it became, or submit anew, which may pay twice.",
}

LISTED_FOR = 60.0
"""Seconds for which a task instance that was listed is taken to be as it was."""

_results: OrderedDict[tuple[str, int, str], Any] = OrderedDict()
_listed: OrderedDict[tuple[Any, ...], tuple[float, Any]] = OrderedDict()


async def result_of(api: AirflowApi, instance: Mapping[str, Any]) -> Any:
    """What a succeeded task instance returned, or None.

    Whoever calls this has made sure that the user may read XComs of this DAG.
    """
    return await _final(api, instance, "return_value")


async def _final(api: AirflowApi, instance: Mapping[str, Any], name: str) -> Any:
    """An XCom of a task instance that has ended, which is asked for once: it does not change any more."""
    key = (instance["id"], instance["try_number"], name)
    value = _results[key] if key in _results else await xcom(api, instance, name)
    _remember(_results, key, value)
    if isinstance(value, dict) and value.keys() & {"files", "results"}:
        _remember(_listed, tuple(key_of(instance).values()), (time.monotonic(), value))
    return value


def _remember(values: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    values[key] = value
    values.move_to_end(key)
    while len(values) > RESULTS:
        values.popitem(last=False)


def listed_of(place: Mapping[str, Any]) -> Any:
    """What the task instance with the key *place* returned, if somebody has listed it a moment ago; or None.

    A page of pictures asks for all of them at once, and has just been listed.
    """
    moment, value = _listed.get(tuple(place.values()), (0.0, None))
    return value if time.monotonic() - moment < LISTED_FOR else None


async def xcom(api: AirflowApi, instance: Mapping[str, Any], key: str) -> Any:
    """One XCom of a task instance, or None."""
    path = f"{_path(instance)}/xcomEntries/{key}"
    found = await api.find(path, params={"map_index": instance["map_index"]})
    return found["value"] if found else None


async def record(api: AirflowApi, instance: Mapping[str, Any], number: int | None = None) -> Json | None:
    """The record of the task instance's submission, or of one request of its batch; or None."""
    key = KEY if number is None else f"{KEY}.{number}"
    path = f"{_path(instance)}/state-store/{key}"
    found = await api.find(path, params={"map_index": instance["map_index"]})
    value = found["value"] if found else None
    return value if isinstance(value, dict) else None


async def item_of(api: AirflowApi, instance: Mapping[str, Any]) -> Json | None:
    """The page's item for a task instance, or None if it makes no media."""
    if instance["state"] == "success":
        result = await result_of(api, instance)
        if isinstance(result, dict) and {"results", "total"} <= result.keys():
            return _item(instance, _of_batch(result))
        if isinstance(result, dict) and {"media_conn_id", "files"} <= result.keys():
            return _item(instance, _of_result(instance, result))
        return None
    read = _final if instance["state"] == "failed" else xcom
    written, error, manifest = await asyncio.gather(
        record(api, instance), read(api, instance, "media_error"), read(api, instance, "media_batch")
    )
    if isinstance(manifest, dict):
        return _item(instance, {**_of_batch(manifest), "error": _error(error)})
    fields = instance.get("rendered_fields")
    rendered = fields if isinstance(fields, dict) else {}
    if written is None and not isinstance(error, dict) and "media_conn_id" not in rendered:
        return None
    return _item(instance, _unfinished(instance, written or {}, error, rendered))


def _path(instance: Mapping[str, Any]) -> str:
    return instance_path(instance["dag_id"], instance["dag_run_id"], instance["task_id"])


def key_of(instance: Mapping[str, Any]) -> Json:
    """What names a task instance."""
    return {
        "dag_id": instance["dag_id"],
        "run_id": instance["dag_run_id"],
        "task_id": instance["task_id"],
        "map_index": instance["map_index"],
    }


def _item(instance: Mapping[str, Any], made: Json) -> Json:
    """What is known of every task instance, and what is *made* of this one."""
    hook = _hook_of(made["provider"])
    dag, run = f"/dags/{_q(instance['dag_id'])}", f"/runs/{_q(instance['dag_run_id'])}"
    task = f"{dag}{run}/tasks/{_q(instance['task_id'])}"
    if instance["map_index"] >= 0:
        task += f"/mapped/{instance['map_index']}"
    return {
        **key_of(instance),
        "try_number": instance["try_number"],
        "operator": instance["operator_name"],
        "name": instance.get("rendered_map_index"),
        "airflow_state": instance["state"],
        "started_at": instance["start_date"],
        "links": {"dag": dag, "run": dag + run, "task": task, "console": hook and hook.console_url},
        "error": None,
        "candidates": [],
        "batch": None,
        "expected_seconds": None,
        **made,
    }


def _q(text: str) -> str:
    return urlencode({"": text})[1:].replace("+", "%20")


def _of_result(instance: Mapping[str, Any], result: Mapping[str, Any]) -> Json:
    given = result.get("arguments")
    arguments = given if isinstance(given, dict) else {}
    files = [
        _file(instance, number, file) for number, file in enumerate(result["files"]) if isinstance(file, dict)
    ]
    task = instance["task_id"]
    mapped = f", map_indexes={instance['map_index']}" if instance["map_index"] >= 0 else ""
    return {
        "status": "succeeded",
        "kind": _kind(files),
        "provider": result.get("provider"),
        "operation": result.get("operation"),
        "model": result.get("model"),
        "media_conn_id": result.get("media_conn_id"),
        "media_task_id": result.get("id"),
        "prompt": _prompt(arguments),
        "arguments": arguments,
        "submitted_at": result.get("submitted_at"),
        "finished_at": result.get("finished_at") or instance["end_date"],
        "seconds": _seconds(result.get("submitted_at"), result.get("finished_at")),
        "cost": result.get("cost"),
        "files": files,
        "reference": f"{{{{ ti.xcom_pull(task_ids='{task}'{mapped})['url'] }}}}",
    }


def _unfinished(
    instance: Mapping[str, Any], written: Mapping[str, Any], error: Any, rendered: Mapping[str, Any]
) -> Json:
    arguments = written.get("arguments")
    if not isinstance(arguments, dict):
        given = rendered.get("arguments")
        arguments = {**(given if isinstance(given, dict) else {}), "prompt": rendered.get("prompt")}
        arguments = {name: value for name, value in arguments.items() if value is not None}
    state = instance["state"]
    failed = state in ("failed", "upstream_failed", "up_for_retry", "removed", "skipped")
    status = "failed" if failed else "running" if written.get("media_task_id") else "queued"
    shown = _error(error) if failed else None
    if shown and shown["type"] == "SubmissionOutcomeUnknown" and written.get("phase") == "intent":
        status = "unknown"
    provider, operation = written.get("provider"), written.get("operation") or rendered.get("operation")
    return {
        "status": status,
        "kind": _kind_of_operation(str(operation or instance["operator_name"] or "")),
        "provider": provider,
        "operation": operation,
        "model": arguments.get("model"),
        "media_conn_id": written.get("media_conn_id") or rendered.get("media_conn_id"),
        "media_task_id": written.get("media_task_id"),
        "prompt": _prompt(arguments),
        "arguments": arguments,
        "submitted_at": written.get("submitted_after"),
        "finished_at": instance["end_date"] if failed else None,
        "seconds": None,
        "expected_seconds": _expected(provider, operation),
        "cost": None,
        "files": [],
        "error": shown,
        "candidates": error.get("candidates") or []
        if status == "unknown" and isinstance(error, dict)
        else [],
        "reference": None,
    }


def _of_batch(manifest: Mapping[str, Any]) -> Json:
    return {
        "status": "succeeded" if manifest.get("succeeded") else "failed",
        "kind": "batch",
        "provider": manifest.get("provider"),
        "operation": manifest.get("operation"),
        "model": None,
        "media_conn_id": manifest.get("media_conn_id"),
        "media_task_id": None,
        "prompt": None,
        "arguments": {},
        "submitted_at": None,
        "finished_at": None,
        "seconds": None,
        "cost": None,
        "files": [],
        "reference": None,
        "batch": {
            name: manifest.get(name)
            for name in ("total", "submitted", "succeeded", "failed", "errors", "results", "cost")
        },
    }


def batch_items(item: Mapping[str, Any], path: str, offset: int) -> list[Json]:
    """The items of a batch's requests, BATCH_PAGE of them from *offset*, from the file its manifest names."""
    lines: list[Json] = []
    with ObjectStoragePath(path).open("r", encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            if number >= offset + BATCH_PAGE:
                break
            if number >= offset:
                lines.append(json.loads(line))
    return [_of_line(item, line) for line in lines]


def _of_line(item: Mapping[str, Any], line: Mapping[str, Any]) -> Json:
    instance = {**item, "dag_run_id": item["run_id"]}
    files = [
        _file(instance, number, file, line["number"]) for number, file in enumerate(line.get("files") or [])
    ]
    arguments = line.get("arguments") or {}
    error = _error(line.get("error"))
    return {
        **item,
        "batch": None,
        "number": line["number"],
        "status": "failed" if error else "succeeded",
        "kind": _kind(files) if files else _kind_of_operation(line.get("operation") or ""),
        "operation": line.get("operation"),
        "model": arguments.get("model"),
        "media_task_id": line.get("media_task_id"),
        "prompt": _prompt(arguments),
        "arguments": arguments,
        "submitted_at": line.get("submitted_at"),
        "finished_at": line.get("finished_at"),
        "seconds": _seconds(line.get("submitted_at"), line.get("finished_at")),
        "cost": line.get("cost"),
        "files": files,
        "error": error,
        "reference": None,
    }


def file_at(result: Any, number: int) -> Json | None:
    """The landed file with this number in what a task instance returned, or None."""
    files = result.get("files") if isinstance(result, dict) else None
    if not isinstance(files, list) or not 0 <= number < len(files):
        return None
    file = files[number]
    return file if isinstance(file, dict) and isinstance(file.get("path"), str) else None


def _file(instance: Mapping[str, Any], number: int, file: Json, request: int | None = None) -> Json:
    url = file.get("url")
    landed = isinstance(file.get("path"), str)
    expires = _moment(file.get("expires_at"))
    expired = expires is not None and expires <= datetime.now(timezone.utc)
    source = None
    if landed:
        source = file_url(instance, number, request)
    elif isinstance(url, str) and url.startswith(("https://", "http://")) and not expired:
        source = url
    known = ("kind", "content_type", "width", "height", "duration", "size", "sha256", "watermarked", "path")
    return {
        "n": number,
        **{name: file.get(name) for name in known},
        "src": source,
        "landed": landed,
        "url": url,
        "expires_at": file.get("expires_at"),
        "expired": expired,
    }


def file_url(instance: Mapping[str, Any], number: int, request: int | None = None) -> str:
    """Where the page gets a landed file; no path is in it."""
    query: Json = {**key_of(instance), "n": number}
    if request is not None:
        query["number"] = request
    return f"file?{urlencode(query)}"


def use_landed_copies(
    items: Iterable[Json], copies: Mapping[str, tuple[Mapping[str, Any], int, Json]]
) -> None:
    """Lets files that another task has landed be shown from there; *copies* by the provider's URL."""
    for item in items:
        for file in item["files"]:
            if not file["landed"] and file["url"] in copies:
                instance, number, landed = copies[file["url"]]
                file.update(
                    src=file_url(instance, number),
                    landed=True,
                    **{name: landed.get(name) for name in ("path", "sha256", "size", "content_type")},
                )


def _kind(files: list[Json]) -> str:
    kinds = [file["kind"] for file in files if file["kind"] != "thumbnail"]
    return str(kinds[0]) if kinds and kinds[0] in ("image", "video", "audio") else "file"


def _kind_of_operation(operation: str) -> str:
    name = operation.lower()
    for kind, words in {"video": ("video", "lip_sync"), "audio": ("audio", "music", "speech")}.items():
        if any(word in name for word in words):
            return kind
    return "batch" if "batch" in name else "image"


def _prompt(arguments: Mapping[str, Any]) -> str | None:
    prompt = arguments.get("prompt") or arguments.get("description") or arguments.get("text")
    return prompt if isinstance(prompt, str) else None


def _error(error: Any) -> Json | None:
    if not isinstance(error, dict):
        return None
    kind = str(error.get("type") or "MediaTaskError")
    return {
        "type": kind,
        "message": str(error.get("message") or ""),
        "code": error.get("code"),
        "advice": ADVICE.get(kind),
    }


def _expected(provider: Any, operation: Any) -> float | None:
    """How long the operation usually takes, as its hook foretells."""
    hook = _hook_of(provider)
    known = hook.operations if hook else {}
    return float(known[operation].expected_seconds) or None if operation in known else None


@functools.cache
def _hook_of(provider: Any) -> type[MediaHook] | None:
    for connection in get_provider_info()["connection-types"]:
        if connection["connection-type"] == provider:
            hook: type[MediaHook] = resolve_name(connection["hook-class-name"])
            return hook
    return None


def _moment(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _seconds(start: Any, end: Any) -> float | None:
    first, last = _moment(start), _moment(end)
    return (last - first).total_seconds() if first and last else None


def is_wanted(item: Mapping[str, Any], *, provider: str, kind: str, status: str, q: str) -> bool:
    """Whether *item* passes the filters that Airflow's API does not know; an empty one lets all pass."""
    words = f"{item['prompt'] or ''} {item['media_task_id'] or ''}".lower()
    return (
        (not provider or item["provider"] == provider)
        and (not kind or item["kind"] == kind)
        and (not status or item["status"] == status)
        and (not q or q.lower() in words)
    )


def may_match(instance: Mapping[str, Any], q: str) -> bool:
    """Whether the rendered arguments of a task instance leave it open that its item has *q* in its prompt.

    They come with the list of instances, so most of what is not searched for need not be looked at.
    """
    fields = instance.get("rendered_fields")
    if not isinstance(fields, dict) or not fields or _LIKE_AN_ID.fullmatch(q):
        return True
    text = "\n".join(_texts(fields))
    return q.lower() in text.lower() or _TRUNCATED in text


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


def line_at(path: str, number: int) -> Json | None:
    """What a batch's results say of the request with this number, or None."""
    with ObjectStoragePath(path).open("r", encoding="utf-8") as stream:
        for place, line in enumerate(stream):
            if place == number:
                found = json.loads(line)
                return found if isinstance(found, dict) else None
    return None
