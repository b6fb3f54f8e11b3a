"""Turn a table of products into images, and each image into a video.

Every product is one copy of a task group: VAP makes its image, Luma (hosted by AceData) sets that image in
motion, and each task lands its own file in storage before the URL expires. All products wait for their
providers at the same time, and none of them holds a worker slot while it waits.

Connections: `vap_default`, `acedata_default`. Files: `<MEDIA_OUTPUT>/products/<sku>.png` and `.mp4`.
"""

from __future__ import annotations

import csv
import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, task, task_group

from airflow_media_tasks.operators import GenerateImageOperator, GenerateVideoOperator


PRODUCTS = Path(__file__).with_name("products.csv")
# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")
SKU = "{{ ti.xcom_pull(task_ids='products')[ti.map_index]['sku'] }}"


# [START howto_product_videos]
@dag(schedule=None, tags=["media"], default_args=RETRIES, doc_md=__doc__)
def example_product_videos() -> None:
    @task
    def products() -> list[dict[str, str]]:
        """Read the table: what each product looks like, how it moves, and what its files are called."""
        with PRODUCTS.open(newline="") as table:
            rows = list(csv.DictReader(table))
        for row in rows:
            row.update(png=f"{OUTPUT}/products/{row['sku']}.png", mp4=f"{OUTPUT}/products/{row['sku']}.mp4")
        return rows

    # Airflow's UI then lists the copies by product instead of by number.
    @task_group(default_args={"map_index_template": SKU})
    def product(sku: str, name: str, scene: str, motion: str, png: str, mp4: str) -> None:
        image = GenerateImageOperator(
            task_id="image", media_conn_id="vap_default", prompt=scene, aspect_ratio="1:1", save_to=png
        )
        GenerateVideoOperator(
            task_id="video",
            media_conn_id="acedata_default",
            operation="luma/image_to_video",
            prompt=motion,
            image_url=image.output["url"],
            save_to=mp4,
        )

    product.expand_kwargs(products())


# [END howto_product_videos]


example_product_videos()
