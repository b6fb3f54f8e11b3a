"""What a search of the page finds among the requests of batches, and what it costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from airflow_media_tasks.gallery import app, files, items, results

from .airflow import RESULT, Airflow, landed


FILM = b"a film" * 1000
BATCH = {"operator_name": "GenerateMediaBatchOperator"}


def request(number: int, prompt: str, **more: Any) -> dict[str, Any]:
    """A line of results."""
    told = {"number": number, "arguments": {"prompt": prompt}, "media_task_id": f"task-{number:05}"}
    return {**told, "status": "succeeded", "files": [], **more}


def batch(path: Path, lines: Iterable[Any], **more: Any) -> dict[str, Any]:
    """The manifest of a batch whose results are *lines*."""
    written = [json.dumps(line, ensure_ascii=False) for line in lines]
    content = "".join(f"{line}\n" for line in written).encode()
    path.write_bytes(content)
    told = {"results_sha256": hashlib.sha256(content).hexdigest(), "results_size": len(content)}
    return {"results": f"file://{path}", "total": len(written), "succeeded": len(written), **told, **more}


def found(airflow: Airflow, q: str, **filters: Any) -> list[Any]:
    """All that a search finds, however many pages that takes."""
    reply = airflow.get("api/items", q=q, **filters).json()
    cards = reply["items"]
    while reply["cursor"]:
        reply = airflow.get("api/items", q=q, cursor=reply["cursor"], **filters).json()
        cards += reply["items"]
    return cards


def numbers(cards: Iterable[Any]) -> list[Any]:
    """Run and number of each."""
    return [(card["run_id"], card.get("number")) for card in cards]


@pytest.mark.parametrize("q", ["red kite", "RED Kite", "task-00001"])
def test_requests_are_found_by_their_prompt_or_their_id(airflow: Airflow, root: Path, q: str) -> None:
    """Each as a card of its own, with its picture; a single task beside it as ever."""
    film = landed(root / "film.mp4", FILM)
    lines = [request(0, "a blue kite"), request(1, "a Red Kite", files=[film]), request(2, "a tram")]
    airflow.add("r1", batch(root / "batch.jsonl", lines), **BATCH)
    airflow.add("r2", {**RESULT, "id": "task-00001", "arguments": {"prompt": "another red kite"}})
    airflow.add("r3", {**RESULT, "id": "other"})
    cards = found(airflow, q)
    assert numbers(cards) == [("r1", 1), ("r2", None)]
    assert airflow.get(cards[0]["files"][0]["src"]).content == FILM
    assert airflow.get("api/totals", q=q).json()["made"] == 2


@pytest.mark.parametrize("prompt", ['a "red\nkite"', "Ein Drachen über Köln", "凧"])
def test_whatever_is_in_a_prompt(airflow: Airflow, root: Path, prompt: str) -> None:
    """Quotes, several lines and all letters."""
    airflow.add("r1", batch(root / "batch.jsonl", [request(0, "a tram"), request(1, prompt)]), **BATCH)
    q = prompt.replace("\n", " ").upper()
    assert numbers(found(airflow, q)) == [("r1", 1)]


def test_the_batch_itself_is_what_its_kind_asks_for(airflow: Airflow, root: Path) -> None:
    """With the filter "batch" the cards are those of the batches that have such a request."""
    for run, prompt in (("r1", "a tram"), ("r2", "a red kite")):
        airflow.add(run, batch(root / f"{run}.jsonl", [request(n, prompt) for n in range(50)]), **BATCH)
    assert numbers(found(airflow, "red", kind="batch")) == [("r2", None)]
    assert found(airflow, "red", kind="video", provider="kling") == []


def test_all_of_many_are_found_a_page_at_a_time(airflow: Airflow, root: Path) -> None:
    """However many requests match, and wherever a page ends: each once, in order."""
    for run in ("r1", "r2", "r3"):
        lines = [request(number, "a fox" if number % 2 else "a bear") for number in range(200)]
        airflow.add(run, batch(root / f"{run}.jsonl", lines), **BATCH)
        airflow.add(f"{run}-one", {**RESULT, "id": run})
    wanted = [("r1", None), ("r2", None), ("r3", None)]
    wanted = [(f"{run}-one", None) for run, _ in wanted] + [
        (run, number) for run, _ in wanted for number in range(1, 200, 2)
    ]
    assert sorted(numbers(found(airflow, "fox")), key=str) == sorted(wanted, key=str)
    totals = airflow.get("api/totals", q="fox").json()
    assert (totals["made"], totals["complete"]) == (303, True)


def test_a_search_answers_behind_each_batch(
    airflow: Airflow, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time that a look may take, with where to go on: not when all batches of a page are read."""
    for number in range(4):
        lines = [request(0, "a fox" if number == 3 else "a bear")]
        airflow.add(f"r{number}", batch(root / f"{number}.jsonl", lines), **BATCH)
    monkeypatch.setattr(app, "BUDGET", 0.0)
    opened: list[str] = []
    at = files.Found.at

    def noted(path: str) -> files.Found:
        opened.append(path)
        return at(path)

    monkeypatch.setattr(files.Found, "at", noted)
    reply = airflow.get("api/items", q="fox").json()
    assert (reply["items"], len(opened)) == ([], 1)
    for _ in range(4):
        reply = airflow.get("api/items", q="fox", cursor=reply["cursor"] or "").json()
        if reply["items"]:
            break
    assert numbers(reply["items"]) == [("r3", 0)]
    assert not airflow.get("api/totals", q="fox").json()["complete"]


def test_a_batch_is_read_once_for_its_words(
    airflow: Airflow, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has none of what is searched for is not opened again."""
    airflow.add("r1", batch(root / "batch.jsonl", [request(n, f"fox {n}") for n in range(9)]), **BATCH)
    assert len(found(airflow, "fox")) == 9
    opened: list[str] = []
    monkeypatch.setattr(files.Found, "at", opened.append)
    assert found(airflow, "wolf") == []
    assert opened == []


@pytest.mark.parametrize("how", ["outside", "changed", "not recorded", "large", "gone"])
def test_results_that_may_not_be_read_are_not_searched(
    airflow: Airflow, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """In no root, another's, or too large: nothing of them is told, and what is beside them is found."""
    place = tmp_path if how == "outside" else root
    manifest = batch(place / "batch.jsonl", [request(0, "a secret fox"), request(1, "x" * 1000)])
    if how == "changed":
        path = place / "batch.jsonl"
        path.write_text(path.read_text().replace("secret", "sacred"))
    if how == "not recorded":
        manifest |= {"results_sha256": None, "results_size": None}
    if how == "large":
        monkeypatch.setattr(results, "SEARCHED", 1000)
    if how == "gone":
        (place / "batch.jsonl").unlink()
    airflow.add("r1", manifest, **BATCH)
    airflow.add("r2", {**RESULT, "id": "other"})
    assert numbers(found(airflow, "fox")) == [("r2", None)]


def test_what_is_in_a_results_file_is_not_believed(airflow: Airflow, root: Path) -> None:
    """A line that is none of ours is passed over, or a card that cannot be shown; the others are found."""
    lines = [
        *([], 5, "fox", {"arguments": ["fox"]}, {"arguments": {"prompt": ["fox"]}}),
        {"number": 0, "arguments": {"prompt": "fox"}},
        request(6, "fox", files=7),
        request(7, "fox", media_task_id=["fox"]),
        request(8, "fox"),
        request(9, "fox" * 200_000),
    ]
    airflow.add("r1", batch(root / "batch.jsonl", lines), **BATCH)
    cards = found(airflow, "fox")
    assert [(card["number"], card["status"]) for card in cards] == [
        (5, "unreadable"),
        (6, "unreadable"),
        (7, "unreadable"),
        (8, "succeeded"),
    ]


def test_a_running_batch_is_found_by_what_airflow_shows(airflow: Airflow) -> None:
    """It has no results yet: there are its rendered arguments."""
    fields = {"requests": [{"prompt": "a red kite"}, {"prompt": "a tram"}]}
    airflow.add("r1", state="deferred", rendered_fields=fields, **BATCH)
    airflow.records["films", "r1", "media_task.batch"] = {
        "total": 2,
        "waiting": 2,
        "succeeded": 0,
        "failed": 0,
    }
    assert numbers(found(airflow, "Kite")) == [("r1", None)]
    assert found(airflow, "fox") == []


@pytest.mark.parametrize("fields", [{"requests": "s3://b/table.jsonl"}, {"requests": "[{'prompt': 'a"}, {}])
def test_a_table_that_airflow_does_not_show_is_searched(
    airflow: Airflow, root: Path, fields: dict[str, Any]
) -> None:
    """Where the requests are a file, too many for Airflow to keep, or of long ago."""
    manifest = batch(root / "batch.jsonl", [request(0, "a red kite")])
    airflow.add("r1", manifest, rendered_fields=fields, **BATCH)
    assert numbers(found(airflow, "kite")) == [("r1", 0)]


@pytest.mark.parametrize("cursor", ["x", "eA==", "WzEsMiwzXQ==", "W10=", "e30="])
def test_a_cursor_of_another_kind_is_refused(airflow: Airflow, cursor: str) -> None:
    """400, as it is none of ours."""
    airflow.add("r1", RESULT)
    assert airflow.get("api/items", cursor=cursor).status_code == 400


def test_a_search_of_20_000_requests_holds_little(airflow: Airflow, root: Path) -> None:
    """All of them match, and one page of them is told."""
    lines = (request(number, f"fox {number} {'x' * 150}") for number in range(20_000))
    airflow.add("r1", batch(root / "batch.jsonl", lines), **BATCH)
    reply = airflow.get("api/items", q="fox")
    assert len(reply.json()["items"]) == items.FOUND
    assert len(reply.content) < 2 * 2**20
    assert 0 < results._words.weight < results.WORDS // 2
    assert numbers(airflow.get("api/items", q="fox 19999").json()["items"]) == [("r1", 19_999)]
