"""Runs every scenario in one cluster, side by side as far as possible, and reads what it cost."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

import bucket
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.wire.protocol import handle
from deployment import DeploymentError, free_port

from .cluster import TAKEOVER, TRIGGERERS, WORKERS, Cluster, WorkerLost
from .line import SlowLine
from .scenarios import (
    CHAOS,
    DOUBTS,
    FOREVER,
    LOST,
    OUTAGES,
    SCENARIOS,
    SHAKEN,
    SIDE_BY_SIDE,
    Case,
    Scenario,
    cases,
    mark_name,
)


SIDE_BY_SIDE_SECONDS = 1500
SHAKEN_SECONDS = 150.0  # each
CHAOS_SECONDS = 180.0
CHAOS_END_SECONDS = 300.0
FROZEN_SECONDS = 45.0
CONCURRENCY_SECONDS = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Instance:
    """A task instance as the metadata database has it."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    next_method: str | None

    @property
    def waits(self) -> bool:
        """Whether its trigger, not that of a refused submission, is what it waits for."""
        return self.state == "deferred" and self.next_method == "execute_complete"


@dataclass
class Outcome:
    """What came of a case.

    :param paid: ledger entries.
    :param states: final state to number of task instances.
    :param tries: the least and the most tries of a task instance.
    :param doubts: what is wrong besides, in words; for example a fault that was never met.
    """

    paid: int
    states: dict[str, int]
    tries: tuple[int, int]
    doubts: list[str]

    @property
    def end(self) -> str:
        """The states, and every doubt."""
        states = ", ".join(f"{number} {state}" for state, number in sorted(self.states.items()))
        return "; ".join([states, *self.doubts])

    @property
    def words(self) -> str:
        """For the table."""
        least, most = self.tries
        return f"{self.end}; tries {least}" + ("" if least == most else f"-{most}")


class Rig:
    """The cluster, a simulator for each scenario, and one run of each scenario's DAG.

    :param home: an existing folder for everything that is written.
    :param scenarios: which, default all.
    """

    def __init__(self, home: Path, scenarios: Sequence[Scenario] = SCENARIOS) -> None:
        self.scenarios = list(scenarios)
        self.outcomes: dict[str, Outcome] = {}
        self._home = home
        self._marks = home / "marks"
        self._simulators = {scenario.name: Simulator() for scenario in self.scenarios}
        self._runs: dict[str, str] = {}
        self._doubts: dict[str, list[str]] = {scenario.name: [] for scenario in self.scenarios}
        self._bucket = f"http://127.0.0.1:{free_port()}"
        self._began = time.monotonic()
        self._is_over = False
        self.cluster: Cluster

    # From the start to the end.

    def run(self) -> None:
        """Everything. Fills `outcomes`; what did not come to its end is to be seen there.

        :raises WorkerLost: where nothing can come to its end, once a worker is lost.
        """
        self._marks.mkdir(parents=True)
        with ExitStack() as stack:
            for simulator in self._simulators.values():
                stack.enter_context(simulator)
            self.cluster = Cluster(Path(__file__).parent / "dags", self._home / "airflow", self._settings())
            stack.enter_context(self.cluster)
            if any(scenario.material for scenario in self.scenarios):
                self._start_bucket()
            self._say("the cluster is healthy")
            self._side_by_side()
            self._shaken()
            self._chaos()
            for scenario in self.scenarios:
                for case in cases(scenario):
                    self.outcomes[str(case)] = self._outcome(case)
            if self.cluster.revived:
                self._say(f"ended by itself and was restarted: {', '.join(self.cluster.revived)}")

    def _start_bucket(self) -> None:
        self.cluster.start("bucket", [sys.executable, bucket.__file__, self._bucket.rpartition(":")[2]])
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                url = f"{self._bucket}/{bucket.BUCKET}/ready"
                if httpx.get(url, timeout=5.0, trust_env=False).status_code == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError("the bucket does not answer")

    def _settings(self) -> dict[str, str]:
        connections = {
            f"AIRFLOW_CONN_{scenario.conn_id(provider).upper()}": json.dumps(
                {
                    "conn_type": provider,
                    "host": f"{self._simulators[scenario.name].url}/{provider}",
                    "password": f"key-of-{scenario.name}",
                    **({"extra": {"material": scenario.material}} if scenario.material else {}),
                }
            )
            for scenario in self.scenarios
            for provider in scenario.providers
        }
        here = Path(__file__).resolve().parent
        path = [str(here), str(here.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "PYTHONPATH": os.pathsep.join(path),
            "FAULT_MARKS": str(self._marks),
            **bucket.settings(self._bucket),
            **connections,
        }

    def _side_by_side(self) -> None:
        chosen = [scenario for scenario in self.scenarios if scenario in SIDE_BY_SIDE]
        with ThreadPoolExecutor(max_workers=32, thread_name_prefix="scenario") as pool:
            acts = []
            for scenario in self.scenarios:
                act = ACTS.get(scenario.name)
                if scenario.name in BEFORE:
                    BEFORE[scenario.name](self._simulators[scenario.name])
                if scenario is not CHAOS:
                    conf = self._conf(scenario)
                    self._runs[scenario.name] = self.cluster.run(scenario.name, conf, seconds=120)
                if act is not None:
                    acts.append(pool.submit(self._act, act, scenario))
            self._say(f"{len(self._runs)} runs begun")
            try:
                self._until_ended(chosen, SIDE_BY_SIDE_SECONDS, lambda: all(act.done() for act in acts))
            except WorkerLost:
                self._is_over = True
                raise
        self._say("side by side: done")

    def _conf(self, scenario: Scenario) -> dict[str, str]:
        """What the run is told: of a film that is there already at Kling, the id by which it is extended."""
        if not scenario.doubtful or "kling" not in scenario.providers:
            return {}
        path = f"{self._simulators[scenario.name].url}/kling/v1/videos/text2video"
        headers = {"Authorization": f"Bearer key-of-{scenario.name}"}
        body = {"prompt": "a film to extend [sim:seconds=0]"}
        with httpx.Client(headers=headers, trust_env=False) as kling:
            made = kling.post(path, json=body).json()["data"]
            film = kling.get(f"{path}/{made['task_id']}").json()["data"]
        return {"video": film["task_result"]["videos"][0]["id"]}

    def _shaken(self) -> None:
        for scenario in self.scenarios:
            if scenario in SHAKEN:
                self._act(SHAKES[scenario.name], scenario)
                self._until_ended([scenario], SHAKEN_SECONDS)
                self._say(f"{scenario.fault}: done")

    def _chaos(self) -> None:
        if CHAOS not in self.scenarios:
            return
        self._runs[CHAOS.name] = self.cluster.run(CHAOS.name)
        dice = random.Random(3)  # noqa: S311  # which part is killed when, the same in every run
        kills: dict[str, int] = {}
        ends = time.monotonic() + CHAOS_SECONDS
        while time.monotonic() < ends:
            time.sleep(dice.uniform(4, 12))
            victim = dice.choice([*WORKERS, *TRIGGERERS])
            self.cluster.signal(victim, signal.SIGKILL)
            kills[victim] = kills.get(victim, 0) + 1
            time.sleep(dice.uniform(0, 5))
            self.cluster.restart(victim)
        self._say(f"chaos: {kills} killed; {self._states(CHAOS)}")
        self._until_ended([CHAOS], CHAOS_END_SECONDS)
        if all(each.try_number == 1 for each in self.instances(CHAOS)):
            self._doubts[CHAOS.name].append("no task lost its worker")
        self._say("chaos: done")

    # Looking.

    def instances(self, scenario: Scenario) -> list[Instance]:
        """The scenario's task instances; a mapped task that is not expanded yet is left out."""
        found = [Instance(*row) for row in self.cluster.instances(scenario.name)]
        return [each for each in found if each.map_index >= 0 or not each.task_id.endswith("_mapped")]

    def until(
        self,
        scenario: Scenario,
        condition: Callable[[Instance], bool],
        what: str,
        *,
        at_once: bool = True,
    ) -> list[Instance]:
        """Wait until all task instances of the scenario fulfil the condition, or have done so one by one.

        :raises DeploymentError: if they do not in time.
        """
        expected = sum(sum(scenario.modes_of(provider).values()) for provider in scenario.providers)
        ends = time.monotonic() + SIDE_BY_SIDE_SECONDS
        met: set[tuple[str, int]] = set()
        while True:
            found = self.instances(scenario)
            now = {(each.task_id, each.map_index) for each in found if condition(each)}
            met = now if at_once else met | now
            if len(met) == expected:
                return found
            if self._is_over or time.monotonic() > ends:
                raise DeploymentError(f"only {len(met)} of {expected} {what}: {self._states(scenario)}")
            time.sleep(1)

    def _until(self, met: Callable[[], bool], what: str) -> None:
        """Wait until something has happened.

        :raises DeploymentError: if it does not in time.
        """
        ends = time.monotonic() + SIDE_BY_SIDE_SECONDS
        while not met():
            if self._is_over or time.monotonic() > ends:
                raise DeploymentError(f"it never came that {what}")
            time.sleep(0.5)

    def _until_ended(
        self, scenarios: Sequence[Scenario], seconds: float, also: Callable[[], bool] = lambda: True
    ) -> None:
        """Wait until the runs have ended; what ends by itself is restarted meanwhile."""
        ends = time.monotonic() + seconds
        while (left := self._unended(scenarios)) or not also():
            self.cluster.revive()
            if time.monotonic() > ends:
                self._say(f"not ended after {seconds:.0f} s: {sorted(left)}")
                return
            time.sleep(2)

    def _unended(self, scenarios: Sequence[Scenario]) -> set[str]:
        query = "select dag_id from dag_run where state not in ('success', 'failed')"
        return {scenario.name for scenario in scenarios} & {row[0] for row in self.cluster.rows(query)}

    def _states(self, scenario: Scenario) -> dict[str, int]:
        states: dict[str, int] = {}
        for each in self.instances(scenario):
            states[str(each.state)] = states.get(str(each.state), 0) + 1
        return states

    def _outcome(self, case: Case) -> Outcome:
        scenario = case.scenario
        mine = [each for each in self.instances(scenario) if each.task_id == case.task_id]
        tries = [each.try_number for each in mine] or [0]
        states: dict[str, int] = {}
        for each in mine:
            states[str(each.state)] = states.get(str(each.state), 0) + 1
        doubts = list(self._doubts[scenario.name])
        if scenario.hurt:
            # Of a task loop one iteration is hurt; what tells them apart is no map index.
            indexes = [0] if scenario.loop else [each.map_index for each in mine]
            marks = [mark_name(scenario.name, case.task_id, index) for index in indexes]
            unhurt = sum(not (self._marks / mark).exists() for mark in marks)
            if unhurt:
                doubts.append(f"{unhurt} never met the fault")
        if scenario.log:
            doubts += self._silent(case, mine)
        return Outcome(len(self._paid(case)), states, (min(tries), max(tries)), doubts)

    def _paid(self, case: Case) -> list[dict[str, Any]]:
        """Ledger entries of the case."""
        tag = f"{case.scenario.name} {case.mode} "
        entries = self._simulators[case.scenario.name].ledger(case.provider)
        return [entry for entry in entries if tag in str(entry["request"])]

    def _silent(self, case: Case, instances: Sequence[Instance]) -> Iterator[str]:
        for each in instances:
            logged = self._patiently(
                lambda each=each: self.cluster.log(  # type: ignore[misc]  # mypy cannot infer a default's type
                    case.scenario.name, self._runs[case.scenario.name], each.task_id, map_index=each.map_index
                )
            )
            if case.scenario.log not in logged:
                yield f"[{each.map_index}] never said {case.scenario.log!r}"

    @staticmethod
    def _patiently(ask: Callable[[], str]) -> str:
        for _ in range(10):
            with contextlib.suppress(httpx.HTTPError, DeploymentError):
                return ask()
            time.sleep(2)
        return ask()

    def _say(self, sentence: str) -> None:
        line = f"[{time.monotonic() - self._began:6.1f} s] {sentence}"
        log.info(line)
        with (self._home / "rig.log").open("a") as file:
            file.write(f"{line}\n")

    # Doing.

    def _act(self, act: Callable[[Rig, Scenario], None], scenario: Scenario) -> None:
        """Do to the scenario what its name says; what goes wrong is noted, and the rest goes on."""
        try:
            act(self, scenario)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the other scenarios
            self._doubts[scenario.name].append(f"{type(error).__name__}: {error}")

    def _reads(self, scenario: Scenario) -> dict[str, int]:
        """How many status requests each provider has had."""
        reads = dict.fromkeys(scenario.providers, 0)
        for route, number in self._simulators[scenario.name].requests().items():
            provider = route.split("/")[1]
            if route.startswith("GET") or route.endswith("/tasks"):
                reads[provider] = reads.get(provider, 0) + number
        return reads

    def _polling_fails(self, scenario: Scenario) -> None:
        """The provider has an outage of a minute while all wait; then it goes on as if nothing had been."""
        simulator = self._simulators[scenario.name]
        self.until(scenario, lambda each: each.waits, "wait")
        fault = dict(OUTAGES[scenario.name][1])
        simulator.fault(fault.pop("kind"), on="read", seconds=60, **fault)
        before = self._reads(scenario)
        time.sleep(58)
        after = self._reads(scenario)
        for provider in scenario.providers:
            if after[provider] == before[provider]:
                self._doubts[scenario.name].append(f"{provider} was not asked during the outage")
        if any(not each.waits for each in self.instances(scenario)):
            self._doubts[scenario.name].append("not all went on waiting")
        simulator.advance(FOREVER)

    def _wait_ends(self, scenario: Scenario) -> None:
        """A first try's wait ends before the provider does, which is when all have waited again."""
        self.until(scenario, lambda each: each.waits and each.try_number > 1, "wait again", at_once=False)
        self._simulators[scenario.name].advance(FOREVER)

    def _has_no_room(self, scenario: Scenario) -> None:
        """Every submission is refused for half a minute, counted from when all have tried."""
        self.until(scenario, lambda each: each.state == "deferred", "were refused", at_once=False)
        time.sleep(CONCURRENCY_SECONDS)
        if self._simulators[scenario.name].ledger():
            self._doubts[scenario.name].append("a submission was accepted meanwhile")
        self._simulators[scenario.name].clear_faults()

    def _user_fails(self, scenario: Scenario) -> None:
        for each in self.until(scenario, lambda each: each.waits, "wait"):
            place = f"dags/{scenario.name}/dagRuns/{self._runs[scenario.name]}/taskInstances/{each.task_id}"
            index = f"/{each.map_index}" if each.map_index >= 0 else ""
            self.cluster.request("PATCH", place + index, json={"new_state": "failed"})

    def _until_run_ended(self, scenario: Scenario) -> None:
        # A clear while the scheduler is about to end the run is lost in Airflow 3.3.2: the run just ends.
        ends = time.monotonic() + 60
        while self._unended([scenario]) and time.monotonic() < ends:
            time.sleep(1)

    def _clear(self, scenario: Scenario, task_ids: Sequence[str] | None = None) -> None:
        body: dict[str, Any] = {
            "dry_run": False,
            "only_failed": False,
            "dag_run_id": self._runs[scenario.name],
            "reset_dag_runs": True,
            **({} if task_ids is None else {"task_ids": list(task_ids)}),
        }
        self.cluster.request("POST", f"dags/{scenario.name}/clearTaskInstances", json=body)

    def _user_clears_deferred(self, scenario: Scenario, task_ids: Sequence[str] | None = None) -> None:
        waited = self.until(scenario, lambda each: each.waits, "wait")
        if scenario.quick:
            time.sleep(8)  # the quick ones have ended, the others make the batch wait
        tries = {(each.task_id, each.map_index): each.try_number for each in waited}
        self._clear(scenario, task_ids)
        self.until(
            scenario,
            lambda each: each.waits and each.try_number > tries[each.task_id, each.map_index],
            "wait again",
        )
        self._simulators[scenario.name].advance(FOREVER)

    def _user_clears_mapped(self, scenario: Scenario) -> None:
        self._user_clears_deferred(scenario, [case.task_id for case in cases(scenario)])

    def _user_clears_success(self, scenario: Scenario) -> None:
        self.until(scenario, lambda each: each.state == "success", "have succeeded")
        self._until_run_ended(scenario)
        self._clear(scenario)
        self.until(scenario, lambda each: each.state == "success" and each.try_number > 1, "succeeded again")

    def _person_answers(self, scenario: Scenario) -> None:
        """What the message of `SubmissionOutcomeUnknown` says; the command clears the task."""
        failed = self.until(scenario, lambda each: each.state == "failed", "have stopped")
        self._until_run_ended(scenario)
        self._simulators[scenario.name].advance(FOREVER)
        for each in failed:
            [case] = [case for case in cases(scenario) if case.task_id == each.task_id]
            [entry] = self._paid(case)
            self._answer(case, entry, "--map-index", str(each.map_index))
        # What was adopted has ended already, what is made anew has not.
        self.until(scenario, lambda each: each.waits or each.state == "success", "have gone on")
        self._simulators[scenario.name].advance(FOREVER)
        self.until(scenario, lambda each: each.state == "success", "have succeeded")

    def _answer(self, case: Case, entry: dict[str, Any], *options: str, api_url: str | None = None) -> None:
        """The command by which a person says that it became *entry* of the ledger, or gives it up."""
        place = [case.scenario.name, self._runs[case.scenario.name], case.task_id]
        adopts = case.scenario.name.endswith("_adopts")
        what = (
            ["adopt", *place, handle(DOUBTS[case.provider].group, entry["id"])]
            if adopts
            else ["resubmit", *place]
        )
        who = ["--api-url", api_url or self.cluster.url, "--username", "admin"]
        done = subprocess.run(
            self.cluster.airflow("media-tasks", *what, *options, *who),
            env={**self.cluster.environment, "AIRFLOW_API_PASSWORD": self.cluster.passwords["admin"]},
            check=False,
            capture_output=True,
            text=True,
            timeout=SIDE_BY_SIDE_SECONDS,
        )
        if done.returncode:
            raise DeploymentError(f"{' '.join(what)}: {done.stderr[-500:]}")

    def _person_answers_meanwhile(self, scenario: Scenario) -> None:
        """Each batch has a request that asks; when all are answered, the provider ends everything."""
        batches = list(cases(scenario))
        with ThreadPoolExecutor(max_workers=len(batches)) as pool:
            list(pool.map(self._answer_meanwhile, batches))
        for case in batches:
            self._until(lambda case=case: len(self._paid(case)) >= scenario.paid, f"{case} has gone on")  # type: ignore[misc]  # mypy cannot infer a default's type
        self._simulators[scenario.name].advance(FOREVER)
        self.until(scenario, lambda each: each.state == "success", "have succeeded")
        for case in batches:
            neighbours = [entry for entry in self._paid(case) if LOST not in str(entry["request"])]
            if len(neighbours) != scenario.batch - 1:
                self._doubts[scenario.name].append(f"{case.provider}: {len(neighbours)} neighbours paid")

    def _answer_meanwhile(self, case: Case) -> None:
        """A person looks while the batch waits for a retry, and the answer comes when that one is at work.

        The retry has read the records of all requests then, and has not written them again.
        """
        mark = self._marks / mark_name(case.scenario.name, case.task_id, 0)
        answered = mark.with_suffix(".answered")

        def state() -> str | None:
            found = [each.state for each in self.instances(case.scenario) if each.task_id == case.task_id]
            return found[0] if found else None

        def holds(method: str, path: str) -> bool:
            if self._is_over:
                raise DeploymentError(f"{case} is not waited for any more")
            if path.endswith("/version"):
                # The answer is written, and the clear is next.
                answered.touch()
                return state() not in ("up_for_retry", "failed")
            if answered.exists():
                return False
            if method == "PUT":
                return not mark.exists()
            return path.endswith(f"/{case.task_id}") and state() != "up_for_retry"

        def lost() -> list[dict[str, Any]]:
            return [entry for entry in self._paid(case) if LOST in str(entry["request"])]

        self._until(lambda: bool(lost()), f"{case} has sent what is lost")
        with SlowLine(self.cluster.url, holds) as line:
            self._answer(case, lost()[0], "--request", "0", api_url=line.url)

    def _zombie_wakes(self, scenario: Scenario) -> None:
        """Wakes each sleeping try when the next one is at work: the task first, then what supervises it."""
        ends = time.monotonic() + SIDE_BY_SIDE_SECONDS
        asleep = {
            (case.task_id, index)
            for case in cases(scenario)
            for index in range(scenario.modes_of(case.provider)[case.mode])
        }
        while asleep:
            if self._is_over or time.monotonic() > ends:
                raise DeploymentError(f"no second try of {sorted(asleep)}")
            for each in self.instances(scenario):
                key = (each.task_id, max(each.map_index, 0))
                if key in asleep and each.try_number > 1 and each.state in ("running", "deferred"):
                    asleep.remove(key)
                    self._wake(scenario, self._marks / mark_name(scenario.name, *key))
            time.sleep(1)

    def _wake(self, scenario: Scenario, mark: Path) -> None:
        """It must find that it is too late to send, or be ended by Airflow before it gets that far."""
        supervisor, task = (int(pid) for pid in mark.read_text().split())
        woke = mark.with_suffix(".woke")
        for pid, patience in ((task, 5), (supervisor, 60)):
            os.kill(pid, signal.SIGCONT)
            ends = time.monotonic() + patience
            while not woke.exists() and psutil.pid_exists(task) and time.monotonic() < ends:
                time.sleep(0.2)
        said = woke.read_text() if woke.exists() else "still there" if psutil.pid_exists(task) else "ended"
        self._say(f"{mark.name} woke: {said}")
        if said not in ("too_late", "ended"):
            self._doubts[scenario.name].append(f"{mark.name} woke: {said}")

    def _shake_triggerer(self, scenario: Scenario, number: signal.Signals) -> None:
        """The triggerer with most of the triggers has an accident; the other takes over, then they fire."""
        self.until(scenario, lambda each: each.waits, "wait")
        held = self.cluster.waits_in(scenario.name)
        victim = max(held, key=lambda job: held[job])
        name = self._name_of(victim)
        self.cluster.signal(name, number)
        if number is not signal.SIGSTOP:
            self._until_moved(scenario, victim)
            self.cluster.restart(name)
        else:
            began = time.monotonic()
            self._until_moved(scenario, victim)
            time.sleep(max(began + FROZEN_SECONDS - time.monotonic(), 0))
            self.cluster.signal(name, signal.SIGCONT)
            time.sleep(5)  # it finds out that its triggers are gone
        if any(not each.waits for each in self.instances(scenario)):
            self._doubts[scenario.name].append("not all went on waiting")
        self._simulators[scenario.name].advance(FOREVER)

    def _until_moved(self, scenario: Scenario, victim: int) -> None:
        expected = sum(self.cluster.waits_in(scenario.name).values())
        ends = time.monotonic() + 60
        while True:
            held = self.cluster.waits_in(scenario.name)
            if victim not in held and sum(held.values()) >= expected:
                return
            if time.monotonic() > ends:
                raise DeploymentError(f"the triggers of {victim} are not taken over: {held}")
            time.sleep(0.5)

    def _name_of(self, job: int) -> str:
        """Which component runs the triggerer job of this id: their heartbeats stop when they are frozen."""
        # A job does not say which process it is, so one of the two is frozen until its heartbeats tell.
        query = "select latest_heartbeat from job where id = :job"
        self.cluster.signal(TRIGGERERS[0], signal.SIGSTOP)
        try:
            [[first]] = self.cluster.rows(query, job=job)
            time.sleep(TAKEOVER - 2)
            [[second]] = self.cluster.rows(query, job=job)
        finally:
            self.cluster.signal(TRIGGERERS[0], signal.SIGCONT)
        return TRIGGERERS[0] if first == second else TRIGGERERS[1]

    def _shake_server(self, scenario: Scenario, what: str) -> None:
        """It is gone for some seconds, in which all tasks end at the provider; then it is there again."""
        self.until(scenario, lambda each: each.waits, "wait")
        if what == "api-server":
            self.cluster.signal(what, signal.SIGKILL)
        else:
            getattr(self.cluster, what).stop()
        self._simulators[scenario.name].advance(FOREVER)
        time.sleep(5)
        if what == "api-server":
            self.cluster.restart(what)
        else:
            getattr(self.cluster, what).start()


ACTS: dict[str, Callable[[Rig, Scenario], None]] = {
    **dict.fromkeys(OUTAGES, Rig._polling_fails),
    "deferral_timeout": Rig._wait_ends,
    "slow_provider": Rig._wait_ends,
    "refuses_concurrency": Rig._has_no_room,
    "user_fails": Rig._user_fails,
    "user_clears_deferred": Rig._user_clears_deferred,
    "user_clears_success": Rig._user_clears_success,
    "user_clears_mapped": Rig._user_clears_mapped,
    "batch_cleared_waiting": Rig._user_clears_deferred,
    "batch_cleared_half": Rig._user_clears_deferred,
    "batch_cleared_success": Rig._user_clears_success,
    "person_adopts": Rig._person_answers,
    "person_resubmits": Rig._person_answers,
    "batch_person_adopts": Rig._person_answers_meanwhile,
    "batch_person_resubmits": Rig._person_answers_meanwhile,
    "zombie": Rig._zombie_wakes,
}
SHAKES: dict[str, Callable[[Rig, Scenario], None]] = {
    "triggerer_sigkill": lambda rig, scenario: rig._shake_triggerer(scenario, signal.SIGKILL),
    "triggerer_sigterm": lambda rig, scenario: rig._shake_triggerer(scenario, signal.SIGTERM),
    "triggerer_sigstop": lambda rig, scenario: rig._shake_triggerer(scenario, signal.SIGSTOP),
    "postgres_restart": lambda rig, scenario: rig._shake_server(scenario, "postgres"),
    "redis_restart": lambda rig, scenario: rig._shake_server(scenario, "redis"),
    "api_server_restart": lambda rig, scenario: rig._shake_server(scenario, "api-server"),
}
BEFORE: dict[str, Callable[[Simulator], None]] = {
    "kill_during_post": lambda simulator: simulator.fault("hang", on="submit", delay=8),
    "refuses_concurrency": lambda simulator: simulator.fault("concurrency", on="submit"),
}
