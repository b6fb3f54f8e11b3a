"""Records in their two homes: what a clear, a loop and somebody else's writes do to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, task_group
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.serialization.serialized_objects import DagSerialization

from airflow_media_tasks.operators import (
    GenerateImageOperator,
    GenerateMediaBatchOperator,
    GenerateVideoOperator,
    MediaTaskOperator,
)
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import records
from airflow_media_tasks.submissions.records import SUBMISSIONS, Entries, generation_of
from airflow_media_tasks.submissions.submission import finish
from airflow_media_tasks.task import MediaTaskError

from .place import PROVIDERS, Clock, Place


Connect = Callable[..., str]


@pytest.fixture
def clock(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The submission's time, which passes at once."""
    return Clock.instead_of_time(sim, monkeypatch)


@pytest.fixture(params=PROVIDERS)
def place(request: pytest.FixtureRequest, connect: Connect, clock: Clock) -> Place:
    """A task instance of each provider."""
    return Place(request.param, connect(request.param))


# A clear that discards the task's state.


@pytest.mark.parametrize("keep", [True, False], ids=["keeps the state", "discards it"])
def test_a_waiting_task_that_is_cleared_is_waited_for(place: Place, sim: Simulator, keep: bool) -> None:
    """However often, and whatever becomes of the task's own state: it is paid once."""
    first = place.run()
    for _ in range(3):
        place.clear(keep=keep)
        assert place.run().id == first.id
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("keep", [True, False], ids=["keeps the state", "discards it"])
def test_a_finished_task_that_is_cleared_is_made_anew(
    place: Place, sim: Simulator, clock: Clock, keep: bool
) -> None:
    """Whoever clears what has succeeded wants another one, and pays for it: one."""
    first = place.run()
    clock.sleep(61)
    finish(place.context, place.submission().hook.get_task(first.id))
    place.clear(keep=keep)
    again = place.run()
    assert again.id != first.id
    assert place.run().id == again.id
    assert len(sim.ledger()) == 2


def test_an_intent_survives_a_clear_that_discards_it(place: Place, sim: Simulator) -> None:
    """A worker died in between, then the task was cleared: the provider is asked, nothing is paid again."""
    place.run_and_die("before_result")
    place.clear(keep=False)
    assert place.run().id.endswith(str(sim.ledger()[0]["id"]).rpartition("/")[2])
    assert len(sim.ledger()) == 1


def test_the_log_says_whence_a_record_came(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A person who reads it understands why nothing was submitted."""
    place.run()
    place.clear(keep=False)
    with caplog.at_level("INFO"):
        place.run()
    assert "a clear has discarded this task's record: the copy of try 1 counts" in caplog.text


def test_a_copy_has_neither_prompt_nor_address(place: Place, sim: Simulator) -> None:
    """All DAGs can read the asset's store."""
    place.arguments["prompt"] = "a secret fox [sim:queued=0]"
    place.run()
    assert place.shared
    assert "secret" not in json.dumps(place.shared)
    assert "http" not in json.dumps(place.shared)
    assert "films" not in json.dumps(list(place.shared))


def test_the_first_try_believes_no_copy(place: Place, sim: Simulator) -> None:
    """A run that was deleted and made anew under its id makes new ones."""
    first = place.run()
    place.store.value, place.ti.try_number, place.ti.max_tries = None, 1, 1
    assert place.run().id != first.id
    assert len(sim.ledger()) == 2


def test_each_try_has_a_copy_of_its_own(place: Place, sim: Simulator) -> None:
    """A late worker writes over nothing but its own; the newest counts."""
    first = place.run()
    late = dict(place.shared)
    place.clear(keep=False)
    place.run()
    assert len(place.shared) > len(late)
    place.shared.update(late)
    place.clear(keep=False)
    assert place.run().id == first.id
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("failing", ["task store", "asset store"])
def test_nothing_is_sent_that_is_not_written_in_both(
    place: Place, sim: Simulator, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If either home refuses, nothing is paid."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AirflowRuntimeError(
            ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 500})
        )

    monkeypatch.setattr(place.store if failing == "task store" else place.shared, "set", refuse)
    with pytest.raises((AirflowRuntimeError, MediaTaskError)):
        place.run()
    assert sim.ledger() == []


def test_an_asset_that_is_gone_is_no_absent_record(
    place: Place, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow answers "nothing there" for an asset that is inactive; that proves nothing."""
    place.run()
    place.clear(keep=False)

    def gone(*_: Any, **__: Any) -> None:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.ASSET_NOT_FOUND, detail={"status_code": 404}))

    monkeypatch.setattr(place.shared, "set", gone)
    monkeypatch.setattr(place.shared, "get", lambda _: None)
    with pytest.raises(MediaTaskError, match="restart all of Airflow after an upgrade"):
        place.run()
    assert len(sim.ledger()) == 1


# The inlet.


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (GenerateVideoOperator, {"prompt": "a fox"}),
        (GenerateImageOperator, {"prompt": "a fox"}),
        (MediaTaskOperator, {"operation": "text_to_video"}),
        (GenerateMediaBatchOperator, {"requests": [{}], "results": "file:///tmp/x.jsonl"}),
    ],
)
def test_the_serialized_dag_has_the_inlet_wherever_we_pay(operator: Any, arguments: dict[str, Any]) -> None:
    """Single, mapped, and mapped in a mapped group, beside inlets of the author's own."""
    given = {"media_conn_id": "vap_default", **arguments}
    own = Asset("the_authors_own")
    with DAG("inlets") as dag:
        operator(task_id="single", **given)
        operator(task_id="with_own", inlets=[own], **given)
        operator.partial(task_id="mapped", **given).expand(poll_interval=[1, 2])
        operator.partial(task_id="mapped_with_own", inlets=[own], **given).expand(poll_interval=[1, 2])

        @task_group
        def group(conn: str) -> None:
            """Mapped as a whole."""
            operator(task_id="grouped", **{**given, "media_conn_id": conn})

        group.expand(conn=["vap_default", "kling_default"])
    stored = json.dumps(DagSerialization.to_dict(dag))
    assert stored.count('"media-tasks://submissions') >= 5
    for one in dag.tasks:
        inlets = list(getattr(one, "partial_kwargs", {}).get("inlets") or one.inlets)
        assert SUBMISSIONS in inlets, one.task_id
        assert (own in inlets) == one.task_id.endswith("own")
        assert inlets.count(SUBMISSIONS) == 1


def test_an_operator_that_drops_the_inlet_is_told(place: Place, sim: Simulator) -> None:
    """A subclass that sets `inlets` anew learns it before anything is paid."""
    context: Any = {**place.context, "asset_state_store": {}}
    with pytest.raises(MediaTaskError, match=r"does not have the asset .* as an inlet"):
        Entries(context)


def test_the_asset_is_for_ever_what_it_is() -> None:
    """Airflow would make one of two assets with the same name or the same URI inactive."""
    assert (SUBMISSIONS.name, SUBMISSIONS.uri.rstrip("/")) == (
        "airflow-media-tasks submissions",
        "media-tasks://submissions",
    )


# Task loops (Airflow 3.4).


def in_loop(place: Place, iteration: int, *, clears: int = 0) -> Place:
    """*place* as it is in an iteration of a task loop: an own store, everything else as in the others."""
    one = Place.__new__(Place)
    one.__dict__.update(place.__dict__)
    one.store = type(place.store)()
    one.ti = SimpleNamespace(**{**vars(place.ti), "try_number": 1, "max_tries": 1})
    one.more = {"loop": SimpleNamespace(index=iteration), "dag_run": SimpleNamespace(clear_number=clears)}
    return one


def test_each_iteration_pays_for_its_own(place: Place, sim: Simulator) -> None:
    """They have one name, one run and one map index; three are paid, and a retry pays for none again."""
    iterations = [in_loop(place, number) for number in range(3)]
    made = [one.run().id for one in iterations]
    assert len(set(made)) == 3
    assert [one.run().id for one in iterations] == made
    assert len({one.store.value["client_ref"] for one in iterations}) == len(sim.ledger()) == 3


def test_an_iteration_that_waits_is_waited_for_after_a_clear(place: Place, sim: Simulator) -> None:
    """Airflow makes a new task instance of it, whose tries begin anew."""
    made = in_loop(place, 1).run().id
    for clears in (1, 2, 5):
        assert in_loop(place, 1, clears=clears).run().id == made
    assert in_loop(place, 2, clears=5).run().id != made
    assert len(sim.ledger()) == 2


def test_an_iteration_that_has_finished_is_made_anew_after_a_clear(
    place: Place, sim: Simulator, clock: Clock
) -> None:
    """As outside a loop."""
    first = in_loop(place, 1)
    made = first.run().id
    clock.sleep(61)
    finish(first.context, first.submission().hook.get_task(made))
    again = in_loop(place, 1, clears=1)
    assert generation_of(again.context) != generation_of(first.context)
    assert again.run().id != made
    assert len(sim.ledger()) == 2


def test_a_run_that_was_made_anew_makes_new_ones_in_its_loops(place: Place, sim: Simulator) -> None:
    """It has not been cleared yet, so no copy is believed."""
    made = in_loop(place, 1).run().id
    assert in_loop(place, 1).run().id != made


def test_outside_a_loop_nobody_needs_a_dag_run(place: Place) -> None:
    """What is asked of the context is no more than it was."""
    assert generation_of(place.context) == place.ti.max_tries
    assert records.Place.of(place.context).named() == {
        "dag_id": "films",
        "run_id": "manual__1",
        "task_id": "video",
        "map_index": -1,
    }
