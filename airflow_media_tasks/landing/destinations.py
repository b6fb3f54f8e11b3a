"""Where files land, and what they are called there."""

from __future__ import annotations

import hashlib
import re
import string
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from airflow.sdk import ObjectStoragePath

from airflow_media_tasks.material import verification
from airflow_media_tasks.task import MediaFile, MediaRequestError, shown


TEMPLATE = "{dag_id}/{run_id}/{task_id}/{loop}{map_index}-{index}{ext}"
"""What a file is called below a folder."""
FIELDS = ("dag_id", "run_id", "task_id", "loop", "map_index", "index", "ext", "kind", "media_task_id")

_UNSAFE = re.compile(r"^\.+|[^A-Za-z0-9_.~:+=@-]")
_SEGMENT_LENGTH = 150


class Destination:
    """Where files go, and what they are called there.

    :param text: an object storage path. One that ends with `/` is a folder, below which TEMPLATE follows.
        With `{` in it, it is itself a template of FIELDS. Anything else is the name of the first file;
        further ones get `-1`, `-2`, ... before the extension, also where a template has no `{index}`. In a
        task loop those of all iterations but the first get `-loop-1`, `-loop-2`, ... where a template has no
        `{loop}`.
    :param place: `dag_id`, `run_id`, `task_id` and `map_index` of the template, and in a task loop `loop`,
        the iteration from 0. Each value becomes one path segment: what is unsafe in it is replaced, and then
        a hash keeps it apart from others. `{loop}` is `loop-1-`, for example, and outside a loop nothing.
    :param conn_id: Airflow connection of the object store, default that of the path.
    :raises MediaRequestError: if the template is wrong, or nothing can be written there as far as can be
        told in advance: that costs nothing yet.
    """

    def __init__(self, text: Any, place: Mapping[str, Any], conn_id: str | None = None) -> None:
        if not isinstance(text, str) or not text.strip():
            raise MediaRequestError(f"destination must be an object storage path, got {shown(text)}")
        self.text, self._conn_id = text, conn_id
        self.dag_id = str(place.get("dag_id") or "")
        self._template = f"{text}{TEMPLATE}" if text.endswith("/") else text
        self._loop: int | None = place.get("loop")
        self._place = {
            name: value if isinstance(value, int) else segment(value) for name, value in place.items()
        }
        self._place["loop"] = "" if self._loop is None else f"loop-{self._loop}-"
        try:
            used = {field for _, field, _, _ in string.Formatter().parse(self._template) if field is not None}
            if "{" in self._template and not used <= set(FIELDS):
                raise ValueError(f"it has the fields {', '.join(sorted(used))}")
            self._name(0, MediaFile("file", ""), None, ".png")
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise MediaRequestError(
                f"destination {shown(text, 300)} is no template of the fields {', '.join(FIELDS)}: {error}"
            ) from None
        try:
            folder = self._at("".join(text.partition("{")[0].rpartition("/")[:2]) or ".")
            if is_local(folder):
                Path(folder.path).mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder.path):
                    pass
            else:
                _ = folder.fs
        except Exception as error:
            # fsspec lets each store raise errors of its own.
            raise MediaRequestError(
                f"destination {shown(text, 300)} cannot be written: {type(error).__name__}: {error}"
            ) from error

    def path(
        self, number: int, file: MediaFile, media_task_id: str | None, extension: str
    ) -> ObjectStoragePath:
        """The path of the file with this *number* among those that are landed together."""
        path = self._at(self._name(number, file, media_task_id, extension))
        more = f"-loop-{self._loop}" if self._loop and "{loop" not in self._template else ""
        if number and "{index" not in self._template:
            more += f"-{number}"
        if not more:
            return path
        pure = PurePosixPath(path.name)
        return path.parent / f"{pure.stem}{more}{pure.suffix}"

    def paths(self, number: int, file: MediaFile, media_task_id: str | None) -> list[ObjectStoragePath]:
        """Every path at which an earlier run may have left this file, whose type is not known yet."""
        endings = verification.extensions(file.kind) if "{ext" in self._template else [""]
        return [self.path(number, file, media_task_id, ending) for ending in endings]

    def _name(self, number: int, file: MediaFile, media_task_id: str | None, extension: str) -> str:
        if "{" not in self._template:
            return self._template
        return self._template.format(
            **self._place,
            index=number,
            ext=extension,
            kind=segment(file.kind),
            media_task_id=segment(media_task_id or "none"),
        )

    def _at(self, text: str) -> ObjectStoragePath:
        return ObjectStoragePath(text, conn_id=self._conn_id)


def segment(value: Any) -> str:
    """*value* as one path segment that leads nowhere else; two different values never become the same one."""
    text = str(value)
    safe = _UNSAFE.sub("_", text)[:_SEGMENT_LENGTH]
    return safe if safe == text and safe else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def is_local(path: ObjectStoragePath) -> bool:
    """Whether *path* is in this machine's own file system."""
    return path.protocol in ("", "file", "local")
