"""No secret is written down anywhere: not in the metadata database, not in XCom, not in any log."""

from __future__ import annotations

import base64
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment


DAG_ID = "example_same_dag_any_provider"


def spellings(secret: str) -> set[bytes]:
    """Return the forms in which a secret might be written down."""
    raw = secret.encode()
    return {raw, quote(secret, safe="").encode(), base64.b64encode(raw).rstrip(b"="), raw.hex().encode()}


def cells(database: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every value of every column of every table, with its place."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        connection.text_factory = bytes
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            rows = connection.execute(f'SELECT * FROM "{table.decode()}"')  # noqa: S608  # its own table's name
            columns = [column[0] for column in rows.description]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    content = value if isinstance(value, bytes) else str(value).encode()
                    yield f"{table.decode()}.{column}", content
    connection.close()


def readable(content: bytes) -> bytes:
    """Return the content, unpacked if it is compressed as Airflow compresses DAGs."""
    try:
        return zlib.decompress(content)
    except zlib.error:
        return content


def test_no_secret_is_written_down(
    airflow: Deployment,
    simulator: Simulator,
    secrets: dict[str, dict[str, str]],
    wait_until_deferred: Callable[[int], None],
) -> None:
    """After runs that succeed and runs that are refused, a search for the keys finds them nowhere."""
    simulator.reset()
    runs = {name: airflow.run(DAG_ID, {"media_conn_id": name}) for name in secrets}
    refused = [name for name in secrets if name.endswith("_refused")]
    wait_until_deferred(len(secrets) - len(refused))
    simulator.advance(1000)
    states = {name: airflow.wait(DAG_ID, run_id, seconds=90) for name, run_id in runs.items()}
    assert states == {name: "failed" if name in refused else "success" for name in secrets}
    for name in refused:
        assert "MediaAuthError" in airflow.log(DAG_ID, runs[name], "video")

    forms = {form for fields in secrets.values() for secret in fields.values() for form in spellings(secret)}
    places = list(cells(airflow.home / "airflow.db"))
    logs = [path for path in airflow.home.rglob("*.log") if path.is_file()]
    places += [(str(path), path.read_bytes()) for path in logs]
    leaks = [place for place, content in places if any(form in readable(content) for form in forms)]
    assert leaks == []

    # The search would find them: what the runs surely wrote is found in each kind of place.
    for known in ("video", runs["kling_pair"]):
        assert any(known.encode() in content for place, content in places if place.startswith("xcom"))
    assert any(b"text2video" in content for place, content in places if place.endswith(".log"))
    assert any(place.startswith("trigger.") or place == "task_instance.next_kwargs" for place, _ in places)
