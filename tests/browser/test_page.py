from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from .conftest import PASSWORD, Stage


Open = Callable[..., Page]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SECONDS = 30_000


def item_path(stage: Stage, task_id: str) -> str:
    """The address of a task's detail view."""
    return f"/media-tasks/item?{urlencode(stage.place(task_id))}"


def test_from_login_to_a_film_that_plays(browser: Browser, stage: Stage) -> None:
    """A person logs in, finds Media in the navigation, and a film plays, silently, under the pointer."""
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.goto(stage.airflow.url)
    page.fill("input[name=username]", "reader")
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Media").first.click(timeout=SECONDS)
    gallery = page.frame_locator("iframe")
    card = gallery.locator(".card", has_text="A paper boat on a stream")
    video = card.locator("video")
    expect(card).to_be_visible(timeout=SECONDS)
    card.hover()
    page.wait_for_timeout(1500)
    played = video.evaluate("video => [video.muted, video.paused, video.currentTime]")
    assert played[:2] == [True, False]
    assert played[2] > 0
    card.get_by_role("link", name="A paper boat on a stream").click()
    expect(gallery.locator("video[controls]").first).to_be_visible()
    page.context.close()


def test_a_prompt_is_text_and_nothing_else(open_page: Open, stage: Stage) -> None:
    """Markup in a prompt is shown as written, in the grid and in the detail view; it makes no element."""
    page = open_page()
    card = page.locator(".card", has_text="<img src=x")
    expect(card).to_be_visible(timeout=SECONDS)
    page.goto(stage.airflow.url + item_path(stage, "hostile"))
    expect(page.get_by_text("<img src=x onerror=").first).to_be_visible()
    assert page.locator("img[src='x'], script:not([src])").count() == 0
    assert page.title() != "owned"


def test_filters_stand_in_the_address(open_page: Open) -> None:
    """What is chosen is shown, and is still chosen after a reload."""
    page = open_page()
    expect(page.locator(".card").first).to_be_visible(timeout=SECONDS)
    page.get_by_label("Kind").select_option("audio")
    expect(page.locator(".card")).to_have_count(1)
    assert "kind=audio" in page.url
    page.reload()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator(".card", has_text="Rain on a tin roof")).to_be_visible()
    expect(page.get_by_label("Kind")).to_have_value("audio")


def test_slash_arrows_and_escape(open_page: Open) -> None:
    """The keyboard reaches the search, the next and the previous item, and goes back."""
    page = open_page()
    expect(page.locator(".card").nth(3)).to_be_visible(timeout=SECONDS)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.evaluate("document.activeElement.blur()")
    page.locator(".card a").first.press("Enter")
    expect(page.locator(".detail")).to_be_visible()
    first = page.url
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda url: url != first)
    expect(page.locator(".detail")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(first)
    page.keyboard.press("Escape")
    expect(page.locator(".card").first).to_be_visible()


def test_what_was_refused_says_why_and_what_to_do(open_page: Open, stage: Stage) -> None:
    """The error's class, the provider's words, and advice."""
    page = open_page(path=item_path(stage, "refused"))
    expect(page.get_by_text("MediaModerationError").first).to_be_visible(timeout=SECONDS)
    expect(page.get_by_text("Change the prompt or the source")).to_be_visible()


def test_what_runs_shows_how_far_it_is(open_page: Open, stage: Stage) -> None:
    """A bar, and the time gone, of a task that the provider is still at."""
    page = open_page(path=item_path(stage, "slow"))
    expect(page.locator("progress")).to_be_visible(timeout=SECONDS)
    expect(page.get_by_text("A glacier, for a year").first).to_be_visible()


def test_a_reader_sees_one_dag_and_no_buttons(open_page: Open, stage: Stage) -> None:
    """Nothing of the DAG that this user may not read, and no action on the one that he may."""
    page = open_page("reader")
    expect(page.locator(".card", has_text="A lighthouse at dawn")).to_be_visible(timeout=SECONDS)
    assert "unannounced" not in page.content()
    page.goto(stage.airflow.url + item_path(stage, "unknown"))
    expect(page.locator(".ask").first).to_be_visible()
    assert page.get_by_role("button", name="Adopt").count() == 0
    assert page.get_by_role("button", name="Submit anew").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("shape", ["desktop", "phone"])
@pytest.mark.parametrize("view", ["grid", "item", "batch", "unknown", "nothing", "search", "download"])
def test_no_serious_barrier(open_page: Open, stage: Stage, view: str, shape: str, theme: str) -> None:
    """Axe finds nothing serious or critical, and nothing is wider than the screen."""
    path = {
        "grid": "/media-tasks/",
        "item": item_path(stage, "film"),
        "batch": item_path(stage, "batch"),
        "unknown": item_path(stage, "unknown"),
        "nothing": "/media-tasks/?q=nothing+has+this+prompt",
        "search": "/media-tasks/?q=kite",
        "download": item_path(stage, "land"),
    }[view]
    page = open_page(path=path, color_scheme=theme, **(PHONE if shape == "phone" else {}))
    seen = {"grid": ".card", "search": ".card", "nothing": ".empty"}.get(view, ".detail")
    page.locator(seen).first.wait_for(timeout=SECONDS)
    page.wait_for_timeout(500)
    # The policy of the page lets no script be put into it, so axe comes as the tools of a browser do.
    found = Axe().run(page).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    bad = [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in serious]
    assert not bad
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("place", ["run", "task", "mapped"])
def test_runs_and_tasks_have_a_tab(open_page: Open, stage: Stage, place: str) -> None:
    """Within Airflow's own pages the tab shows what this run, task or copy of a task has made; it fits."""
    run = f"/dags/shown/runs/{quote(stage.run_id)}"
    path, text = {
        "run": (f"{run}/plugin/media-run", "A paper boat on a stream"),
        "task": (f"{run}/tasks/film/plugin/media-task", "A paper boat on a stream"),
        "mapped": (f"{run}/tasks/pictures/mapped/1/plugin/media-task", "A harbour in the fog"),
    }[place]
    page = open_page(path=path)
    frame = page.frame_locator("iframe")
    expect(frame.get_by_text(text).first).to_be_visible(timeout=SECONDS)
    assert frame.locator("html").evaluate("it => it.scrollWidth <= it.clientWidth")


@pytest.mark.parametrize(
    ("task_id", "map_index", "shown"),
    [
        ("film", -1, "A paper boat on a stream"),
        ("pictures", 1, "A harbour in the fog"),
        ("land", -1, "sha256"),
    ],
)
def test_the_media_button_leads_to_the_tab(
    open_page: Open, stage: Stage, task_id: str, map_index: int, shown: str
) -> None:
    """It stays inside Airflow, at the task, and shows what it made or, of a download, what it landed."""
    path = f"dags/shown/dagRuns/{stage.run_id}/taskInstances/{task_id}/links"
    links = stage.airflow.request("GET", path, params={"map_index": map_index})["extra_links"]
    page = open_page(path=links["Media"].removeprefix(stage.airflow.url))
    frame = page.frame_locator("iframe")
    expect(frame.locator(".detail")).to_contain_text(shown, timeout=SECONDS)
    expect(frame.locator(".detail figure img, .detail figure video").first).to_be_visible()
    expect(page.get_by_role("link", name="Dags").first).to_be_visible()
    assert page.url.endswith("/plugin/media-task")


def test_what_nobody_knows_is_not_said_to_be_nothing(open_page: Open, stage: Stage) -> None:
    """A submission that may have been accepted may have been made, and paid."""
    page = open_page(path=item_path(stage, "unknown"))
    expect(page.locator(".detail")).to_contain_text("Nobody knows whether it was accepted", timeout=SECONDS)
    expect(page.locator(".detail")).not_to_contain_text("Nothing was made")


def test_a_link_leads_the_shell_to_the_task(open_page: Open, stage: Stage) -> None:
    """Airflow frames the page without letting it navigate; a link to a task works all the same."""
    page = open_page(path="/plugin/media")
    card = page.frame_locator("iframe").locator(".card", has_text="A paper boat on a stream")
    card.locator(".where a").click(timeout=SECONDS)
    page.wait_for_url("**/tasks/film**", timeout=SECONDS)


def test_an_editor_adopts_what_was_lost(open_page: Open, stage: Stage) -> None:
    """The task goes on with the provider's task that it became; nothing is paid again."""
    (lost,) = (entry for entry in stage.simulator.ledger() if "lost.png" in str(entry))
    paid = len(stage.simulator.ledger())
    page = open_page("editor", path=item_path(stage, "lost"))
    page.get_by_label("Another id to adopt").fill(lost["id"], timeout=SECONDS)
    page.get_by_role("button", name="Adopt this id").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_text("was cleared and goes on").first).to_be_visible(timeout=SECONDS)
    stage.wait_for("lost", {"success"}, 120)
    assert len(stage.simulator.ledger()) == paid
    page.reload()
    expect(page.locator(".chip.succeeded").first).to_be_visible(timeout=SECONDS)
