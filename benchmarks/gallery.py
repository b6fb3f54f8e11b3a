"""How quick the gallery is with many results: the first page, the next pages, a search, the totals.

    PYTHONPATH=scripts:tests/faults:benchmarks python benchmarks/gallery.py [--results 10000]

It needs the extras `browser` and `bench`.

A real Airflow, with PostgreSQL, makes one image with the simulator; its rows are then copied in the metadata
database (of this deployment alone), so that everything the page reads is as Airflow writes it. A browser
(Debian's chromium) measures what a person sees: seconds from the request for the page, or from reaching its
end, until the cards are there. Exit code 0 if the first page takes less than 1 s and each next one less than
0.3 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from sqlalchemy import create_engine, text

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment, token_of
from triggerer import postgres


FIRST_SECONDS, NEXT_SECONDS = 1.0, 0.3
PAGES = 12
CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DAG = """
from airflow.sdk import DAG
from airflow_media_tasks.operators import GenerateImageOperator

with DAG("many_pictures"):
    GenerateImageOperator.partial(
        task_id="picture", media_conn_id="vap_default", save_to="{output}/first.png", retries=2
    ).expand(prompt=["A lighthouse at dawn"])
"""
COPIED = ("task_instance", "xcom", "rendered_task_instance_fields")


def multiply(address: str, results: int) -> None:
    """Copy the rows of the one picture, each a minute older than the last, until there are *results*."""
    with create_engine(address).begin() as database:
        for table in COPIED:
            named = database.execute(
                text("SELECT column_name FROM information_schema.columns WHERE table_name = :name"),
                {"name": table},
            )
            taken = {name: f'"{name}"' for (name,) in named} | {"map_index": "n"}
            if table == "task_instance":
                taken |= {
                    "id": "gen_random_uuid()",
                    "start_date": "start_date - n * interval '1 minute'",
                    "end_date": "end_date - n * interval '1 minute'",
                }
            elif table == "xcom":
                taken["value"] = (
                    "CASE key WHEN 'return_value' THEN value || jsonb_build_object("
                    "'id', 'picture-' || n, 'arguments', jsonb_build_object('prompt', 'Picture number ' || n)"
                    ") ELSE value END"
                )
            elif table == "rendered_task_instance_fields":
                taken["rendered_fields"] = (
                    "(rendered_fields::jsonb || jsonb_build_object('prompt', 'Picture number ' || n))::json"
                )
            columns = ", ".join(f'"{name}"' for name in taken)
            copy = (
                f"INSERT INTO {table} ({columns}) SELECT {', '.join(taken.values())}"  # noqa: S608  # its own names
                f" FROM {table}, generate_series(1, :more) AS n WHERE task_id = 'picture' AND map_index = 0"
            )
            database.execute(text(copy), {"more": results - 1})
        # As autovacuum would do within a minute.
        for table in COPIED:
            database.execute(text(f"ANALYZE {table}"))


def log_in(page: Page, airflow: Deployment) -> None:
    """Give the browser the cookie that Airflow's login gives."""
    token = token_of(airflow.url, "admin", airflow.passwords["admin"])
    page.context.add_cookies([{"name": "_token", "value": token, "url": airflow.url}])


def cards_after(page: Page, count: int) -> float:
    """Wait until more than *count* cards are there; return how long that took, in seconds."""
    begin = time.perf_counter()
    page.locator(".card").nth(count).wait_for(state="attached", timeout=60_000)
    return time.perf_counter() - begin


def first_page(page: Page, url: str) -> float:
    """Open the page; return the seconds until its cards are there."""
    begin = time.perf_counter()
    page.goto(url, wait_until="commit")
    cards_after(page, 0)
    return time.perf_counter() - begin


def next_pages(page: Page) -> list[float]:
    """Go to the end of the page again and again; return the seconds each time until more cards are there."""
    taken = []
    for _ in range(PAGES):
        there = page.locator(".card").count()
        page.wait_for_timeout(700)  # a person looks at a page before going on
        there = page.locator(".card").count()
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        taken.append(cards_after(page, there))
    return taken


def measure(airflow: Deployment, results: int) -> dict[str, Any]:
    """What a browser sees, in seconds."""
    base = f"{airflow.url}/media-tasks/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1360, "height": 900})
        log_in(page, airflow)
        seen: dict[str, Any] = {"results": results, "first page, nothing cached": first_page(page, base)}
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        seen["of that, until the first paint"] = paint / 1000
        seen["first page, again"] = statistics.median(first_page(page, base) for _ in range(5))
        following = next_pages(page)
        seen["next page, median"], seen["next page, worst"] = statistics.median(following), max(following)
        seen["cards then"] = page.locator(".card").count()
        seen["search for the 5,000th"] = first_page(page, f"{base}?q=number+{min(5000, results - 1)}")
        totals = time.perf_counter()
        told = page.evaluate(f"fetch('{base}api/totals').then((reply) => reply.json())")
        seen["totals"], seen["totals counted"] = time.perf_counter() - totals, told["made"]
        browser.close()
    return seen


def main() -> int:
    """Make the results, measure, print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=10_000)
    results = parser.parse_args().results
    with (
        tempfile.TemporaryDirectory() as folder,
        Simulator(seconds=1.0) as simulator,
        ExitStack() as stack,
    ):
        dags = Path(folder) / "dags"
        dags.mkdir()
        (dags / "many_pictures.py").write_text(DAG.format(output=f"file://{folder}"))
        connection = {"conn_type": "vap", "host": f"{simulator.url}/vap", "password": "a-key"}
        address = stack.enter_context(postgres(Path(folder)))
        settings = {
            "AIRFLOW_CONN_VAP_DEFAULT": json.dumps(connection),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address,
        }
        with Deployment(dags, settings=settings) as airflow:
            state = airflow.wait("many_pictures", airflow.run("many_pictures"), seconds=120)
            if state != "success":
                print(f"the one picture that all others are copies of was not made: {state}", file=sys.stderr)
                return 1
            multiply(address, results)
            seen = measure(airflow, results)
    for name, value in seen.items():
        print(f"{name:30} {value:.3f} s" if isinstance(value, float) else f"{name:30} {value}")
    good = seen["first page, again"] < FIRST_SECONDS and seen["next page, worst"] < NEXT_SECONDS
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
