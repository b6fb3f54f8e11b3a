from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import warnings

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


IMAGE = {"type": "image", "params": {"description": "a red mug"}}
KEY = {"Authorization": "Bearer key"}


def test_it_leaves_nothing_behind():
    """After stop there is no thread, no socket and no warning, even with a request still waiting."""
    before = threading.active_count()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        simulator = Simulator().start()
        client = httpx.Client(base_url=simulator.url, headers=KEY)
        client.get("/vap/v3/balance")
        simulator.fault("latency", delay=60)
        failures: list[Exception] = []

        def wait() -> None:
            try:
                client.get("/vap/v3/balance")
            except httpx.TransportError as error:
                failures.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        while simulator.requests()["GET /vap/v3/balance"] < 2:
            pass
        simulator.stop()
        waiting.join()
        client.close()
        gc.collect()
    assert len(failures) == 1
    assert threading.active_count() == before
    assert [str(one.message) for one in caught] == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{simulator.url}/vap/health")


def test_it_can_be_stopped_twice_and_started_again():
    """A stop when not running is harmless; a second start on the same port works, two at once do not."""
    simulator = Simulator()
    simulator.stop()
    with simulator:
        first = simulator.url
        httpx.post(f"{first}/vap/v3/tasks", json=IMAGE, headers=KEY)
        with pytest.raises(RuntimeError):
            simulator.start()
    assert len(simulator.ledger()) == 1
    with simulator:
        assert simulator.url == first
        assert httpx.get(f"{simulator.url}/vap/health").status_code == 200


def test_a_taken_port_is_an_error(media_simulator: Simulator):
    """Two simulators on one port: the second start raises OSError and leaves no thread."""
    before = threading.active_count()
    port = int(media_simulator.url.rpartition(":")[2])
    with pytest.raises(OSError, match=str(port)):
        Simulator(port=port).start()
    assert threading.active_count() == before


def test_many_clients_submit_at_once(media_simulator: Simulator):
    """Fifty submissions from eight threads are fifty ledger entries with fifty ids."""

    def submit(count: int) -> None:
        with httpx.Client(base_url=media_simulator.url, headers=KEY) as client:
            for _ in range(count):
                client.post("/vap/v3/tasks", json=IMAGE).raise_for_status()

    threads = [threading.Thread(target=submit, args=(count,)) for count in (6, 6, 6, 6, 6, 6, 7, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({entry["id"] for entry in media_simulator.ledger()}) == 50


def test_the_clock(media_simulator: Simulator):
    """The clock moves forward over HTTP and in Python, never back."""
    control = f"{media_simulator.url}/_sim/clock"
    assert httpx.post(control, json={"advance": 10}).json()["advanced"] == 10
    media_simulator.advance(5)
    assert httpx.post(control, json={"advance": 0}).json()["advanced"] == 15
    for bad in ({"advance": -1}, {"advance": "1"}, {}, [], {"advance": True}):
        assert httpx.post(control, json=bad).status_code == 400
    with pytest.raises(ValueError, match="back"):
        media_simulator.advance(-1)


def test_a_fault_in_python_is_checked(media_simulator: Simulator):
    """A malformed fault raises where it is set."""
    with pytest.raises(ValueError, match="kind"):
        media_simulator.fault("flood")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command(number):
    """The command prints its address and keys, serves, and stops with exit code 0 on a signal."""
    command = [sys.executable, "-m", "airflow_media_tasks.simulator", "--port", "0", "--seconds", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline()]
        while lines[-1] and not lines[-1].startswith("control"):
            lines.append(process.stdout.readline())
        try:
            url = lines[0].split()[1]
            task_id = httpx.post(f"{url}/vap/v3/tasks", json=IMAGE, headers=KEY).json()["task_id"]
            assert httpx.get(f"{url}/vap/v3/tasks/{task_id}", headers=KEY).json()["status"] == "completed"
        finally:
            process.send_signal(number)
            process.send_signal(signal.SIGTERM)  # as an impatient supervisor does
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    assert "sim-access-key" in "".join(lines)


def test_the_command_says_when_its_port_is_taken(media_simulator: Simulator):
    """A taken port is one line on stderr and exit code 1."""
    port = media_simulator.url.rpartition(":")[2]
    command = [sys.executable, "-m", "airflow_media_tasks.simulator", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("cannot listen: ")
    assert done.stderr.count("\n") == 1
