"""What became of a batch: the file of results, the manifest, and whether it has succeeded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_media_tasks import storage
from airflow_media_tasks.batch.batch import FINAL, Batch
from airflow_media_tasks.batch.requests import Summary, line_of
from airflow_media_tasks.provenance import document
from airflow_media_tasks.task import (
    MediaProviderError,
    MediaTaskError,
    MediaTaskFailed,
    error_class,
    error_from_dict,
)
from airflow_media_tasks.waiting import made_by


KEEP, FAIL = "keep", "fail"


def report(batch: Batch) -> dict[str, Any]:
    """Writes the results and returns the manifest; raises if the batch has not succeeded."""
    summary = Summary()
    told: list[dict[str, Any]] = []
    first: dict[bool, tuple[int, MediaTaskError]] = {}

    def lines() -> Iterator[str]:
        for request in batch.requests.some(batch.pages.keys(range(batch.state.total))):
            record = batch.pages[request.number]
            made = {} if record is None else batch.pages.made(record)
            line = line_of(request, record, made, batch.stopped_by)
            text = summary.add(line)
            if line["error"] is not None:
                error = error_from_dict(line["error"])
                first.setdefault(not isinstance(error, FINAL), (request.number, error))
            elif batch.operator.is_heard:
                told.append(document(_told_of(batch, line), line["files"]))
            yield text

    storage.publish_text(lines(), batch.results)
    manifest = {
        "results": str(batch.results),
        **summary.told(),
        "provider": batch.hook.conn_type,
        "media_conn_id": batch.hook.media_conn_id,
        "made_by": made_by(batch.context),
    }
    batch.log.info(
        "%d of %d requests succeeded%s: %s",
        manifest["succeeded"],
        manifest["total"],
        "".join(f", {count} {name}" for name, count in manifest["errors"].items()),
        batch.results,
    )
    batch.operator.tell_of(batch.context, told)
    try:
        _judge(batch, manifest, first)
    except MediaTaskError:
        batch.context["ti"].xcom_push(key="media_batch", value=manifest)
        raise
    return manifest


def _told_of(batch: Batch, line: Mapping[str, Any]) -> dict[str, Any]:
    """What provenance knows of a line of the results."""
    return {
        **line,
        **batch.same,
        "id": line["media_task_id"],
        "model": line["arguments"].get("model"),
        "made_by": {**made_by(batch.context), "request": line["number"]},
    }


def _judge(
    batch: Batch, manifest: Mapping[str, Any], first: Mapping[bool, tuple[int, MediaTaskError]]
) -> None:
    """Raises unless the batch has succeeded, as the operator's arguments have it."""
    total, good, bad = manifest["total"], manifest["succeeded"], manifest["failed"]
    ti = batch.context["ti"]
    if True in first and ti.try_number <= ti.max_tries:
        again = sum(
            count for name, count in manifest["errors"].items() if not issubclass(error_class(name), FINAL)
        )
        raise MediaProviderError(
            f"{again} of {total} requests failed and may yet succeed: the next try submits them, and "
            f"nothing else, again; the first, request {first[True][0]}: {first[True][1].message[:500]}"
        )
    if batch.stopped_by is not None and not good:
        raise batch.stopped_by
    said = "".join(
        f"; the first, request {number}: {error.message[:500]}"
        for number, error in sorted(first.values(), key=lambda one: one[0])[:1]
    )
    wanted = batch.operator.min_success
    least = wanted * total if type(wanted) is float else wanted
    if good < least or (bad and batch.operator.on_partial_failure == FAIL):
        raise MediaTaskFailed(
            f"{bad} of {total} requests failed, at least {least:g} had to succeed{said}"
            if batch.operator.on_partial_failure == KEEP
            else f"{bad} of {total} requests failed{said}",
            code="partial_failure",
        )
