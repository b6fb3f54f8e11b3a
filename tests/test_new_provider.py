"""What it takes to add a provider: one class and one entry, in a package of its own, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk._shared import module_loading
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.operators import GenerateImageOperator, MediaTaskOperator
from airflow_media_tasks.sensors import MediaTaskSensor
from airflow_media_tasks.task import MediaFundsError, MediaRequestError
from airflow_media_tasks.triggers import MediaTaskTrigger


PROVIDER = """
from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.wire.conversations import Request
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.task import MediaFile, MediaTask, TaskStatus


class ToyHook(MediaHook):
    conn_type, default_conn_name, hook_name = "toy", "toy_default", "Toy"
    base_url = "https://toy.example"
    id_form = "toy-<number>"
    has_balance = False
    operations = {"text_to_image": Operation("image", "/toys", ("prompt",), rename={"prompt": "wish"})}

    def _submit(self, name, operation, arguments, client_ref):
        reply = yield Request("POST", operation.path, json=operation.body(arguments), paid=True)
        return MediaTask(reply.document["id"], TaskStatus.QUEUED, name)

    def _get_task(self, media_task_id):
        reply = yield Request("GET", f"/toys/{media_task_id}")
        word = reply.document["state"]
        files = [MediaFile("image", url) for url in reply.document["urls"]]
        return self.media_task(media_task_id, self.status_of(word, media_task_id), word, files=files)

    def _probe(self):
        yield Request("GET", "/toys")


def get_provider_info():
    toy = {"connection-type": "toy", "hook-class-name": "toy_provider.ToyHook", "hook-name": "Toy"}
    about = {"package-name": "airflow-toy", "name": "Toy", "description": "Makes toys."}
    return {**about, "connection-types": [toy]}
"""


class Workshop:
    """The toy provider's server: a toy is done when it has been asked for three times."""

    def __init__(self) -> None:
        self.wishes: list[dict[str, Any]] = []
        self.asked: dict[str, int] = {}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """POST /toys, GET /toys/ID, GET /toys."""
        reply: Any = []
        status = 200
        if method == "POST":
            wish = json.loads(body)
            if wish["wish"] == "gold":
                status, reply = 402, {"error": "no money"}
            else:
                self.wishes.append(wish)
                reply = {"id": f"toy-{len(self.wishes)}"}
        elif found := re.fullmatch(r"/toys/(toy-\d+)", path):
            self.asked[found[1]] = self.asked.get(found[1], 0) + 1
            done = self.asked[found[1]] >= 3
            urls = [f"https://toy.example/{found[1]}.png"] if done else []
            reply = {"state": "done" if done else "processing", "urls": urls}
        return status, {"Content-Type": "application/json"}, json.dumps(reply).encode()


@pytest.fixture
def workshop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str], connect: Callable[..., str]
) -> Iterator[Workshop]:
    """The toy provider, installed as a package with an entry point, its server and a connection to it."""
    (tmp_path / "toy_provider.py").write_text(PROVIDER)
    installed = tmp_path / "airflow_toy-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: airflow-toy\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[apache_airflow_provider]\nprovider_info = toy_provider:get_provider_info\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    workshop = Workshop()
    connect("toy", host=serve(workshop.answer))

    def look_again() -> None:
        # Airflow looks for providers once in a process.
        module_loading._get_grouped_entry_points.cache_clear()
        ProvidersManagerTaskRuntime()._cleanup()

    look_again()
    yield workshop
    monkeypatch.undo()
    look_again()


def test_it_is_short() -> None:
    """A complete provider has less than forty lines."""
    assert len(PROVIDER.strip().splitlines()) < 40


def test_airflow_finds_its_hook(workshop: Workshop) -> None:
    """By the connection's type, as every other provider's, and its Test button works."""
    hook = get_media_hook("toy_default")
    assert type(hook).__name__ == "ToyHook"
    assert hook.test_connection()[0]


@pytest.mark.parametrize("deferrable", [True, False])
def test_it_runs_through_the_operator_and_the_trigger(
    workshop: Workshop, complete: Callable[[Any], Any], deferrable: bool
) -> None:
    """Checked, submitted once in the provider's own words, waited for, returned."""
    operator = MediaTaskOperator(
        task_id="t",
        operation="text_to_image",
        arguments={"prompt": "a ball", "colour": "red"},
        media_conn_id="toy_default",
        poll_interval=0.05,
        deferrable=deferrable,
    )
    result = complete(operator)
    assert workshop.wishes == [{"wish": "a ball", "colour": "red"}]
    assert (result["id"], result["status"], result["url"]) == (
        "toy-1",
        "succeeded",
        "https://toy.example/toy-1.png",
    )


async def test_it_runs_through_the_trigger_alone(workshop: Workshop) -> None:
    """A trigger needs the id and the connection."""
    task = await MediaTaskTrigger("toy-7", "toy_default", 0.05, 4e9).wait()
    assert task.url == "https://toy.example/toy-7.png"
    assert workshop.asked == {"toy-7": 3}


def test_it_runs_through_the_sensor(workshop: Workshop, complete: Callable[[Any], Any]) -> None:
    """A task that somebody else submitted, by its id."""
    sensor = MediaTaskSensor(
        task_id="t", media_task_id="toy-5", media_conn_id="toy_default", poll_interval=0.05
    )
    assert complete(sensor)["url"] == "https://toy.example/toy-5.png"
    assert workshop.wishes == []


def test_its_mistakes_are_typed(workshop: Workshop, complete: Callable[[Any], Any], context: Any) -> None:
    """Without a line of its own: by HTTP status, by the operation's declaration, by the id's form."""
    usual: dict[str, Any] = {"task_id": "t", "media_conn_id": "toy_default"}
    with pytest.raises(MediaFundsError, match="no money"):
        complete(MediaTaskOperator(operation="text_to_image", arguments={"prompt": "gold"}, **usual))
    with pytest.raises(MediaRequestError, match="needs 'prompt'"):
        complete(MediaTaskOperator(operation="text_to_image", **usual))
    with pytest.raises(MediaRequestError, match="there are: text_to_image"):
        complete(MediaTaskOperator(operation="text_to_video", arguments={"prompt": "x"}, **usual))
    with pytest.raises(MediaRequestError, match="toy-<number>"):
        complete(MediaTaskSensor(media_task_id="luma/x", **usual))
    assert workshop.wishes == []


def test_it_runs_in_a_dag(workshop: Workshop, run_dag: Callable[[DAG], Any]) -> None:
    """The operator's id feeds the sensor, in Airflow itself."""
    quick: dict[str, Any] = {"media_conn_id": "toy_default", "poll_interval": 0.05}
    with DAG("toys", schedule=None) as dag:
        ball = GenerateImageOperator(task_id="ball", prompt="a ball", **quick)
        MediaTaskSensor(task_id="again", media_task_id=ball.output["id"], **quick)
    run = run_dag(dag)
    assert set(run.tasks.values()) == {"success"}
    assert run.xcom("again")["url"] == run.xcom("ball")["url"] == "https://toy.example/toy-1.png"
    assert len(workshop.wishes) == 1
