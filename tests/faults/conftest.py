"""One run of all scenarios, and the table at its end."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from .cluster import WorkerLost
from .rig import Outcome, Rig
from .scenarios import SCENARIOS, cases


TABLE = pytest.StashKey[str]()
HEAD = ("fault", "provider", "tasks", "paid", "outcome")


@pytest.fixture(scope="session")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Mapping[str, Outcome | WorkerLost]:
    """What came of each case. `FAULTS` in the environment limits it to some scenarios, by name."""
    chosen = os.environ.get("FAULTS", "").split()
    scenarios = [each for each in SCENARIOS if each.runs_here and (each.name in chosen or not chosen)]
    home = tmp_path_factory.mktemp("faults")
    rig = Rig(home / "rig", scenarios)
    lost: dict[str, Outcome | WorkerLost] = {}
    try:
        rig.run()
    except WorkerLost as error:
        lost = {str(case): error for each in scenarios if each.loses_a_worker for case in cases(each)}
        rig = Rig(home / "no-worker-lost", [each for each in scenarios if not each.loses_a_worker])
        rig.run()
    request.config.stash[TABLE] = f"{table(rig)}\nalso in {home / 'table.txt'}"
    (home / "table.txt").write_text(table(rig) + "\n")
    return lost | rig.outcomes


def table(rig: Rig) -> str:
    """Fault, provider, single or mapped, paid, outcome; aligned."""
    rows = [
        (scenario.fault, case.provider, case.mode, str(outcome.paid), outcome.words)
        for scenario in rig.scenarios
        for case in cases(scenario)
        for outcome in [rig.outcomes[str(case)]]
    ]
    widths = [max(len(row[column]) for row in [HEAD, *rows]) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [HEAD, *rows]
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table below the tests' results."""
    if TABLE in config.stash:
        terminalreporter.section("what was paid")
        terminalreporter.write_line(config.stash[TABLE])
