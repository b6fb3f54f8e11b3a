"""Who sends which metric, in a real Airflow: workers count, the triggerer says how many wait."""

from __future__ import annotations

from collections.abc import Callable

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment

from .conftest import Metrics


def test_metrics_of_a_film(
    airflow: Deployment, simulator: Simulator, metrics: Metrics, wait_until_deferred: Callable[[int], None]
) -> None:
    """Each metric arrives, with provider and operation as tags, and nobody waits in the end."""
    simulator.reset()
    metrics.lines.clear()
    run_id = airflow.run("example_kling_text_to_video")
    wait_until_deferred(1)
    simulator.advance(1000)
    assert airflow.wait("example_kling_text_to_video", run_id, seconds=180) == "success"

    def values(name: str) -> list[str]:
        before = f"airflow.media_tasks.{name},provider=kling,operation=text_to_video,"
        return [line.rpartition(":")[2] for line in metrics.lines if line.startswith(before)]

    for _ in airflow.ticks(30.0, 0.5):
        if values("waiting")[-1:] == ["0|g"]:
            break
    assert values("waiting")[0] == "1|g", metrics.lines
    assert values("waiting")[-1] == "0|g", metrics.lines
    assert values("submissions") == values("ended") == ["1|c"], metrics.lines
    assert len(values("duration")) == len(values("cost")) == len(values("landed_bytes")) == 1, metrics.lines
