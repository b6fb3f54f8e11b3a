"""Make a video a day, and never for more than it may cost.

`max_cost` is compared with the price that the connection's table gives for the operation; `min_balance` with
what the account has. What would go beyond is not sent, and not paid.

Connection: `vap_default`, with a price table in its extra:

    {"prices": {"text_to_image": {"amount": "0.18", "unit": "USD"},
                "text_to_video": {"amount": "2.40", "unit": "USD"}}}

The amounts are examples; put your provider's there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_media_tasks.operators import GenerateImageOperator, GenerateVideoOperator


# [START howto_budget]
@dag(
    schedule=None,
    tags=["media"],
    doc_md=__doc__,
    default_args={
        "media_conn_id": "vap_default",
        "retries": 4,
        "retry_delay": timedelta(minutes=1),
        # In the account's own unit: the rest is kept for somebody else.
        "min_balance": "5",
    },
)
def example_budget() -> None:
    # In the unit of the price table, as a text: decimals are exact, floats are not.
    image = GenerateImageOperator(task_id="image", prompt="A kingfisher on a branch", max_cost="0.50")
    video = GenerateVideoOperator(task_id="video", prompt="A kingfisher dives", duration=4, max_cost="4")

    @task
    def report(*made: dict[str, Any]) -> dict[str, Any]:
        """Return what each of them has cost, as the provider says it and in money."""
        return {result["operation"]: result["cost"] for result in made}

    report(image.output, video.output)  # type: ignore[arg-type]  # Airflow resolves it


# [END howto_budget]


example_budget()
