"""Tests of the documentation's promises that a machine can check."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import docs
from airflow_media_tasks.get_provider_info import get_provider_info
from airflow_media_tasks.simulator import Simulator


PAGES = {str(path.relative_to(docs.ROOT)): path for path in docs.pages()}


def blocks(name: str) -> list[str]:
    """The pieces of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", PAGES[name].read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_examples_are_the_example_dags(name: str) -> None:
    """What a page shows as an example is what the example DAG says, line for line."""
    text = PAGES[name].read_text()
    assert docs.with_examples(text) == text


def test_the_page_of_names_is_what_the_code_says() -> None:
    """`docs/reference.md` has every public name with the parameters, defaults and words that it has now."""
    assert docs.reference() == docs.REFERENCE.read_text()


@pytest.mark.parametrize("name", PAGES)
def test_what_is_quoted_has_its_imports(name: str) -> None:
    """Each name that is used in a piece of Python is imported or defined in it: it can be copied."""
    for block in blocks(name):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--quiet", "-"],
            input=block,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_page_of_hooks_says_what_is_so(
    sim: Simulator,
    connect: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What it shows runs as it stands, pays for one picture, and prints what its comments say."""
    connect("kling")
    monkeypatch.setattr(time, "sleep", sim.advance)
    for block in blocks("docs/hooks.md"):
        exec(compile(block, "docs/hooks.md", "exec"), {})  # noqa: S102  # our own page
    assert [entry["operation"] for entry in sim.ledger()] == ["text_to_image"]
    said = capsys.readouterr().out
    assert " units\n" in said
    assert f"\nimages/generations/{sim.ledger()[0]['id']}\n" in said
    assert f"{sim.url}/media/" in said
    assert "argument 'prompt' of 'text_to_image' must be a text that is not empty, got ''" in said


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """A relative link on a page names a file that exists."""
    page = PAGES[name]
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_connection_type_has_a_page() -> None:
    """Each provider's connection is described on a page of its own."""
    types = [entry["connection-type"] for entry in get_provider_info()["connection-types"]]
    assert [name for name in types if not Path(docs.ROOT, "docs", "connections", f"{name}.md").exists()] == []


@pytest.mark.parametrize("page", sorted(Path(docs.ROOT, "docs", "connections").glob("*.md")), ids=str)
def test_every_connection_page_says_how_to_test_it(page: Path) -> None:
    """Airflow has its Test button switched off; each page says so, and how to switch it on."""
    text = page.read_text()
    assert "off by default: set `[core] test_connection` to `Enabled`" in text
    assert "| Port (*port*) | optional | `0`" in text


def test_every_operation_is_on_its_connection_page() -> None:
    """No operation is missing from the page of its provider."""
    from airflow.sdk.module_loading import import_string  # noqa: PLC0415  # after conftest made AIRFLOW_HOME

    pages = Path(docs.ROOT, "docs", "connections")
    missing = [
        (entry["connection-type"], operation)
        for entry in get_provider_info()["connection-types"]
        for operation in import_string(entry["hook-class-name"]).operations
        if f"`{operation}`" not in (pages / f"{entry['connection-type']}.md").read_text()
    ]
    assert missing == []
