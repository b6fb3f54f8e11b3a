"""For users: `pytest_plugins = ["airflow_media_tasks.simulator.pytest_plugin"]` in a `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_media_tasks.simulator.simulator import Simulator


@pytest.fixture
def media_simulator() -> Iterator[Simulator]:
    """A running `Simulator` on a free port, fresh for each test."""
    with Simulator() as simulator:
        yield simulator
