"""What became of a batch: the file of results, the manifest, and whether it has succeeded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_media_tasks.batch.batch import FAIL, FINAL, Batch
from airflow_media_tasks.batch.requests import Summary, line_of
from airflow_media_tasks.deferring import made_by
from airflow_media_tasks.landing import storage
from airflow_media_tasks.landing.provenance import document
from airflow_media_tasks.retries import PARTIAL_FAILURE
from airflow_media_tasks.submissions.records import Place
from airflow_media_tasks.submissions.submission import command_line
from airflow_media_tasks.task import (
    MediaModerationError,
    MediaProviderError,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    error_class,
    error_from_dict,
)


def report(batch: Batch) -> dict[str, Any]:
    """Writes the results and returns the manifest; raises if the batch has not succeeded."""
    summary = Summary()
    told: list[dict[str, Any]] = []
    first: dict[str, tuple[int, MediaTaskError]] = {}

    def lines() -> Iterator[str]:
        for request in batch.requests.some(batch.pages.keys(range(batch.state.total))):
            record = batch.pages[request.number]
            made = {} if record is None else batch.pages.made(record)
            line = line_of(request, record, made, batch.stopped_by)
            text = summary.add(line)
            if line["error"] is not None:
                error = error_from_dict(line["error"])
                first.setdefault(type(error).__name__, (request.number, error))
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
    batch: Batch, manifest: Mapping[str, Any], first: Mapping[str, tuple[int, MediaTaskError]]
) -> None:
    """Raises unless the batch has succeeded, as the operator's arguments have it.

    :param first: of each class of error the first request that has it.
    """
    total, good, bad, errors = (manifest[name] for name in ("total", "succeeded", "failed", "errors"))
    ti = batch.context["ti"]
    passing = [name for name in errors if not issubclass(error_class(name), FINAL)]
    if passing and ti.try_number <= ti.max_tries:
        raise MediaProviderError(
            f"{sum(errors[name] for name in passing)} of {total} requests failed and may yet succeed: the "
            f"next try submits them, and nothing else, again{_first(first, passing)}"
        )
    if batch.stopped_by is not None and not good:
        raise batch.stopped_by
    least, why, counted = _least(batch, total, errors)
    if good >= least:
        return
    said = f"{bad} of {total} requests failed{why}{_asks(batch, errors, first)}{_first(first, counted)}"
    if batch.stopped_by is not None:
        # What a retry makes of it depends on what it was.
        raise error_from_dict({**batch.stopped_by.to_dict(), "message": said})
    raise MediaTaskFailed(said, code=PARTIAL_FAILURE)


def _least(batch: Batch, total: int, errors: Mapping[str, int]) -> tuple[float, str, Sequence[str]]:
    """How many requests have to succeed, what to say of that, and which errors keep the batch from it."""
    policy, wanted = batch.operator.on_partial_failure, batch.operator.min_success
    if policy == FAIL:
        return total, "", list(errors)
    if policy is None and wanted is None:
        moderated = errors.get(MediaModerationError.__name__, 0)
        why = f", {moderated} of them by moderation" if moderated else ""
        others = [name for name in errors if name != MediaModerationError.__name__]
        return (
            max(total - moderated, 1),
            f"{why}; only moderated ones may, and not all",
            others or list(errors),
        )
    least = 1 if wanted is None else wanted * total if type(wanted) is float else wanted
    return least, f", at least {least:g} had to succeed", list(errors)


def _asks(batch: Batch, errors: Mapping[str, int], first: Mapping[str, tuple[int, MediaTaskError]]) -> str:
    """How many requests ask what became of them, and how a person answers."""
    name = SubmissionOutcomeUnknown.__name__
    if name not in errors:
        return ""
    place = command_line(Place.of(batch.context), first[name][0])
    return (
        f"; {errors[name]} of them ask what became of their submission, and a clear alone sends none of "
        f"these again: answer each by `airflow media-tasks adopt {place} MEDIA_TASK_ID` or by `resubmit`, "
        "which may pay twice, and the batch goes on"
    )


def _first(first: Mapping[str, tuple[int, MediaTaskError]], names: Sequence[str]) -> str:
    """The first request with an error of these classes, in words."""
    number, error = min((first[name] for name in names), key=lambda one: one[0])
    return f"; the first, request {number}: {error.message[:500]}"
