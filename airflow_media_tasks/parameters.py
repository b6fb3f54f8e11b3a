"""Parameters of operators: checked as soon as they are known, which for a template is when it is rendered."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from typing_extensions import Required, Self, TypedDict

from airflow_media_tasks.task import MediaRequestError, shown
from airflow_media_tasks.triggers import LONGEST_WAIT
from airflow_media_tasks.waiting import poller


if TYPE_CHECKING:
    from airflow.sdk import DAG, RetryPolicy, TaskGroup, XComArg
    from airflow.sdk.types import WeightRuleParam

T = TypeVar("T")

_OF_TEMPLATES = ("{{", "{%")


def number(text: str) -> Any:
    """The number that a *text* shows, whole if it has no point; other texts as they are."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class Parameter(Generic[T]):
    """An attribute of an operator, and a template field of it, that holds what *check* makes of its value.

    A template, another task's output and what else Airflow resolves stay as they are until Airflow sets the
    attribute to what they have become. One that has become nothing is an error: a limit that was meant to be
    there is not taken for none.

    :param check: given the attribute's name and a value, returns the value to use; raises MediaRequestError.
        It is given what it has returned, too.
    :param optional: whether None is a value.
    :param read: what makes a value of the text that a template has become.
    """

    def __init__(
        self,
        check: Callable[[str, Any], T],
        *,
        optional: bool = False,
        read: Callable[[str], Any] = number,
    ) -> None:
        self._check, self._optional, self._read = check, optional, read

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, operator: None, owner: type) -> Self: ...

    @overload
    def __get__(self, operator: object, owner: type) -> T: ...

    def __get__(self, operator: object | None, owner: type) -> Self | T:
        if operator is None:
            return self
        try:
            value: T = vars(operator)[self._name]
        except KeyError:
            raise AttributeError(self._name) from None
        return value

    def __set__(self, operator: object, value: Any) -> None:
        if _is_template(vars(operator).get(self._name)):
            value = self._check(self._name, self._read(value) if isinstance(value, str) else value)
        elif not _is_template(value) and not (value is None and self._optional):
            value = self._check(self._name, value)
        vars(operator)[self._name] = value


def _is_template(value: Any) -> bool:
    """Whether Airflow puts something else in the place of *value* before the task runs."""
    if isinstance(value, str):
        return any(mark in value for mark in _OF_TEMPLATES)
    return callable(value) or hasattr(value, "resolve")


def seconds(name: str, value: Any) -> float:
    """*value* (a number or a timedelta) in seconds. Raises MediaRequestError unless it is above 0.

    No more than `LONGEST_WAIT`, after which the calendar of a computer ends soon.
    """
    length = value.total_seconds() if isinstance(value, timedelta) else value
    good = isinstance(length, (int, float)) and not isinstance(length, bool) and math.isfinite(length)
    if not good or length <= 0:
        raise MediaRequestError(
            f"{name} must be a number of seconds above 0 or a timedelta, got {shown(value)}"
        )
    if length > LONGEST_WAIT:
        raise MediaRequestError(f"{name} must be at most {LONGEST_WAIT:.0f} s, got {shown(value)}")
    return float(length)


def interval(name: str, value: Any) -> float:
    """*value* in seconds, as of `seconds`. Raises MediaRequestError below `SHORTEST_INTERVAL`."""
    length = seconds(name, value)
    if length < poller.SHORTEST_INTERVAL:
        raise MediaRequestError(
            f"{name} must be at least {poller.SHORTEST_INTERVAL:g} s, got {shown(value)}; a provider "
            "that is asked more often than that refuses requests, and finds no result sooner"
        )
    return length


def whole_number(name: str, value: Any) -> int:
    """*value*, a whole number from 1. Raises MediaRequestError for anything else."""
    if type(value) is not int or value < 1:
        raise MediaRequestError(f"{name} must be a whole number from 1, or None, got {shown(value)}")
    return value


def share(name: str, value: Any) -> float:
    """*value*, a whole number from 0, or a float from 0.0 to 1.0, which is a share.

    :raises MediaRequestError: for anything else.
    """
    most = 1.0 if type(value) is float else math.inf
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise MediaRequestError(
            f"{name} must be a whole number from 0 (1 is one request), or a share as a float from 0.0 to 1.0 "
            f"(1.0 is all of them), got {shown(value)}"
        )
    return value  # type: ignore[no-any-return]  # it is one of the two


class TaskArguments(TypedDict, total=False):
    """What Airflow's `BaseOperator` takes, for type checkers and editors."""

    task_id: Required[str]
    owner: str
    email: str | Sequence[str] | None
    email_on_retry: bool
    email_on_failure: bool
    retries: int | None
    retry_delay: timedelta | float
    retry_exponential_backoff: float
    max_retry_delay: timedelta | float | None
    start_date: datetime | None
    end_date: datetime | None
    depends_on_past: bool
    ignore_first_depends_on_past: bool
    wait_for_past_depends_before_skipping: bool
    wait_for_downstream: bool
    dag: DAG | None
    params: MutableMapping[str, Any] | None
    default_args: dict[str, Any] | None
    priority_weight: int
    weight_rule: WeightRuleParam
    queue: str
    pool: str | None
    pool_slots: int
    sla: timedelta | None
    execution_timeout: timedelta | None
    on_execute_callback: Callable[..., Any] | Collection[Callable[..., Any]] | None
    on_failure_callback: Callable[..., Any] | list[Callable[..., Any]] | None
    on_success_callback: Callable[..., Any] | Collection[Callable[..., Any]] | None
    on_retry_callback: Callable[..., Any] | list[Callable[..., Any]] | None
    on_skipped_callback: Callable[..., Any] | Collection[Callable[..., Any]] | None
    pre_execute: Callable[..., Any] | None
    post_execute: Callable[..., Any] | None
    trigger_rule: str
    resources: dict[str, Any] | None
    run_as_user: str | None
    map_index_template: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    executor: str | None
    executor_config: dict[str, Any] | None
    do_xcom_push: bool
    multiple_outputs: bool
    inlets: Any
    outlets: Any
    task_group: TaskGroup | None
    doc: str | None
    doc_md: str | None
    doc_json: str | None
    doc_yaml: str | None
    doc_rst: str | None
    task_display_name: str | None
    logger_name: str | None
    allow_nested_operators: bool
    render_template_as_native_obj: bool | None


class SensorArguments(TaskArguments, total=False):
    """What Airflow's `BaseSensorOperator` takes."""

    poke_interval: timedelta | float
    soft_fail: bool
    mode: str
    exponential_backoff: bool
    max_wait: timedelta | float | None
    silent_fail: bool
    never_fail: bool


class MediaTaskArguments(TaskArguments, total=False):
    """What `MediaTaskOperator` takes besides, for the operators that are made from it."""

    arguments: Mapping[str, Any] | str | XComArg | None
    media_conn_id: str | XComArg | None
    poll_interval: float | timedelta | str | XComArg
    timeout: float | timedelta | str | XComArg
    queue_timeout: float | timedelta | str | XComArg | None
    deferrable: bool
    on_unknown_submission: str
    save_to: str | XComArg | None
    max_cost: str | int | Decimal | XComArg | None
    min_balance: str | int | Decimal | XComArg | None
    retry_policy: RetryPolicy | None
