"""A running simulator, and the vendors' own clients, each in an environment without this package."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_media_tasks.simulator import Simulator


HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".venv-clients"

Client = Callable[..., Any]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """The simulator; its tasks take half a second, and nobody moves its clock."""
    with Simulator(seconds=0.5) as simulator:
        yield simulator


@pytest.fixture
def client() -> Client:
    """Runs `with_NAME.py` in the environment of that client, made by `scripts/test --clients`.

    The fixture's value is called with NAME and the variables by which the client finds key and address;
    what the script writes to stdout, as JSON, is what it returns.
    """

    def run(name: str, **variables: str) -> Any:
        done = subprocess.run(
            [str(ENVIRONMENTS / name / "bin" / "python"), str(HERE / f"with_{name}.py")],
            env={"PATH": os.environ["PATH"], "NO_PROXY": "*", **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{name}'s client failed:\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    return run
