from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, Param, task, task_group

from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.operators import GenerateVideoOperator, MediaTaskOperator
from airflow_media_tasks.parameters import Parameter, SensorArguments, TaskArguments, whole_number
from airflow_media_tasks.sensors import MediaTaskSensor
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import MediaRequestError
from airflow_media_tasks.wire.prices import Price


Connect = Callable[..., str]

QUICK = "[sim:queued=0] [sim:seconds=0.1]"
SINGLE = ("max_cost", "min_balance", "timeout", "queue_timeout", "poll_interval")
BATCH = (*SINGLE, "concurrency", "max_items", "min_success")
OURS = [
    *((MediaTaskOperator, name) for name in SINGLE),
    *((GenerateMediaBatchOperator, name) for name in BATCH),
    *((MediaTaskSensor, name) for name in ("timeout", "poll_interval")),
]


def made(kind: type[Any], **changes: Any) -> Any:
    """An operator of this *kind*, within a DAG or without."""
    needed: dict[type[Any], dict[str, Any]] = {
        MediaTaskOperator: {"operation": "text_to_video", "arguments": {"prompt": "a fox"}},
        GenerateMediaBatchOperator: {"requests": [{"prompt": "a fox"}], "save_to": "file:///tmp/films/"},
        MediaTaskSensor: {"media_task_id": "luma/1"},
    }
    return kind(**{"task_id": "t", "media_conn_id": "kling_default", **needed[kind], **changes})


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_a_template_is_checked_when_it_is_rendered(kind: type[Any], name: str) -> None:
    """What `{{ params.x }}` becomes counts, and what it must not become is an error that names it."""
    operator = made(kind, **{name: "{{ params.x }}"})
    assert getattr(operator, name) == "{{ params.x }}"
    operator.render_template_fields({"params": {"x": 7 if name != "min_success" else "0.5"}})
    rendered = {"min_success": 0.5, "max_cost": Price(Decimal(7), "")}
    assert getattr(operator, name) == rendered.get(name, 7)
    assert not isinstance(getattr(operator, name), str)
    operator = made(kind, **{name: "{{ params.x }}"})
    with pytest.raises(MediaRequestError, match=f"{name} must be .*'much'"):
        operator.render_template_fields({"params": {"x": "much"}})


def test_what_a_template_must_not_become_is_shown_to_people() -> None:
    """Its error is in XCom, where the gallery finds why nothing was made."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    operator = made(MediaTaskOperator, max_cost="{{ params.x }}")
    with pytest.raises(MediaRequestError) as refused:
        operator.render_template_fields({"params": {"x": "much"}, "ti": ti})
    assert pushed == {"media_error": refused.value.to_dict()}


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_a_plain_value_is_checked_at_once(kind: type[Any], name: str) -> None:
    """A wrong number is seen when the DAG is read."""
    with pytest.raises(MediaRequestError, match=f"{name} must be "):
        made(kind, **{name: "much"})


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", SINGLE)
def test_a_limit_that_renders_to_nothing_is_an_error(name: str, native: bool) -> None:
    """A parameter that was not given never means "no limit"."""
    operator = made(MediaTaskOperator, **{name: "{{ params.x }}"}, render_template_as_native_obj=native)
    with pytest.raises(MediaRequestError, match=f"{name} must be .*got '?None"):
        operator.render_template_fields({"params": {"x": None}})


def test_what_renders_to_a_template_is_no_value() -> None:
    """Nothing is rendered twice."""
    operator = made(MediaTaskOperator, timeout="{{ params.x }}")
    with pytest.raises(MediaRequestError, match="timeout must be"):
        operator.render_template_fields({"params": {"x": "{{ 5 }}"}})


def test_a_duration_and_a_decimal_stay_what_they_are() -> None:
    """A timedelta is its seconds; an amount is exact."""
    operator = made(MediaTaskOperator, timeout=timedelta(minutes=2), max_cost="0.10")
    assert (operator.timeout, operator.max_cost) == (120.0, Price(Decimal("0.10"), ""))
    operator.render_template_fields({})
    assert (operator.timeout, operator.max_cost) == (120.0, Price(Decimal("0.10"), ""))


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("300", 300)])
def test_one_is_a_request_and_one_point_nought_is_all(text: str, value: float) -> None:
    """Also where a template has made a text of it."""
    operator = made(GenerateMediaBatchOperator, min_success="{{ params.x }}")
    operator.render_template_fields({"params": {"x": text}})
    assert operator.min_success == value
    assert type(operator.min_success) is type(value)
    assert made(GenerateMediaBatchOperator, min_success=value).min_success == value


@pytest.mark.parametrize("value", ["2.5", 2.5, "", True, 0, -1, "1e3", None])
def test_a_whole_number_is_one(value: Any) -> None:
    """From 1."""
    with pytest.raises(MediaRequestError, match="max_items must be a whole number from 1"):
        whole_number("max_items", value)


def test_arguments_come_from_params_xcoms_and_mapped_groups(
    sim: Simulator, connect: Connect, run_dag: Callable[[Any], Any]
) -> None:
    """The import of the DAG does not break, and each guard holds."""
    connect("kling", extra={"prices": {"*": {"amount": "0.40", "unit": "USD"}}})
    with DAG("templated", params={"budget": Param("0.50"), "wait": Param(60)}) as dag:

        @task
        def interval() -> float:
            return 0.1

        @task
        def budgets() -> list[dict[str, Any]]:
            return [{"budget": "0.40"}, {"budget": "0.39"}]

        GenerateVideoOperator(
            task_id="single",
            media_conn_id="kling_default",
            prompt=f"a fox {QUICK}",
            max_cost="{{ params.budget }}",
            timeout="{{ params.wait }}",
            poll_interval=interval(),
        )

        @task_group
        def each(budget: str) -> None:
            GenerateVideoOperator(
                task_id="one",
                media_conn_id="kling_default",
                prompt=f"a fox {QUICK}",
                max_cost=budget,
                poll_interval=0.1,
            )

        each.expand_kwargs(budgets())
    states = run_dag(dag).tasks
    assert states["single", -1] == "success"
    assert (states["each.one", 0], states["each.one", 1]) == ("success", "failed")
    assert len(sim.ledger()) == 2


def test_a_batch_takes_its_limits_from_a_template(
    sim: Simulator, connect: Connect, run_dag: Callable[[Any], Any], tmp_path: Path
) -> None:
    """As a single task."""
    connect("kling")
    with DAG("templated_batch", params={"most": Param(2), "many": Param(3)}) as dag:
        for name in ("most", "many"):
            GenerateMediaBatchOperator(
                task_id=name,
                media_conn_id="kling_default",
                operation="text_to_video",
                requests=[{"prompt": f"fox {number} {QUICK}"} for number in range(3)],
                results=f"file://{tmp_path}/{name}.jsonl",
                max_items=f"{{{{ params.{name} }}}}",
                min_success=1.0,
                poll_interval=0.1,
            )
    states = run_dag(dag).tasks
    assert (states["most", -1], states["many", -1]) == ("failed", "success")
    assert len(sim.ledger()) == 3


@pytest.mark.parametrize(
    ("arguments", "operator"), [(TaskArguments, BaseOperator), (SensorArguments, BaseSensorOperator)]
)
def test_every_argument_of_airflow_is_known(arguments: Any, operator: Any) -> None:
    """What is no argument of ours is one of Airflow's, or a type checker's error."""
    ours = {"retry_policy", "timeout"}  # spelled out by each operator, where it has them
    its = {
        name
        for one in {operator, BaseOperator}
        for name, parameter in inspect.signature(one.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert set(arguments.__annotations__) | ours == its | ours


def test_a_parameter_is_a_value_of_its_operator_alone() -> None:
    """Two operators of one class do not share it."""
    one, other = made(MediaTaskOperator, timeout=1), made(MediaTaskOperator, timeout=2)
    assert (one.timeout, other.timeout) == (1.0, 2.0)
    assert isinstance(MediaTaskOperator.__dict__["timeout"], Parameter)
