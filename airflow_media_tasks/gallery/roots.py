"""The places that files are sent from: those that the setting `[media_tasks] gallery_roots` names, no other.

An item says where its file is, and anybody may have written that: it only names one, within a root. With
which connection a store is asked is in the setting, never in an item.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow.sdk import ObjectStoragePath
from airflow.sdk.configuration import conf

from airflow_media_tasks.landing.destinations import segment
from airflow_media_tasks.material.places import Place, places_in


LISTED = 5
"""Roots that the page names at most where none is set."""
log = logging.getLogger(__name__)


def configured() -> tuple[Place, ...]:
    """The roots that the setting names, the innermost first."""
    return _configured(conf.get("media_tasks", "gallery_roots", fallback=""))


@functools.lru_cache(maxsize=4)
def _configured(setting: str) -> tuple[Place, ...]:
    found, bad = places_in(setting)
    for text in bad:
        log.error(
            "[media_tasks] gallery_roots: %r is no place; files are sent from absolute paths such as "
            "s3://my_conn@bucket/media or file:///srv/media, separated by commas",
            text,
        )
    return tuple(sorted(found, key=lambda place: -len(place.segments)))


def root_of(path: str) -> tuple[Place, Place] | None:
    """The root in which *path* is by its text, and the place it names; or None."""
    place = Place.of(path)
    if place is None:
        return None
    return next(((root, place) for root in configured() if root.holds(place)), None)


def local_path(path: str) -> str | None:
    """The real path of what *path* names in a local root: links are followed, and none of them leaves it."""
    place = Place.of(path)
    if place is None or not place.is_local:
        return None
    real = os.path.realpath(f"/{'/'.join(place.segments)}")
    tops = (os.path.realpath(f"/{'/'.join(root.segments)}") for root in configured() if root.is_local)
    return real if any(os.path.commonpath([top, real]) == top for top in tops) else None


def stored_path(path: str) -> tuple[Any, str] | None:
    """The file system of the root that *path* is in, as the setting's connection opens it, and its path."""
    found = root_of(path)
    if found is None or found[0].is_local:
        return None
    root, place = found
    folder = ObjectStoragePath(root.text)
    return folder.fs, "/".join([folder.path.rstrip("/"), *place.segments[len(root.segments) :]])


def setting_for(files: Iterable[tuple[str, Mapping[str, Any]]]) -> str | None:
    """The line that would let *files* be sent: each a path, and the task instance that landed it.

    What lies below a folder by its task's own names (see `storage.TEMPLATE`) is in one root; so is what lies
    in one folder of a store.
    """
    tops: dict[tuple[str, str], set[Place]] = {}
    for path, instance in files:
        place = Place.of(path)
        if place is not None and place.segments:
            top = _above(place, instance)
            tops.setdefault(top.store, set()).add(top)
    together = [one for places in tops.values() for one in _joined(list(places))]
    named = (place.text for place in together if place.segments or not place.is_local)
    # One of an odd name is left out: who copies the line must be able to see what is in it.
    roots = sorted(text for text in named if text.isascii() and text.isprintable() and not {*text} & {*",%"})
    roots = roots[:LISTED]
    return f"gallery_roots = {', '.join(roots)}" if roots else None


def _above(place: Place, instance: Mapping[str, Any]) -> Place:
    """The folder of *place* above all that is called after its task instance."""
    own = {segment(instance[name]) for name in ("dag_id", "run_id", "task_id")}
    folder = place.segments[:-1]
    kept = next((at for at, name in enumerate(folder) if name in own), len(folder))
    return Place(place.scheme, place.conn_id, place.bucket, folder[:kept])


def _joined(places: Sequence[Place]) -> list[Place]:
    """The folder that all have in common; where that is everything, those of them that no other holds."""
    first, last = (pick(places, key=lambda place: place.segments) for pick in (min, max))
    common = [one for one, _ in itertools.takewhile(_same, zip(first.segments, last.segments, strict=False))]
    if common:
        return [Place(first.scheme, first.conn_id, first.bucket, tuple(common))]
    return [one for one in places if not any(other != one and other.holds(one) for other in places)]


def _same(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]
