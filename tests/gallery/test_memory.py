from __future__ import annotations

from airflow_media_tasks.gallery.memory import ENTRY, Memory


def test_it_is_weighed_in_bytes() -> None:
    """Many small values have room, few large ones; the longest unused goes first."""
    memory = Memory(10 * (ENTRY + 100))
    for number in range(50):
        memory.keep(number, b"x" * 100)
        memory.get(45)
    assert len(memory) == 10
    assert memory.get(45)
    assert memory.get(39) is None
    memory.keep("large", b"x" * (5 * (ENTRY + 100)))
    assert len(memory) == 5
    assert memory.weight <= 10 * (ENTRY + 100)


def test_what_has_no_room_is_not_kept() -> None:
    """And takes everything else away, which is asked for again."""
    memory = Memory(1000)
    memory.keep("small", b"x")
    memory.keep("huge", b"x" * 2000)
    assert (memory.get("huge"), memory.get("small"), memory.weight) == (None, None, 0)


def test_what_is_forgotten_weighs_nothing() -> None:
    """Also what was kept twice."""
    memory = Memory(10_000)
    memory.keep("a", b"x" * 100)
    memory.keep("a", b"y")
    assert memory.get("a") == b"y"
    memory.forget("a")
    memory.forget("a")
    assert (memory.get("a"), memory.weight) == (None, 0)
    memory.keep("b", b"")
    memory.clear()
    assert (memory.get("b"), memory.weight, len(memory)) == (None, 0, 0)
