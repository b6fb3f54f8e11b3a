"""Each row of the table: what a fault costs, and what comes of it. Run by `scripts/test --faults` alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from .cluster import WorkerLost
from .rig import Outcome
from .scenarios import SCENARIOS, Case, cases


CASES = [case for scenario in SCENARIOS for case in cases(scenario)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fault(case: Case, outcomes: Mapping[str, Outcome | WorkerLost]) -> None:
    """The provider's ledger has as many entries as promised, and every task ends as promised."""
    if not case.scenario.runs_here:
        pytest.skip("this Airflow has no task loops")
    if str(case) not in outcomes:
        pytest.skip("not among the chosen scenarios")
    scenario, number = case.scenario, case.scenario.modes_of(case.provider)[case.mode]
    outcome = outcomes[str(case)]
    if isinstance(outcome, WorkerLost):
        pytest.xfail(f"this Airflow's scheduler ends when a task has no heartbeat: {outcome}")

    assert (
        f"paid {outcome.paid}: {outcome.end}" == f"paid {number * scenario.paid}: {number} {scenario.outcome}"
    )
    least, most = scenario.tries
    assert least <= outcome.tries[0], "the fault was not met"
    assert outcome.tries[1] <= most, "more tries than the fault explains"
