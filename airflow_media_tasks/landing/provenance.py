"""Where a file comes from: one document, beside the file, on the asset's event and in lineage.

    {media_task_id, media_conn_id, provider, operation, model, arguments, cost, submitted_at, finished_at,
     landed_at, made_by: {dag_id, run_id, task_id, map_index, try_number},
     material: [{path, sha256, size, content_type}],
     files: [{kind, url, path, sha256, size, content_type, width, height, duration, ...}]}

Times are ISO 8601, UTC. What is not known is null: of a plain URL nobody knows who made it. `material`, the
files of one's own that it was made from, is there only if there were any.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias, Context


if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage


log = logging.getLogger(__name__)

_PLAIN = "/:@!$&'()*+,;=~"
"""What stands for itself in the path of a URI (RFC 3986), besides letters, digits and `-._`."""
MADE = (
    "media_conn_id",
    "provider",
    "operation",
    "model",
    "arguments",
    "cost",
    "submitted_at",
    "finished_at",
)
"""What a result says of how its files were made."""


def document(
    result: Mapping[str, Any], files: Sequence[Mapping[str, Any]], landed_at: str | None = None
) -> dict[str, Any]:
    """The provenance of *files*, which *result* (as an operator returns it) tells of."""
    return {
        "media_task_id": result.get("id"),
        **{name: result.get(name) for name in MADE},
        **({"material": result["material"]} if result.get("material") else {}),
        "landed_at": landed_at,
        "made_by": result.get("made_by"),
        "files": [dict(file) for file in files],
    }


def together(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One document of several tasks' files: what the tasks have in common, and all files."""
    first = {**dict.fromkeys(name for one in documents for name in one), **documents[0]}
    same = {name: all(one.get(name) == value for one in documents) for name, value in first.items()}
    return {
        **{name: value if same[name] else None for name, value in first.items()},
        "files": [file for one in documents for file in one["files"]],
    }


def emit(context: Context, outlets: Iterable[Any], documents: Sequence[Mapping[str, Any]]) -> None:
    """Puts the provenance on the events of the task's declared *outlets*.

    An `Asset` gets one event that tells of all files; an `AssetAlias` one asset, with an event, for each
    landed file.
    """
    for outlet in outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra = together(documents)
        elif isinstance(outlet, AssetAlias):
            for one in documents:
                for file in one["files"]:
                    if file.get("path") and (asset := _asset_of(file["path"])) is not None:
                        extra = {**one, "files": [file]}
                        context["outlet_events"][outlet].add(asset, extra=extra)


def _asset_of(path: str) -> Asset | None:
    try:
        return Asset(uri=uri_of(path))
    except ValueError as error:
        # It has landed and is paid for: that Airflow has no room for its address does not undo that.
        log.warning("%r gets no asset: %s", path[:300], error)
        return None


def uri_of(path: str) -> str:
    """*path*, as an object storage path is written, as a URI.

    Without the connection in it (`s3://conn@bucket/...`), and encoded where a URI's path needs it.
    """
    scheme, place, key = _parts(path)
    if not scheme:
        return quote(path, safe=_PLAIN)
    return f"{scheme}://{quote(place, safe=_PLAIN)}/{quote(key, safe=_PLAIN)}"


def _parts(path: str) -> tuple[str, str, str]:
    """Scheme, bucket (without the connection) and key; nothing in them is special, unlike in a URL."""
    scheme, mark, rest = path.partition("://")
    place, _, key = rest.partition("/")
    return (scheme, place.rpartition("@")[2], key) if mark else ("", "", path)


def has_lineage() -> bool:
    """Whether Airflow's OpenLineage provider is installed."""
    return importlib.util.find_spec("airflow.providers.openlineage") is not None


def lineage(documents: Sequence[Mapping[str, Any]]) -> OperatorLineage[Any, Any] | None:
    """OpenLineage's account of what was landed: the files as outputs, who made them as a facet of the run.

    None where Airflow's OpenLineage provider is not installed.
    """
    try:
        import attr  # noqa: PLC0415  # it comes with OpenLineage, which is not there for everybody
        from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415  # as above
        from openlineage.client.event_v2 import Dataset  # noqa: PLC0415  # as above
        from openlineage.client.facet_v2 import RunFacet  # noqa: PLC0415  # as above
    except ImportError:
        return None

    facet = attr.make_class("MediaTasksRunFacet", {"tasks": attr.field()}, bases=(RunFacet,))
    said = ("media_task_id", "provider", "operation", "model", "cost")
    tasks = [{name: one[name] for name in said} for one in documents]
    files = [_parts(file["path"]) for one in documents for file in one["files"] if file.get("path")]
    return OperatorLineage(
        outputs=[
            Dataset(namespace=f"{scheme}://{bucket}", name=key)
            if bucket
            else Dataset(namespace=scheme or "file", name=f"/{key}" if scheme else key)
            for scheme, bucket, key in files
        ],
        run_facets={"media_tasks": facet(tasks=tasks)},
    )
