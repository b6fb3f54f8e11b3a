from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Browser, Page, Route, expect

from .conftest import Stage
from .test_page import item_path


Open = Callable[..., Page]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SECONDS = 30_000


def test_the_grid_is_as_it_was_after_a_look_at_one(open_page: Open) -> None:
    """Back from an item, the same cards are there, at the same height; the one looked at has the focus."""
    page = open_page(viewport={"width": 700, "height": 500})
    expect(page.locator(".card").nth(3)).to_be_visible(timeout=SECONDS)
    link = page.locator(".card .prompt a").last
    link.scroll_into_view_if_needed()
    height, name = page.evaluate("scrollY"), link.text_content()
    assert height > 0
    link.press("Enter")
    expect(page.locator(".detail")).to_be_visible()
    assert page.evaluate("scrollY") == 0
    lists: list[str] = []
    page.on("request", lambda request: "api/totals" in request.url and lists.append(request.url))
    page.keyboard.press("Escape")
    expect(page.locator(".card").first).to_be_attached()
    assert page.evaluate("document.activeElement.textContent") == name
    assert abs(page.evaluate("scrollY") - height) < 100
    assert not lists


def test_light_and_dark_follow_the_shell(open_page: Open) -> None:
    """The page has the colours that Airflow around it has, and changes with it, without a reload."""
    page = open_page(path="/plugin/media", color_scheme="light")
    inside = page.frame_locator("iframe")
    expect(inside.locator(".card").first).to_be_visible(timeout=SECONDS)
    root = inside.locator("html")
    expect(root).to_have_attribute("data-theme", "light")
    page.emulate_media(color_scheme="dark")
    expect(root).to_have_attribute("data-theme", "dark")
    colour = "node => getComputedStyle(node).backgroundColor"
    assert root.evaluate(colour) == page.locator("html").evaluate(colour)


def test_what_the_clipboard_refuses_is_selected(open_page: Open) -> None:
    """Where a browser keeps the clipboard from a frame, the text is there, selected, to be copied by hand."""
    page = open_page()
    page.locator(".card", has_text="A lighthouse at dawn").locator(".prompt a").click(timeout=SECONDS)
    expect(page.locator(".detail")).to_be_visible()
    page.evaluate(
        """() => {
            navigator.clipboard.writeText = () => Promise.reject(new Error("refused"));
            document.execCommand = () => false;
        }"""
    )
    page.get_by_role("button", name="Copy prompt").click()
    field = page.get_by_label("Copy prompt: copy this text")
    expect(field).to_be_focused()
    assert page.evaluate("getSelection().toString()") == "A lighthouse at dawn"


def test_a_phone_has_its_filters_behind_a_button(open_page: Open) -> None:
    """On a small screen the media come first, and the filters when asked for."""
    page = open_page(**PHONE)
    expect(page.locator(".card").first).to_be_visible(timeout=SECONDS)
    expect(page.get_by_label("Status")).to_be_hidden()
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Status").select_option("unknown")
    expect(page.get_by_role("button", name="Filters (1)")).to_be_visible()
    expect(page.locator(".card .chip.succeeded")).to_have_count(0)
    assert "status=unknown" in page.url


def test_an_error_of_the_server_is_said_in_words(browser: Browser, stage: Stage) -> None:
    """What the server says is shown, with a button that tries again."""
    context = browser.new_context()
    context.add_cookies([{"name": "_token", "value": stage.token("admin"), "url": stage.airflow.url}])
    page = context.new_page()
    refusal = {"status": 503, "json": {"detail": "The database is being moved."}}
    page.route("**/api/items*", lambda route: route.fulfill(**refusal))
    page.goto(f"{stage.gallery}/")
    expect(page.get_by_role("alert")).to_contain_text("The database is being moved.", timeout=SECONDS)
    page.unroute("**/api/items*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card").first).to_be_visible(timeout=SECONDS)
    context.close()


def test_what_is_new_appears_by_itself(open_page: Open, stage: Stage) -> None:
    """While something is under way, a result that comes meanwhile is shown, without a reload."""
    page = open_page()
    cards = page.locator(".card", has_text="The unannounced product")
    expect(cards).to_have_count(1, timeout=SECONDS)
    page.evaluate("window.here = true")
    run = stage.airflow.run("hidden")
    expect(cards).to_have_count(2, timeout=120_000)
    stage.airflow.wait("hidden", run, seconds=120)
    expect(cards.first.locator("img")).to_be_visible(timeout=SECONDS)
    assert page.evaluate("window.here")


def test_a_batch_shows_each_of_its_requests(open_page: Open) -> None:
    """How many succeeded, then each of them, its landed picture, and why the others failed."""
    page = open_page(path="/media-tasks/?kind=batch&dag_id=shown&task_id=batch")
    expect(page.locator(".card")).to_contain_text("2 of 3", timeout=SECONDS)
    page.locator(".card .prompt a").click()
    requests = page.locator(".detail .card")
    expect(requests).to_have_count(3)
    picture = requests.filter(has_text="A red kite").locator("img")
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth") > 0
    expect(requests.filter(has_text="MediaModerationError")).to_have_count(1)
    requests.filter(has_text="A blue kite").locator(".prompt a").click()
    expect(page.locator(".detail h2")).to_have_text("A blue kite")
    page.keyboard.press("Escape")
    expect(requests).to_have_count(3)


def test_a_running_batch_shows_how_far_it_is(open_page: Open, stage: Stage) -> None:
    """How many it has made, who makes them and what they have cost, without a reload; not that it waits."""
    page = open_page(path="/media-tasks/?kind=batch&dag_id=shown&task_id=climbing")
    card = page.locator(".card")
    expect(card).to_contain_text("1 of 2", timeout=4 * SECONDS)
    expect(card).to_contain_text("vap")
    expect(card).to_contain_text("USD")
    expect(card).not_to_contain_text("Waiting for its turn")
    page.goto(stage.airflow.url + item_path(stage, "climbing"))
    expect(page.locator(".detail")).to_contain_text("1 of 2", timeout=SECONDS)
    expect(page.locator(".detail")).to_contain_text("Results come when the batch ends")


def test_a_search_finds_the_requests_of_a_batch(open_page: Open) -> None:
    """Each with its picture and its own page, from which Escape leads back to what was found."""
    page = open_page()
    expect(page.locator(".card").first).to_be_visible(timeout=SECONDS)
    page.keyboard.press("/")
    page.keyboard.type("KITE")
    page.keyboard.press("Enter")
    cards = page.locator(".card")
    expect(cards).to_have_count(3, timeout=SECONDS)
    picture = cards.filter(has_text="A red kite").locator("img")
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth") > 0
    cards.filter(has_text="A blue kite").locator(".prompt a").click()
    expect(page.locator(".detail h2")).to_have_text("A blue kite")
    expect(page.locator(".count")).to_contain_text("of 3")
    page.keyboard.press("Escape")
    expect(cards).to_have_count(3)
    page.get_by_label("Kind").select_option("batch")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text("2 of 3")


def test_a_candidate_is_adopted_by_a_button_of_its_own(open_page: Open, stage: Stage) -> None:
    """What the account shows since then stands there; the one that is chosen is asked about, then adopted."""
    page = open_page("editor")
    candidates = [
        {"id": name, "status": "succeeded", "created_at": "2026-01-01T00:00:00+00:00", "prompt": "<b>a fox"}
        for name in ("first", "second")
    ]

    def with_candidates(route: Route) -> None:
        item = route.fetch().json()
        route.fulfill(json={**item, "candidates": candidates})

    asked: list[object] = []

    def adopted(route: Route) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(json={"ok": True})

    page.route("**/api/item?*", with_candidates)
    page.route("**/api/adopt", adopted)
    page.goto(stage.airflow.url + item_path(stage, "unknown"))
    expect(page.locator(".candidates li")).to_have_count(2, timeout=SECONDS)
    expect(page.locator(".candidates")).to_contain_text("<b>a fox")
    page.get_by_role("button", name="Adopt second").click()
    expect(page.get_by_role("button", name="Yes")).to_be_focused()
    page.get_by_role("button", name="No").click()
    assert not asked
    page.get_by_role("button", name="Adopt second").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_text("was cleared and goes on").first).to_be_visible()
    path = f"dags/shown/dagRuns/{stage.run_id}/taskInstances/unknown/state-store/media_task"
    reference = stage.airflow.request("GET", path)["value"]["client_ref"]
    assert asked == [{**stage.place("unknown"), "client_ref": reference, "media_task_id": "second"}]


def test_an_editor_submits_anew_what_nobody_knows_of(open_page: Open, stage: Stage) -> None:
    """After the warning that it may be paid twice, the task runs again, and is paid once more."""

    def paid() -> int:
        return len([entry for entry in stage.simulator.ledger() if "unknown.png" in str(entry)])

    before = paid()
    page = open_page("editor", path=item_path(stage, "unknown"))
    page.get_by_role("button", name="Submit anew").click(timeout=SECONDS)
    expect(page.get_by_text("a second time if the first one was accepted").first).to_be_visible()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_text("was cleared and goes on").first).to_be_visible(timeout=SECONDS)
    stage.wait_for("unknown", {"success"}, 120)
    assert paid() == before + 1


def test_what_cannot_be_shown_or_sent_says_so(open_page: Open) -> None:
    """A card whose result makes no sense, a file that nobody has checked, and the line that is to be set."""
    line = "gallery_roots = s3://my_conn@films/media"

    def changed(route: Route) -> None:
        page = route.fetch().json()
        page["setting"] = line
        for item in page["items"]:
            if item["task_id"] == "hostile":
                item.update(status="unreadable", unreadable="files: Input should be a valid list", files=[])
            if item["task_id"] == "film":
                item["files"][0]["checked"] = "not checked: 512 MiB"
        route.fulfill(json=page)

    page = open_page()
    page.route("**/api/items*", changed)
    page.reload()
    expect(page.locator(".roots pre")).to_have_text(f"[media_tasks]\n{line}", timeout=SECONDS)
    expect(page.locator(".card .chip.unreadable")).to_have_count(1)
    card = page.locator(".card", has=page.locator(".chip.unreadable"))
    expect(card).to_contain_text("files: Input should be a valid list")
    film = page.locator(".card", has_text="A paper boat on a stream")
    expect(film.get_by_text("not checked")).to_have_attribute("title", "not checked: 512 MiB")
