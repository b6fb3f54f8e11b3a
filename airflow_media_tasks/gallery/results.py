"""The lines of a batch's results: a page of them, from a file that others may write to."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_media_tasks.gallery import files, schema


def lines(manifest: schema.Manifest, first: int, count: int) -> list[bytes | int]:
    """Up to *count* lines from number *first*; of one that is too long, how long it is, in bytes.

    :raises HTTPException: 404 if the file is not what the batch wrote, or not to be read.
    """
    file = files.Recorded(manifest.results, manifest.results_sha256, manifest.results_size)
    found, _ = files.opened(file)
    try:
        return list(_lines(found.blocks(), first, count))
    finally:
        found.close()


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
