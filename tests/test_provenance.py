"""Where a file comes from, beside it, on the asset's event and in lineage."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors
from sqlalchemy import select

from airflow_media_tasks.landing import provenance
from airflow_media_tasks.operators import DownloadMediaOperator, GenerateImageOperator
from airflow_media_tasks.simulator import Simulator


Connect = Callable[..., str]
Complete = Callable[[Any], Any]
KEYS = {
    "media_task_id",
    "media_conn_id",
    "provider",
    "operation",
    "model",
    "arguments",
    "cost",
    "submitted_at",
    "finished_at",
    "landed_at",
    "made_by",
    "files",
}


@pytest.fixture
def events(context: dict[str, Any]) -> OutletEventAccessors:
    """What the task says on its outlets' events."""
    accessors = OutletEventAccessors()
    context["outlet_events"] = accessors
    return accessors


def image(connect: Connect, **options: Any) -> GenerateImageOperator:
    """An operator that makes two pictures."""
    return GenerateImageOperator(
        task_id="image",
        media_conn_id=connect("kling"),
        prompt="a fox [sim:queued=0] [sim:seconds=0.1]",
        count=2,
        model="kling-v2",
        poll_interval=0.1,
        **options,
    )


def is_whole(document: dict[str, Any], paid: dict[str, Any]) -> None:
    """Says everything about what was paid for."""
    assert set(document) == KEYS
    assert document["media_task_id"].endswith(paid["id"])
    assert (document["media_conn_id"], document["provider"]) == ("kling_default", "kling")
    assert (document["operation"], document["model"]) == ("text_to_image", "kling-v2")
    assert document["arguments"]["prompt"].startswith("a fox")
    assert document["cost"]["amount"]
    assert document["submitted_at"] < document["finished_at"] < document["landed_at"]
    assert document["made_by"] == {
        "dag_id": "dag",
        "run_id": "run",
        "task_id": "task",
        "map_index": -1,
        "try_number": 1,
    }


def test_each_file_has_its_document(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """Beside it, with everything there is to know, and of this file alone."""
    result = complete(image(connect, save_to=f"file://{tmp_path}/fox.png"))
    (paid,) = sim.ledger()
    for name, file in zip(("fox.png", "fox-1.png"), result["files"], strict=True):
        document = json.loads((tmp_path / f"{name}.json").read_text())
        is_whole(document, paid)
        assert document["files"] == [file]
        assert file["path"] == f"file://{tmp_path}/{name}"
        assert {"url", "kind", "size", "sha256", "content_type", "width", "height"} <= set(file)


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("file:///a/b.png", "file:///a/b.png"),
        ("s3://conn@bucket/a/b-1_~.png", "s3://bucket/a/b-1_~.png"),
        ("s3://bucket/a=1/b+c:d,e;f@g!$&'()*", "s3://bucket/a=1/b+c:d,e;f@g!$&'()*"),
        ("s3://bucket/M\u00fcller/\u732b.png", "s3://bucket/M%C3%BCller/%E7%8C%AB.png"),
        ("file:///a/Episode #12/why?.png", "file:///a/Episode%20%2312/why%3F.png"),
        ("file:///a/100% wool/%20.png", "file:///a/100%25%20wool/%2520.png"),
        ('file:///a/[1]{2}|\\^`<>".png', "file:///a/%5B1%5D%7B2%7D%7C%5C%5E%60%3C%3E%22.png"),
        ("/plain/M\u00fcller #1.png", "/plain/M%C3%BCller%20%231.png"),
    ],
)
def test_every_path_is_a_right_uri(path: str, uri: str) -> None:
    """Which Airflow takes as it is, without losing the end of it; what is plain stays as it was."""
    assert provenance.uri_of(path) == uri
    assert Asset(uri=uri).uri == uri
    assert uri.isascii()


def test_a_file_without_an_asset_has_landed_all_the_same(
    events: OutletEventAccessors, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow has no room for an address of more than 1,500 characters; the log says so."""
    alias = AssetAlias("media_files")
    paths = [f"s3://bucket/{'x' * 1500}", "s3://bucket/fox.png"]
    document = {**dict.fromkeys(KEYS), "files": [{"path": path} for path in paths]}
    provenance.emit({"outlet_events": events}, [alias], [document])  # type: ignore[typeddict-item]
    assert [event.dest_asset_key.uri for event in events[alias].asset_alias_events] == paths[1:]
    assert "gets no asset" in caplog.text


@pytest.mark.parametrize("lands", ["itself", "another task"])
def test_a_declared_asset_says_the_same(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    events: OutletEventAccessors,
    tmp_path: Path,
    lands: str,
) -> None:
    """Of all files, on the one event of an asset; an alias gets an asset and an event for each file."""
    asset, alias = Asset("media"), AssetAlias("media_files")
    outlets: dict[str, Any] = {"outlets": [asset, alias]}
    if lands == "itself":
        complete(image(connect, save_to=f"file://{tmp_path}/", **outlets))
    else:
        result = complete(image(connect))
        complete(
            DownloadMediaOperator(task_id="land", media=result, destination=f"file://{tmp_path}/", **outlets)
        )
    (paid,) = sim.ledger()
    is_whole(events[asset].extra, paid)
    paths = [file["path"] for file in events[asset].extra["files"]]
    assert paths == [f"file://{tmp_path}/dag/run/task/0-{number}.png" for number in (0, 1)]
    added = events[alias].asset_alias_events
    assert [event.dest_asset_key.uri for event in added] == paths
    for event, path in zip(added, paths, strict=True):
        is_whole(event.extra, paid)
        assert [file["path"] for file in event.extra["files"]] == [path]
        assert event.extra == json.loads(Path(f"{path.removeprefix('file://')}.json").read_text()) | {
            "landed_at": event.extra["landed_at"]
        }


def test_what_is_not_landed_is_told_of_too(
    sim: Simulator, connect: Connect, complete: Complete, events: OutletEventAccessors
) -> None:
    """Cost and prompt are on the asset's event, and the files are where the provider has them."""
    asset, alias = Asset("media"), AssetAlias("media_files")
    result = complete(image(connect, outlets=[asset, alias]))
    extra = events[asset].extra
    assert (extra["cost"], extra["landed_at"]) == (result["cost"], None)
    assert [file["url"] for file in extra["files"]] == result["urls"]
    assert events[alias].asset_alias_events == []


def test_files_of_several_tasks_share_an_event(
    sim: Simulator, connect: Connect, complete: Complete, events: OutletEventAccessors, tmp_path: Path
) -> None:
    """What the tasks have in common is said, and each file names its own."""
    results = [complete(image(connect)), complete(image(connect, save_to=f"file://{tmp_path}/x/"))]
    results[1]["id"] = "images/generations/another"
    asset = Asset("media")
    land = DownloadMediaOperator(
        task_id="land", media=results, destination=f"file://{tmp_path}/", outlets=[asset]
    )
    complete(land)
    extra = events[asset].extra
    assert set(extra) == KEYS
    assert (extra["media_task_id"], extra["provider"]) == (None, "kling")
    assert [file["media_task_id"] for file in extra["files"]] == [r["id"] for r in results for _ in (1, 2)]


def test_the_event_is_in_airflows_database(
    sim: Simulator, connect: Connect, run_dag: Callable[[Any], Any], tmp_path: Path
) -> None:
    """As a downstream DAG reads it."""
    from airflow.models.asset import AssetEvent, AssetModel  # noqa: PLC0415  # Airflow must find its home first
    from airflow.utils.session import create_session  # noqa: PLC0415  # Airflow must find its home first

    with DAG("provenance", schedule=None) as dag:
        outlets: Any = [Asset("landed_images"), AssetAlias("landed_files")]
        image(connect, save_to=f"file://{tmp_path}/", outlets=outlets)
    run = run_dag(dag)
    assert run.state == "success"
    result = run.xcom("image")
    with create_session() as session:
        rows = session.execute(
            select(AssetModel.uri, AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        ).all()
    extras = {row[0]: row[1] for row in rows}
    assert extras["landed_images"]["cost"] == result["cost"]
    assert [file["sha256"] for file in extras["landed_images"]["files"]] == [
        file["sha256"] for file in result["files"]
    ]
    for file in result["files"]:
        assert extras[file["path"]]["files"] == [file]


def test_lineage_says_what_landed_where(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """For OpenLineage: the files as outputs, by their store's own names, and what made them."""
    pytest.importorskip("airflow.providers.openlineage")
    operator = image(connect, save_to=f"file://{tmp_path}/fox.png")
    result = complete(operator)
    lineage = operator.get_openlineage_facets_on_complete(None)
    assert [(output.namespace, output.name) for output in lineage.outputs] == [
        ("file", f"{tmp_path}/fox.png"),
        ("file", f"{tmp_path}/fox-1.png"),
    ]
    (task,) = lineage.run_facets["media_tasks"].tasks
    assert task == {
        "media_task_id": result["id"],
        "provider": "kling",
        "operation": "text_to_image",
        "model": "kling-v2",
        "cost": result["cost"],
    }
    s3 = provenance.lineage([{**dict.fromkeys(KEYS), "files": [{"path": "s3://conn@bucket/a/b.png"}]}])
    assert s3 is not None
    assert [(output.namespace, output.name) for output in s3.outputs] == [("s3://bucket", "a/b.png")]


def test_openlineage_serialises_it(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """The whole as an event that its client would send."""
    pytest.importorskip("airflow.providers.openlineage")
    from airflow.providers.openlineage.extractors.base import DefaultExtractor  # noqa: PLC0415  # may be absent
    from openlineage.client.serde import Serde  # noqa: PLC0415  # may be absent

    operator = image(connect, save_to=f"file://{tmp_path}/fox.png")
    complete(operator)
    lineage: Any = DefaultExtractor(operator).extract_on_complete(None)
    assert json.loads(Serde.to_json(lineage.run_facets["media_tasks"]))["tasks"][0]["provider"] == "kling"
    assert len(lineage.outputs) == 2


def test_the_asset_of_our_records_is_no_input_of_anything() -> None:
    """OpenLineage takes inlets for inputs; this one is where we keep records, and no data."""
    pytest.importorskip("airflow.providers.openlineage")
    from airflow.providers.openlineage.extractors import ExtractorManager, OperatorLineage  # noqa: PLC0415  # may be absent

    operator = GenerateImageOperator(task_id="t", prompt="a fox", media_conn_id="vap_default")
    operator.inlets = [*operator.inlets, Asset("s3://bucket/source.png")]
    lineage = OperatorLineage()
    ExtractorManager().extract_inlets_and_outlets(lineage, operator)
    assert [(one.namespace, one.name) for one in lineage.inputs] == [("s3://bucket", "source.png")]


def test_without_openlineage_there_is_no_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing breaks."""
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.extractors", None)
    assert provenance.lineage([{**dict.fromkeys(KEYS), "files": []}]) is None
