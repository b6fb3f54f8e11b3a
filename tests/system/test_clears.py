"""What a clear means, on a real Airflow: whatever it does to the task's state, nothing is paid for twice.

Airflow 3.4 discards the state of the task instances that are cleared, unless the clear says
`keep_task_state`; 3.3 always keeps it, and knows no such field. Counted in the simulator's ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment, DeploymentError


OPERATIONS = {"kling": "text_to_video", "acedata": "veo/text_to_video", "vap": "text_to_video"}
SINGLE = [f"single-{provider}" for provider in OPERATIONS]
WAITING = len(SINGLE) + 1 + 3 + 3 + 3 + 1  # task instances
BATCH, SOON = 5, 2  # requests, and how many of them end long before the others

Entry = dict[str, Any]


@dataclass(frozen=True)
class End:
    """What there is when runs have ended: what was paid for, and what their task instances returned."""

    ledger: list[Entry]
    results: dict[str, list[Any]]

    def paid(self, name: str) -> list[Entry]:
        """Return what was paid for in the run of this name: it is in every prompt."""
        return [entry for entry in self.ledger if name in json.dumps(entry["request"])]

    def made(self, name: str) -> list[str]:
        """Return the provider's ids of what the run of this name has handed on."""
        assert all(result["status"] == "succeeded" for result in self.results[name])
        return sorted(result["id"].rpartition("/")[2] for result in self.results[name])


@dataclass
class Story:
    """Runs of the DAGs in `dags/clears.py`, each by the name of what becomes of it.

    :param waited: after the tasks were cleared while they waited.
    :param again: after some were cleared once more, or made anew, when they had ended.
    """

    airflow: Deployment
    simulator: Simulator
    keep: bool
    dag_ids: dict[str, str] = field(default_factory=dict)
    waited: End = field(init=False)
    again: End = field(init=False)

    def run_id(self, name: str) -> str:
        """Return the id of the run of this name."""
        return f"{name}-{'kept' if self.keep else 'default'}"

    def start(self, name: str, dag_id: str, **conf: str) -> None:
        """Start a run."""
        self.airflow.run(dag_id, conf, run_id=self.run_id(name))
        self.dag_ids[name] = dag_id

    def clear(self, name: str, *tasks: str | tuple[str, int], dry: bool = False) -> None:
        """Clear these tasks of a run, as the UI does."""
        body = {"dry_run": dry, "dag_run_id": self.run_id(name), "task_ids": tasks, "only_failed": False}
        if self.keep:
            body["keep_task_state"] = True
        self.airflow.request("POST", f"dags/{self.dag_ids[name]}/clearTaskInstances", json=body)

    def end(self, *names: str) -> End:
        """Wait until these runs have succeeded, and return what there is then."""
        results = {}
        for name in names:
            dag_id, run_id = self.dag_ids[name], self.run_id(name)
            assert self.airflow.wait(dag_id, run_id, seconds=180) == "success", name
            results[name] = [
                self.airflow.xcom(dag_id, run_id, instance["task_id"], map_index=instance["map_index"])
                for instance in self.airflow.task_instances(dag_id, run_id)
            ]
        return End(self.simulator.ledger(), results)

    def batch_has(self, succeeded: int) -> bool:
        """Say whether so many requests of the batch have been settled."""
        path = f"dags/clears_batch/dagRuns/{self.run_id('batch')}/taskInstances/batch/state-store"
        value = self.airflow.request("GET", f"{path}/media_task.batch")["value"]
        return bool(value["succeeded"] == succeeded)


def ids(entries: list[Entry]) -> list[str]:
    """Return the provider's ids."""
    return sorted(str(entry["id"]) for entry in entries)


@pytest.fixture(scope="module", params=[False, True], ids=["default", "keep_task_state"])
def story(
    request: pytest.FixtureRequest,
    airflow: Deployment,
    simulator: Simulator,
    wait_until_deferred: Callable[[int], None],
) -> Story:
    """Everything waits, is cleared, ends; then some of it is cleared again."""
    simulator.reset()
    story = Story(airflow, simulator, request.param)
    story.start("code", "clears_code")
    try:
        story.clear("code", "code", dry=True)
    except DeploymentError as error:
        if "422" not in str(error) or "keep_task_state" not in str(error):
            raise
        pytest.skip("this Airflow knows no keep_task_state: its clears always keep it")

    for name, (provider, operation) in zip(SINGLE, OPERATIONS.items(), strict=True):
        story.start(name, "clears_single", media_conn_id=f"{provider}_default", operation=operation)
    story.start("deleted", "clears_single")
    story.start("whole", "clears_mapped")
    story.start("one-of-them", "clears_mapped")
    story.start("grouped", "clears_group")
    story.start("batch", "clears_batch")
    wait_until_deferred(WAITING)
    simulator.advance(150)
    for _ in airflow.ticks(60.0, 0.5):
        if story.batch_has(SOON):
            break
    wait_until_deferred(WAITING)

    for name in SINGLE:
        story.clear(name, "video")
    story.clear("whole", "video")
    story.clear("one-of-them", ("video", 1))
    story.clear("grouped", "film.video")
    story.clear("batch", "batch")
    wait_until_deferred(WAITING)
    simulator.advance(1000)
    story.waited = story.end(*story.dag_ids)

    story.clear("single-kling", "video")
    story.clear("batch", "batch")
    story.clear("code", "code")
    airflow.request("DELETE", f"dags/clears_single/dagRuns/{story.run_id('deleted')}")
    story.start("deleted", "clears_single")
    wait_until_deferred(2)
    simulator.advance(1000)
    story.again = story.end("single-kling", "deleted", "batch", "code")
    return story


@pytest.mark.parametrize("name", SINGLE)
def test_a_task_that_waits(story: Story, name: str) -> None:
    """Cleared while it waits, it is paid for once, and what was paid for is its result."""
    assert len(story.waited.paid(name)) == 1
    assert story.waited.made(name) == ids(story.waited.paid(name))


@pytest.mark.parametrize("name", ["whole", "one-of-them", "grouped"])
def test_mapped_tasks_that_wait(story: Story, name: str) -> None:
    """All of them cleared, or one of three, or those in a mapped group: each is paid for once."""
    assert len(story.waited.paid(name)) == 3
    assert story.waited.made(name) == ids(story.waited.paid(name))


def test_a_batch_that_is_half_done(story: Story) -> None:
    """What it had made is kept, what was under way is waited for: nothing is submitted anew."""
    assert len(story.waited.paid("batch")) == BATCH
    (manifest,) = story.waited.results["batch"]
    assert (manifest["total"], manifest["succeeded"]) == (BATCH, BATCH)


def test_a_batch_that_has_succeeded(story: Story) -> None:
    """It keeps all that it made, and pays for nothing."""
    assert ids(story.again.paid("batch")) == ids(story.waited.paid("batch"))
    (manifest,) = story.again.results["batch"]
    assert (manifest["total"], manifest["succeeded"]) == (BATCH, BATCH)


@pytest.mark.parametrize("name", ["single-kling", "deleted"])
def test_what_is_made_anew(story: Story, name: str) -> None:
    """A finished task that is cleared, or whose run is deleted and made again, makes one new video."""
    (first,) = ids(story.waited.paid(name))
    assert len(story.again.paid(name)) == 2
    assert story.again.made(name) == [one for one in ids(story.again.paid(name)) if one != first]


def test_code_of_a_user(story: Story) -> None:
    """A `@task` beside ours runs again when it is cleared."""
    assert (story.waited.results["code"], story.again.results["code"]) == ([1], [2])
