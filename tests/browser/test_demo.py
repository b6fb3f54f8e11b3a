from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import httpx
import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from airflow_media_tasks.hooks.vap import VapHook
from airflow_media_tasks.simulator import Simulator
from demo import simulated_connections
from deployment import token_of

from .conftest import note_troubles


DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"
SECONDS = 30_000
DAG = "example_same_dag_any_provider"


@dataclass(frozen=True)
class Demo:
    """What `scripts/demo --keep` has left running, as it says it itself."""

    url: str
    passwords: dict[str, str]
    simulator: Simulator

    def client(self, user: str) -> httpx.Client:
        """A client of Airflow, logged in."""
        headers = {"Authorization": f"Bearer {token_of(self.url, user, self.passwords[user])}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo, kept; its simulator is ours, so that something can go wrong in it."""
    folder = tmp_path_factory.mktemp("demo")
    log = folder / "demo.log"
    with Simulator(seconds=2.0) as simulator, log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, DEMO, "--keep", "--output", folder / "media"],
            env={**os.environ, **simulated_connections(simulator.url)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            ends = time.monotonic() + 300
            while "Ctrl-C stops it." not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < ends, log.read_text()
                time.sleep(0.5)
            said = log.read_text()
            (url,) = re.findall(r"Airflow is at (\S+),", said)
            yield Demo(url, dict(re.findall(r"^  (\w+), password (\S+)$", said, re.MULTILINE)), simulator)
        finally:
            process.terminate()
            assert process.wait(60) == 143


@pytest.fixture
def enter(browser: Browser, demo: Demo) -> Iterator[Callable[[str], Page]]:
    """Logs in as a person does, and opens Media; nothing may complain, and no other host be asked."""
    troubles: list[str] = []
    pages = []

    def log_in(user: str) -> Page:
        page = browser.new_page(viewport={"width": 1360, "height": 900})
        pages.append(page)
        page.goto(demo.url)
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", demo.passwords[user])
        page.keyboard.press("Enter")
        media = page.get_by_role("link", name="Media").first
        media.wait_for(timeout=SECONDS)
        # From here on: Airflow's own pages ask for what they may not have before somebody has logged in.
        note_troubles(page, (demo.url, demo.simulator.url), troubles)
        media.click()
        return page

    yield log_in
    for page in pages:
        page.context.close()
    assert not troubles


@pytest.fixture
def api(demo: Demo) -> Iterator[httpx.Client]:
    """Airflow's API, as an admin."""
    with demo.client("admin") as client:
        yield client


def inside(page: Page) -> FrameLocator:
    """The gallery within Airflow's page."""
    return page.frame_locator("iframe")


def test_from_the_login_to_what_was_made(enter: Callable[[str], Page]) -> None:
    """Everything that the demo made is there; a filter leaves a provider's; a film plays; it has a page."""
    page = enter("viewer")
    cards = inside(page).locator(".card")
    expect(cards).to_have_count(24, timeout=SECONDS)
    inside(page).get_by_label("Provider").select_option("acedata")
    expect(cards).to_have_count(12)
    card = cards.filter(has=page.locator("video")).first
    video = card.locator("video")
    card.hover()
    page.wait_for_timeout(1500)
    muted, paused, at = video.evaluate("video => [video.muted, video.paused, video.currentTime]")
    assert (muted, paused) == (True, False)
    assert at > 0
    card.locator(".prompt a").click()
    expect(inside(page).locator(".detail video[controls]")).to_be_visible()
    expect(inside(page).locator(".detail")).to_contain_text("sha256", ignore_case=True)
    page.keyboard.press("Escape")
    expect(cards.first).to_be_visible()


def test_what_was_lost_is_adopted_from_the_candidates(
    enter: Callable[[str], Page], demo: Demo, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A viewer may look at the question and not answer it; an admin adopts, and nothing is paid again."""
    prompt = "A heron at dusk [sim:lose-reply*1]"

    def lost() -> list[str]:
        return [entry["id"] for entry in demo.simulator.ledger() if prompt in str(entry)]

    def wait_for(state: str) -> None:
        ends = time.monotonic() + 180
        while (now := api.get(place).raise_for_status().json()["state"]) != state:
            assert time.monotonic() < ends, f"{now}, not {state}"
            time.sleep(0.5)

    # The reply is lost, and before the task can look for what became of it somebody asks for the same.
    demo.simulator.fault("outage", provider="vap", on="read", status=503)
    api.patch(f"/api/v2/dags/{DAG}", json={"is_paused": False}).raise_for_status()
    wanted = {"media_conn_id": "vap_default", "prompt": prompt}
    begun = api.post(f"/api/v2/dags/{DAG}/dagRuns", json={"logical_date": None, "conf": wanted})
    run_id = begun.raise_for_status().json()["dag_run_id"]
    place = f"/api/v2/dags/{DAG}/dagRuns/{quote(run_id)}/taskInstances/video"
    ends = time.monotonic() + 60
    while not lost():
        assert time.monotonic() < ends, "nothing was submitted"
        time.sleep(0.2)
    for name, connection in simulated_connections(demo.simulator.url).items():
        monkeypatch.setenv(name, connection)
    VapHook("vap_default").submit("text_to_video", {"prompt": prompt})
    demo.simulator.clear_faults()
    wait_for("failed")
    ours, other = lost()
    paid = demo.simulator.ledger()

    query = urlencode({"dag_id": DAG, "run_id": run_id, "task_id": "video", "map_index": -1})
    path = f"{demo.url}/media-tasks/item?{query}"
    looks = enter("viewer")
    looks.goto(path)
    expect(looks.locator(".candidates li")).to_have_count(2, timeout=SECONDS)
    assert looks.get_by_role("button", name="Adopt").count() == 0
    named = {"dag_id": DAG, "run_id": run_id, "task_id": "video", "media_task_id": ours, "client_ref": "amt-"}
    with demo.client("viewer") as viewer:
        assert viewer.post("/media-tasks/api/adopt", json=named).status_code == 403

    acts = enter("admin")
    acts.goto(path)
    expect(acts.get_by_role("button", name=f"Adopt {other}")).to_be_visible(timeout=SECONDS)
    acts.get_by_role("button", name=f"Adopt {ours}").click()
    acts.get_by_role("button", name="Yes").click()
    expect(acts.get_by_text("was cleared and goes on").first).to_be_visible(timeout=SECONDS)
    wait_for("success")
    assert demo.simulator.ledger() == paid
