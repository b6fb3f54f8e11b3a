"""One DAG for each scenario: our operator, with hands that it raises against itself once.

Nothing of this is in the package: the operator below wraps the package's own methods at public seams, in the
worker's process, and does there what a crash, a pause or a user's exception would do.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from airflow.sdk import DAG, BaseOperator, Context, task_group
from scenarios import SCENARIOS, SHAKEN, Scenario, mark_name

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.operators import GenerateMediaBatchOperator, MediaTaskOperator
from airflow_media_tasks.submissions.records import SUBMISSIONS, Entries
from airflow_media_tasks.task import MediaTask, MediaTaskError


def kill() -> None:
    """The worker's process for this task and the task itself are gone, as when a machine is."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    """Both stand still until the rig wakes them."""
    os.kill(os.getppid(), signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)


def throw() -> None:
    """Whatever a user's code can raise."""
    raise RuntimeError("the fault rig says: boom")


def wait(mark: Path) -> None:
    """Whatever a worker can be slow at, until a person has answered."""
    ends = time.monotonic() + 120
    while not mark.with_suffix(".answered").exists():
        if time.monotonic() > ends:
            raise TimeoutError("nobody has answered")
        time.sleep(0.2)


class Hurts(BaseOperator):
    """An operator that does *hurt* to itself, the first time that it comes by.

    :param hurt: `<how> <where>`, or empty.
    :param iteration: in which one of a task loop, from 0; by default whether it is in a loop or not.
    :param naive: whether it forgets what was recorded.
    """

    def __init__(
        self, *, hurt: str = "", iteration: int | None = None, naive: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.hurt = hurt
        self.iteration = iteration
        self.naive = naive

    def _pass(self, where: str, context: Context) -> None:
        how, _, point = self.hurt.partition(" ")
        loop: Any = context.get("loop")
        is_here = point == where and (self.iteration is None or loop.index == self.iteration)
        if is_here and self._first_time(context):
            halt = partial(wait, mark_of(context["ti"]))
            {"kill": kill, "freeze": freeze, "raise": throw, "wait": halt}[how]()

    def _first_time(self, context: Context) -> bool:
        try:
            with mark_of(context["ti"]).open("x") as file:
                file.write(f"{os.getppid()} {os.getpid()}")
        except FileExistsError:
            return False
        return True

    @contextmanager
    def _forgetful(self, context: Context) -> Iterator[None]:
        """Whoever is naive finds nothing in either home of the records but what this process has written."""
        with ExitStack() as stack:
            for store in (context["task_state_store"], context["asset_state_store"][SUBMISSIONS]):
                if self.naive:
                    forget(type(store), stack)
            yield


def forget(store: type[Any], stack: ExitStack) -> None:
    """Lets this kind of store have no past."""
    get, set_, written = store.get, store.set, set()

    def remember(self: Any, key: str, *rest: Any, **named: Any) -> None:
        written.add(key)
        set_(self, key, *rest, **named)

    def look(self: Any, key: str, *rest: Any, **named: Any) -> Any:
        return get(self, key, *rest, **named) if key in written else None

    stack.enter_context(patch.object(store, "set", remember))
    stack.enter_context(patch.object(store, "get", look))


class HurtBatchOperator(Hurts, GenerateMediaBatchOperator):
    """`GenerateMediaBatchOperator` that is hurt while its first group is sent, or in a later try."""

    def execute(self, context: Context) -> dict[str, Any]:
        """As usual, with a wrapped method."""
        submit, sent, lock = MediaHook.submit, [0], threading.Lock()

        def submit_hurt(hook: MediaHook, *args: Any, **kwargs: Any) -> MediaTask:
            self._pass("before_post", context)
            task = submit(hook, *args, **kwargs)
            with lock:
                sent[0] += 1
                if sent[0] == len(self.requests) // 2:
                    self._pass("in_middle", context)
                if sent[0] == len(self.requests):
                    self._pass("after_all", context)
            return task

        with patch.object(MediaHook, "submit", submit_hurt), self._forgetful(context):
            return super().execute(context)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """As usual, with a wrapped method: the records have been read, and are about to be written."""
        get_tasks = MediaHook.get_tasks

        def get_tasks_hurt(hook: MediaHook, *args: Any, **kwargs: Any) -> dict[str, MediaTask]:
            if context["ti"].try_number > 1:
                self._pass("in_settling", context)
            return get_tasks(hook, *args, **kwargs)

        with patch.object(MediaHook, "get_tasks", get_tasks_hurt):
            return super().execute_complete(context, event)


class HurtOperator(Hurts, MediaTaskOperator):
    """`MediaTaskOperator` that is hurt anywhere on its way."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_brief = False

    def pre_execute(self, context: Context) -> None:
        """The user's: Airflow calls it at the start of every pass, after a deferral too."""
        record, _ = Entries(context).load()
        if record is not None and record.media_task_id is not None:
            self._pass("on_resume", context)

    def execute(self, context: Context) -> dict[str, Any]:
        """As usual, with wrapped methods."""
        with self._wrapped(context):
            return super().execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As usual, with wrapped methods."""
        with self._wrapped(context):
            return super().resume_execution(next_method, next_kwargs, context)

    def wait(self, context: Context, media_task_id: str, **kwargs: Any) -> dict[str, Any]:
        """As usual; this is where it defers, or polls."""
        self._pass("before_defer", context)
        if self.hurt == "kill while_polling" and self._first_time(context):
            threading.Timer(1.0, kill).start()
        self.is_brief = self.hurt == "defer briefly" and self._first_time(context)
        return super().wait(context, media_task_id, **kwargs)

    def defer(self, *, timeout: Any = None, **kwargs: Any) -> Any:
        """As usual, but perhaps for too short a time."""
        return super().defer(timeout=timedelta(seconds=5) if self.is_brief else timeout, **kwargs)

    def result(self, context: Context, task: MediaTask) -> dict[str, Any]:
        """As usual, and perhaps too far."""
        result = super().result(context, task)
        self._pass("in_complete", context)
        return result

    @contextmanager
    def _wrapped(self, context: Context) -> Iterator[None]:
        submit = MediaHook.submit

        def submit_hurt(hook: MediaHook, *args: Any, **kwargs: Any) -> MediaTask:
            self._pass("before_post", context)
            if self.naive:
                # Kling refuses a name that it has seen; the twin has no such name.
                kwargs["client_ref"] = None
            if self.hurt == "kill during_post" and self._first_time(context):
                threading.Timer(4.0, kill).start()
            task = self._awake(lambda: submit(hook, *args, **kwargs), context)
            self._pass("after_post", context)
            return task

        with patch.object(MediaHook, "submit", submit_hurt), self._forgetful(context):
            yield

    def _awake(self, submit: Callable[[], MediaTask], context: Context) -> MediaTask:
        """Submit, and tell the rig what came of it if this try has been frozen."""
        mark = mark_of(context["ti"])
        if not self.hurt.startswith("freeze") or str(os.getpid()) not in mark.read_text().split():
            return submit()
        said = "accepted"
        try:
            return submit()
        except MediaTaskError as error:
            said = str(error.code)
            raise
        finally:
            mark.with_suffix(".woke").write_text(said)


def mark_of(ti: Any) -> Path:
    """The file that is there once the task instance has been hurt."""
    return Path(os.environ["FAULT_MARKS"], mark_name(ti.dag_id, ti.task_id, ti.map_index or 0))


def dag_of(scenario: Scenario) -> DAG:
    """The DAG of one scenario."""
    with DAG(
        scenario.name,
        schedule=None,
        catchup=False,
        default_args={"retries": 5, "retry_delay": timedelta(seconds=1)},
        # By what has happened, not by the number of the try: Airflow may add one of its own.
        user_defined_macros={"is_hurt": lambda ti: mark_of(ti).exists()},
    ) as dag:
        for provider in scenario.providers:
            usual: dict[str, Any] = {
                "operation": scenario.operation(provider),
                "media_conn_id": scenario.conn_id(provider),
                "poll_interval": 2,
                "hurt": scenario.hurt,
                "naive": scenario.naive,
                "priority_weight": 1 if scenario in SHAKEN else 10,
                **scenario.options,
            }
            modes = scenario.modes_of(provider)
            if "single" in modes:
                [request] = scenario.requests(provider, "single")
                HurtOperator(task_id=f"{provider}_single", arguments=request, **usual)
            if "mapped" in modes:
                HurtOperator.partial(task_id=f"{provider}_mapped", **usual).expand(
                    arguments=scenario.requests(provider, "mapped")
                )
            if "loop" in modes:
                add_loop(provider, scenario, usual)
            if "batch" in modes:
                HurtBatchOperator(
                    task_id=f"{provider}_batch",
                    requests=scenario.requests(provider, "batch"),
                    results=f"file://{os.environ['FAULT_MARKS']}/{scenario.name}-{provider}.jsonl",
                    **usual,
                )
    return dag


def add_loop(provider: str, scenario: Scenario, usual: dict[str, Any]) -> None:
    """A task loop (Airflow 3.4) whose second iteration is hurt."""
    [request] = scenario.requests(provider, "loop")

    @task_group(group_id=f"{provider}_again", prefix_group_id=False)
    def again() -> Any:
        """One iteration."""
        return HurtOperator(task_id=f"{provider}_loop", arguments=request, iteration=1, **usual).output

    def until(loop: Any) -> bool:
        """After the last."""
        return bool(loop.index >= scenario.loop - 1)

    again.loop(max_iterations=scenario.loop, until=until)


for each in SCENARIOS:
    if each.runs_here:
        globals()[each.name] = dag_of(each)
