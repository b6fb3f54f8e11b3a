"""What the page shows of a task instance, made of what it has left; nothing here asks anybody."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pkgutil import resolve_name
from typing import Any
from urllib.parse import urlencode

from airflow_media_tasks.gallery import files, roots, schema
from airflow_media_tasks.gallery.schema import Unreadable
from airflow_media_tasks.get_provider_info import get_provider_info
from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.retries import PARTIAL_FAILURE


URL_LENGTH = 8192
"""Characters of an address that is loaded."""
PROMPT_SHOWN, TEXT_SHOWN = 500, 250
"""Characters of a text on a card; the detail view has all of it."""

Json = dict[str, Any]

ADVICE = {
    "MediaAuthError": "Look at the key in the connection, then clear the task.",
    "MediaFundsError": "Charge the account or raise the limit, then clear the task. Nothing was paid.",
    "MediaRateLimitError": "Clear the task later; an Airflow pool keeps an account within its limits.",
    "MediaConcurrencyError": "Clear the task later; an Airflow pool keeps an account within its limits.",
    "MediaModerationError": "Change the prompt or the source: the same request would be refused again.",
    "MediaRequestError": "Correct what the message names: an argument, or the connection.",
    "MediaNotFoundError": "The provider does not know this task. Clear it to look again; after `airflow "
    "media-tasks resubmit` a clear makes a new one, which is paid.",
    "MediaExpiredError": "The files are gone at the provider. Clear the task to make them anew, and pay.",
    "MediaProviderError": "The provider's fault: clear the task. What was paid is not paid again.",
    "MediaTaskFailed": "Clear the task to submit it again.",
    "MediaTaskTimeout": "It may still finish: clear the task and it goes on waiting, without paying.",
    "SubmissionOutcomeUnknown": "Adopt the task that it became, or submit anew, which may pay twice.",
}

_PARTLY = (
    "Clear the task: what has failed is submitted again, and what was made is kept. A request that asks what "
    "became of it is answered first, on its own card or by `airflow media-tasks adopt` or `resubmit`."
)
REGION = ("region_id", "region_index")
STOPPED = ("failed", "upstream_failed", "up_for_retry", "removed", "skipped")
"""Airflow's states of what does not run and has not succeeded."""
DOWNLOADS = "DownloadMedia"
"""What is in the name of an operator that only lands what others have made."""

Left = Mapping[str, Any]
"""What a task instance has left, as JSON by name: `result`, `urls`, `error`, `manifest`, `record`, `landed`,
`progress`; an Unreadable, if that is what it is, or nothing."""


def card_of(instance: Mapping[str, Any], left: Left) -> Json | None:
    """The page's item for a task instance, or None if it makes no media."""
    try:
        for value in left.values():
            if isinstance(value, Unreadable):
                raise value
        made = _returned(instance, left)
        if instance["state"] != "success":
            made = _unfinished(instance, left) if made is None else {**made, "notice": _lost(instance, made)}
        return None if made is None else _item(instance, made)
    except Unreadable as error:
        return _item(instance, {**_nothing(), "status": "unreadable", "unreadable": str(error)})


def _returned(instance: Mapping[str, Any], left: Left) -> Json | None:
    result = left.get("result")
    if isinstance(result, dict) and {"results", "total"} <= result.keys():
        return _of_batch(instance, schema.read(schema.Manifest, result))
    if isinstance(result, dict) and {"media_conn_id", "files"} <= result.keys():
        return _of_result(instance, schema.read(schema.Result, result))
    if isinstance(result, dict) and {"path", "paths", "files"} <= result.keys():
        return _of_download(instance, schema.read(schema.Landed, result))
    return None


def _lost(instance: Mapping[str, Any], made: Json) -> str:
    """What to do about a task that has returned what it made, and that Airflow has in another state."""
    what = f"Airflow has this task as {instance['state']}, although it has returned what is here"
    if instance["state"] == "up_for_retry":
        return f"{what}. The next try takes it over, and nothing is paid again."
    if made["batch"]:
        return f"{what}. A clear keeps what was made, and pays nothing for it again."
    if made["submitted_at"] is None:
        return f"{what}. Clear it: that pays nothing."
    return f"{what}. Mark it as success: a clear makes a new one, which is paid."


def _is_download(instance: Mapping[str, Any]) -> bool:
    fields = instance.get("rendered_fields")
    named = DOWNLOADS in (instance["operator_name"] or "")
    return named or (isinstance(fields, dict) and {"media", "destination"} <= fields.keys())


def key_of(instance: Mapping[str, Any]) -> Json:
    """What names a task instance."""
    return {
        "dag_id": instance["dag_id"],
        "run_id": instance["dag_run_id"],
        "task_id": instance["task_id"],
        "map_index": instance["map_index"],
        # Airflow 3.4 tells the iterations of a loop, and what was mapped, apart by regions.
        **{name: instance[name] for name in REGION if instance.get(name) is not None},
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
        "loop": (instance.get("loop_iteration") or {}).get("iteration"),
        "airflow_state": instance["state"],
        "started_at": instance["start_date"],
        "links": {"dag": dag, "run": dag + run, "task": task, "console": hook and hook.console_url},
        "is_download": _is_download(instance),
        **made,
    }


def _q(text: str) -> str:
    return urlencode({"": text})[1:].replace("+", "%20")


def _nothing() -> Json:
    """What every item says, where there is nothing to say."""
    return {
        "status": "queued",
        "kind": "file",
        "provider": None,
        "operation": None,
        "model": None,
        "media_conn_id": None,
        "media_task_id": None,
        "client_ref": None,
        "prompt": None,
        "arguments": {},
        "submitted_at": None,
        "finished_at": None,
        "seconds": None,
        "expected_seconds": None,
        "cost": None,
        "files": [],
        "file_count": 0,
        "error": None,
        "candidates": [],
        "batch": None,
        "reference": None,
        "notice": None,
        "empty": "No files",
        "unreadable": None,
    }


def _of_result(instance: Mapping[str, Any], result: schema.Result) -> Json:
    arguments = result.arguments or {}
    shown = [_file(instance, number, file) for number, file in enumerate(result.files)]
    return {
        **_nothing(),
        "status": "succeeded",
        "kind": _kind(shown),
        "provider": result.provider,
        "operation": result.operation,
        "model": result.model,
        "media_conn_id": result.media_conn_id,
        "media_task_id": result.id,
        "prompt": prompt_of(arguments),
        "arguments": arguments,
        "submitted_at": result.submitted_at,
        "finished_at": result.finished_at or instance["end_date"],
        "seconds": _seconds(result.submitted_at, result.finished_at),
        "cost": _cost(result.cost),
        "files": shown,
        "file_count": _count(shown),
        "reference": _reference(instance, "url"),
    }


def _of_download(instance: Mapping[str, Any], landed: schema.Landed) -> Json:
    """What `DownloadMediaOperator` returned: nothing but files."""
    shown = [_file(instance, number, file) for number, file in enumerate(landed.files)]
    return {
        **_nothing(),
        "status": "succeeded",
        "kind": _kind(shown),
        "is_download": True,
        "finished_at": instance["end_date"],
        "files": shown,
        "file_count": _count(shown),
        "reference": _reference(instance, "path"),
    }


def _reference(instance: Mapping[str, Any], key: str) -> str:
    """How a template of the DAG reads *key* of what the task instance returned."""
    mapped = f", map_indexes={instance['map_index']}" if instance["map_index"] >= 0 else ""
    return f"{{{{ ti.xcom_pull(task_ids='{instance['task_id']}'{mapped})['{key}'] }}}}"


def _unfinished(instance: Mapping[str, Any], left: Left) -> Json | None:
    said, manifest = left.get("error"), left.get("manifest")
    error = schema.read(schema.Error, said) if isinstance(said, dict) else None
    if isinstance(manifest, dict):
        return {**_of_batch(instance, schema.read(schema.Manifest, manifest)), "error": _error(error)}
    failed = instance["state"] in STOPPED
    shown = error if failed else None
    progress = left.get("progress")
    if isinstance(progress, dict):
        read = schema.read(schema.Progress, progress)
        return {**_of_progress(instance, read, failed), "error": _error(shown)}
    if _is_download(instance):
        return _of_landing(left, failed, shown)
    fields = instance.get("rendered_fields")
    rendered = fields if isinstance(fields, dict) else {}
    noted = left.get("record")
    if not isinstance(noted, dict) and error is None and "media_conn_id" not in rendered:
        return None
    known = noted if isinstance(noted, dict) else {}
    if not isinstance(known.get("arguments"), dict):
        given = rendered.get("arguments")
        asked = {**(given if isinstance(given, dict) else {}), "prompt": rendered.get("prompt")}
        known = {**known, "arguments": {name: value for name, value in asked.items() if value is not None}}
    record = schema.read(schema.Record, known)
    arguments = record.arguments or {}
    status = "failed" if failed else "running" if record.media_task_id else "queued"
    if shown and shown.type == "SubmissionOutcomeUnknown" and record.phase == "intent":
        status = "unknown"
    operation = record.operation or _text(rendered.get("operation"))
    kind = _kind_of_operation(operation or instance["operator_name"] or "")
    urls = schema.read(schema.Urls, {"urls": left.get("urls") or []}).urls if record.media_task_id else []
    files = [_file(instance, n, schema.File(kind=kind, url=url)) for n, url in enumerate(urls)]
    return {
        **_nothing(),
        "status": status,
        "kind": kind,
        "files": files,
        "file_count": len(files),
        **_left_behind(instance, record, left, status, shown),
        "provider": record.provider,
        "operation": operation,
        "model": _text(arguments.get("model")),
        "media_conn_id": record.media_conn_id or _text(rendered.get("media_conn_id")),
        "media_task_id": record.media_task_id,
        "client_ref": record.client_ref if status == "unknown" else None,
        "prompt": prompt_of(arguments),
        "arguments": arguments,
        "submitted_at": record.submitted_after,
        "finished_at": instance["end_date"] if failed else None,
        "expected_seconds": _expected(record.provider, operation),
        "error": _error(shown),
        "candidates": [one.model_dump() for one in shown.candidates] if shown and status == "unknown" else [],
    }


def _of_landing(left: Left, failed: bool, error: schema.Error | None) -> Json:
    """A download that has not succeeded."""
    landed = _landed(left)
    return {
        **_nothing(),
        "status": "failed" if failed else "running",
        "is_download": True,
        "error": _error(error),
        "notice": f"{landed} files have landed. A clear lands what is missing; it pays nothing."
        if landed
        else None,
        "empty": "Nothing has landed",
    }


def _landed(left: Left) -> int:
    """How many files have landed, by the task's own record."""
    facts = left.get("landed")
    return len(facts) if isinstance(facts, dict) else 0


def _left_behind(
    instance: Mapping[str, Any], record: schema.Record, left: Left, status: str, error: schema.Error | None
) -> Json:
    """What to say of what was submitted and not returned: whether it was made, and what a clear does."""
    if status == "unknown":
        return {"empty": "Nobody knows whether it was accepted"}
    if status != "failed" or record.media_task_id is None:
        return {"empty": "Nothing was made"}
    if record.phase == "finished" and error is not None and not left.get("urls"):
        return {"empty": "Nothing was made"}
    retried = instance["state"] == "up_for_retry"
    if not left.get("urls"):
        what = "The provider has accepted it, and may have made it"
        then = "A clear waits for it while it is under way there; later it makes a new one, which is paid"
    else:
        files = _landed(left)
        what = f"It was made, and {files} of its files have landed" if files else "It was made"
        then = "A clear makes a new one, which is paid"
        if record.phase == "adopted":
            then = "A clear goes on with it, and pays nothing"
    if retried:
        then = "The next try goes on with it, and nothing is paid again"
    is_told = error is not None and not left.get("urls")
    return {"empty": "The provider may have made it", "notice": None if is_told else f"{what}. {then}."}


def _of_batch(instance: Mapping[str, Any], manifest: schema.Manifest) -> Json:
    told = ("total", "submitted", "succeeded", "failed", "errors", "results")
    return {
        **_nothing(),
        "status": "succeeded" if manifest.succeeded else "failed",
        "kind": "batch",
        "provider": manifest.provider,
        "operation": manifest.operation,
        "media_conn_id": manifest.media_conn_id,
        "finished_at": instance["end_date"],
        "batch": {
            **{name: getattr(manifest, name) for name in told},
            **_spent(manifest),
            "why": _why_not(manifest.results, manifest.results_sha256, manifest.results_size, None),
        },
    }


def _of_progress(instance: Mapping[str, Any], progress: schema.Progress, failed: bool) -> Json:
    ended = progress.succeeded + progress.failed
    goes_on = "The next try" if instance["state"] == "up_for_retry" else "A clear"
    return {
        **_nothing(),
        "status": "failed" if failed else "running",
        "kind": "batch",
        "provider": progress.provider,
        "media_conn_id": progress.media_conn_id,
        "finished_at": instance["end_date"] if failed else None,
        "notice": f"{goes_on} goes on with it, and pays nothing for what was made." if failed else None,
        "batch": {
            "total": progress.total,
            "submitted": progress.waiting + ended,
            "succeeded": progress.succeeded,
            "failed": progress.failed,
            "errors": {},
            "results": None,
            **_spent(progress),
            "why": "It has not come to its results." if failed else None,
        },
    }


def _spent(batch: schema.Manifest | schema.Progress) -> Json:
    """What it has cost: as charged, and by the price table where nobody has said it."""
    return {name: [cost.model_dump() for cost in getattr(batch, name)] for name in ("cost", "estimated")}


def request_of(item: Mapping[str, Any], number: int, line: Any) -> Json:
    """The item of the request with this *number* of a batch; *line* is what the batch's results say of it."""
    own = {**_nothing(), "number": number}
    try:
        if isinstance(line, Unreadable):
            raise line
        read = schema.read(schema.Line, line)
        if read.number != number:
            raise Unreadable(f"number: it is {read.number}")
    except Unreadable as error:
        return {**item, **own, "status": "unreadable", "unreadable": str(error)}
    instance = {**item, "dag_run_id": item["run_id"]}
    shown = [_file(instance, place, file, number) for place, file in enumerate(read.files or [])]
    arguments = read.arguments or {}
    return {
        **item,
        **own,
        "status": "failed" if read.error else "succeeded",
        "kind": _kind(shown) if shown else _kind_of_operation(read.operation or ""),
        "provider": item["provider"],
        "operation": read.operation,
        "model": _text(arguments.get("model")),
        "media_conn_id": item["media_conn_id"],
        "media_task_id": read.media_task_id,
        "prompt": prompt_of(arguments),
        "arguments": arguments,
        "submitted_at": read.submitted_at,
        "finished_at": read.finished_at,
        "seconds": _seconds(read.submitted_at, read.finished_at),
        "cost": _cost(read.cost),
        "files": shown,
        "file_count": _count(shown),
        "error": _error(read.error),
    }


def on_a_card(item: Mapping[str, Any]) -> Json:
    """What of *item* a list of many needs: one file, and the beginnings of its texts."""
    good = [file for file in item["files"] if file["kind"] != "thumbnail" and not file["watermarked"]]
    shown = (good or item["files"])[:1]
    error = item["error"]
    return {
        **{name: _cut(value) for name, value in item.items()},
        "prompt": _cut(item["prompt"], PROMPT_SHOWN),
        "arguments": {},
        "files": [
            {**{name: _cut(value) for name, value in file.items()}, "src": file["src"]} for file in shown
        ],
        "error": error and {name: _cut(value) for name, value in error.items()},
        "candidates": [{"id": _cut(one["id"])} for one in item["candidates"]],
        "batch": item["batch"] and {**item["batch"], "errors": {}, "items": []},
    }


def _cut(value: Any, length: int = TEXT_SHOWN) -> Any:
    return f"{value[:length]}..." if isinstance(value, str) and len(value) > length else value


def _file(instance: Mapping[str, Any], number: int, file: schema.File, request: int | None = None) -> Json:
    expires = None if file.expires_at is None else datetime.fromisoformat(file.expires_at)
    expired = expires is not None and expires <= datetime.now(timezone.utc)
    landed, url = file.path is not None, file.url or ""
    why = _why_not(file.path, file.sha256, file.size, file.ends_sha256) if file.path is not None else None
    source = None
    if landed and why is None:
        source = file_url(instance, number, file.sha256, request)
    elif file.access is not None:
        why = why or "Only the account that made it is given this file: land it to see it here."
    elif url.startswith(("https://", "http://")) and len(url) <= URL_LENGTH and not expired:
        source = url
    return {"n": number, **file.model_dump(), "src": source, "landed": landed, "expired": expired, "why": why}


def _why_not(path: str, sha256: str | None, size: float | None, ends_sha256: str | None) -> str | None:
    """Why what has landed at *path* is not sent, as far as that can be told without a look at it."""
    if roots.root_of(path) is None:
        return "It has landed in no place that [media_tasks] gallery_roots names, so it is not sent."
    return files.unprovable(sha256, size, ends_sha256)


def file_url(instance: Mapping[str, Any], number: int, sha256: str | None, request: int | None = None) -> str:
    """Where the page gets a landed file: by its task, its number and its content; no path is in it."""
    query: Json = {**key_of(instance), "n": number, "sha256": sha256}
    if request is not None:
        query["number"] = request
    return f"file?{urlencode(query)}"


def copies_in(instance: Mapping[str, Any], result: Any) -> dict[str, Json]:
    """The files that a download has landed, as an item shows them, by the provider's address."""
    try:
        landed = schema.read(schema.Landed, result)
    except Unreadable:
        return {}
    shown = (_file(instance, number, file) for number, file in enumerate(landed.files))
    return {file["url"]: file for file in shown if file["landed"] and file["url"]}


def use_landed_copies(items: Iterable[Json], copies: Mapping[str, Json]) -> None:
    """Lets files that another task has landed be shown from there; *copies* by the provider's address."""
    for item in items:
        for file in item["files"]:
            copy = None if file["landed"] else copies.get(file["url"])
            if copy is not None:
                told = ("path", "sha256", "size", "content_type", "checked", "why", "landed")
                file.update(
                    {name: copy[name] for name in told}, src=file["src"] if copy["why"] else copy["src"]
                )


def _count(shown: Sequence[Mapping[str, Any]]) -> int:
    return sum(file["kind"] != "thumbnail" for file in shown)


def _kind(shown: Sequence[Mapping[str, Any]]) -> str:
    kinds = [file["kind"] for file in shown if file["kind"] != "thumbnail"]
    return kinds[0] if kinds and kinds[0] in ("image", "video", "audio") else "file"


def _kind_of_operation(operation: str) -> str:
    name = operation.lower()
    for kind, words in {"video": ("video", "lip_sync"), "audio": ("audio", "music", "speech")}.items():
        if any(word in name for word in words):
            return kind
    return "batch" if "batch" in name else "image"


def prompt_of(arguments: Mapping[str, Any]) -> str | None:
    """What a request's *arguments* ask for, in words."""
    return _text(arguments.get("prompt") or arguments.get("description") or arguments.get("text"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _cost(cost: schema.Cost | None) -> Json | None:
    return None if cost is None else cost.model_dump()


def _error(error: schema.Error | None) -> Json | None:
    if error is None:
        return None
    return {
        "type": error.type,
        "message": error.message,
        "code": error.code,
        "advice": _PARTLY if error.code == PARTIAL_FAILURE else ADVICE.get(error.type),
    }


def _expected(provider: str | None, operation: str | None) -> float | None:
    """How long the operation usually takes, as its hook foretells."""
    hook = _hook_of(provider)
    known = hook.operations if hook else {}
    return float(known[operation].expected_seconds) or None if operation and operation in known else None


def _hook_of(provider: str | None) -> type[MediaHook] | None:
    return _hooks().get(provider or "")


@functools.cache
def _hooks() -> Mapping[str, type[MediaHook]]:
    entries = get_provider_info()["connection-types"]
    return {entry["connection-type"]: resolve_name(entry["hook-class-name"]) for entry in entries}


def _seconds(start: str | None, end: str | None) -> float | None:
    if start is None or end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
