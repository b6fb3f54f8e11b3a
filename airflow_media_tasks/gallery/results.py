"""The lines of a batch's results: a page, or those with some words, of a file that others may write to."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic_core import from_json

from airflow_media_tasks.gallery import cards, files, schema
from airflow_media_tasks.gallery.memory import Memory


SEARCHED = 64 * 1024 * 1024
"""Bytes of results up to which they are searched: 20,000 requests have some 25 MiB."""
WORDS = 16 * 1024 * 1024
"""Bytes of prompts and ids that an API server remembers, of all batches that were searched."""

_words = Memory(WORDS)


def lines(manifest: schema.Manifest, first: int, count: int) -> list[bytes | int]:
    """Up to *count* lines from number *first*; of one that is too long, how long it is, in bytes.

    :raises HTTPException: 404 if the file is not what the batch wrote, or not to be read.
    """
    found, _ = files.opened(_file_of(manifest))
    try:
        return list(_lines(found.blocks(), first, count))
    finally:
        found.close()


def search(
    manifest: schema.Manifest, q: str, first: int, most: int
) -> tuple[list[tuple[int, bytes]], int | None]:
    """Up to *most* lines from number *first* whose request has *q*, in lower case, in its prompt or its id.

    Each with its number; and the number from which to go on, or None. What is larger than SEARCHED is not
    read. The file is read once for its words, and then up to the last line that is wanted.

    :raises HTTPException: 404 if the file is not what the batch wrote, or not to be read.
    """
    if manifest.results_size is None or manifest.results_size > SEARCHED:
        return [], None
    key = (manifest.results, manifest.results_sha256)
    known = _words.get(key)
    texts = None if known is None else known.decode().split("\n")
    if texts is not None and not any(q in text for text in texts[first:]):
        return [], None
    found, _ = files.opened(_file_of(manifest))
    picked: list[tuple[int, bytes]] = []
    read: list[str] = []
    try:
        for number, line in enumerate(_lines(found.blocks(), 0, manifest.total)):
            if texts is None:
                read.append(_words_of(line))
            text = read[-1] if texts is None else texts[number]
            if number >= first and q in text and isinstance(line, bytes):
                picked.append((number, line))
            if len(picked) > most and texts is not None:
                break
            del picked[most + 1 :]
    finally:
        found.close()
    if texts is None:
        words = "\n".join(read).encode()
        if len(words) <= WORDS // 4:
            _words.keep(key, words)
    return picked[:most], picked[most][0] if len(picked) > most else None


def _file_of(manifest: schema.Manifest) -> files.Recorded:
    return files.Recorded(manifest.results, manifest.results_sha256, manifest.results_size)


def _words_of(line: bytes | int) -> str:
    """What a request is found by, in lower case and in one line; nothing of a line that cannot be read."""
    try:
        told = from_json(line) if isinstance(line, bytes) else None
    except ValueError:
        return ""
    if not isinstance(told, dict):
        return ""
    arguments, media_task_id = told.get("arguments"), told.get("media_task_id")
    prompt = cards.prompt_of(arguments) if isinstance(arguments, dict) else None
    parts = [prompt or "", media_task_id if isinstance(media_task_id, str) else ""]
    return " ".join(parts).lower().replace("\n", " ")


def _lines(blocks: Iterator[bytes], first: int, count: int) -> Iterator[bytes | int]:
    """Those of *blocks* from *first*; of none more is held than may be read."""
    number, length, kept = 0, 0, b""

    def ended() -> bytes | int:
        return kept if length <= schema.ITEM_BYTES else length

    for block in blocks:
        at = 0
        while at < len(block):
            end = block.find(b"\n", at)
            stop = len(block) if end < 0 else end
            if number >= first and length <= schema.ITEM_BYTES:
                kept += block[at : min(stop, at + schema.ITEM_BYTES + 1 - length)]
            length += stop - at
            at = stop + 1
            if end < 0:
                break
            if number >= first:
                yield ended()
            number, length, kept = number + 1, 0, b""
            if number >= first + count:
                return
    if length and number >= first:
        yield ended()
