"""Make a batch of videos with Veo, one of which the provider's moderation refuses: the others survive.

Each prompt is one mapped task with its own state, log and retry. The refused one fails at once, because
asking again would be refused again; the last task runs when all the others have ended and lists what was
made.

Connection: `acedata_default`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from airflow_media_tasks.operators import GenerateVideoOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
PROMPTS = [
    "A lighthouse at dusk, waves below, slow aerial shot",
    "A hummingbird drinks from a red flower, macro, slow motion",
    # Between brackets is what the simulator reads: it accepts this prompt, and its moderation fails it later.
    "Something that no moderation lets pass [sim:fail=moderation]",
    "A tram climbs a steep street in the morning fog",
    "Bread dough rises in a bowl, time lapse",
]


# [START howto_veo_batch]
@dag(
    schedule=None,
    tags=["media"],
    default_args=RETRIES,
    doc_md=__doc__,
    params={"prompts": Param(PROMPTS, type="array", items={"type": "string"}, minItems=1)},
)
def example_veo_batch() -> None:
    @task
    def prompts(**context: Any) -> list[str]:
        """Return the prompts of this run."""
        return list(context["params"]["prompts"])

    videos = GenerateVideoOperator.partial(
        task_id="video",
        media_conn_id="acedata_default",
        operation="veo/text_to_video",
        aspect_ratio="16:9",
        map_index_template="{{ task.prompt }}",
    ).expand(prompt=prompts())

    @task(trigger_rule="all_done")
    def list_videos(made: Iterable[dict[str, Any]]) -> list[str]:
        """Return the URLs of the videos that were made; a failed task has left none."""
        return [video["url"] for video in made]

    list_videos(videos.output)  # type: ignore[arg-type]  # Airflow resolves it


# [END howto_veo_batch]


example_veo_batch()
