"""Tests of the documentation's promises that a machine can check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import docs
from airflow_media_tasks.get_provider_info import get_provider_info


PAGES = {str(path.relative_to(docs.ROOT)): path for path in docs.pages()}


@pytest.mark.parametrize("name", PAGES)
def test_examples_are_the_example_dags(name: str) -> None:
    """What a page shows as an example is what the example DAG says, line for line."""
    text = PAGES[name].read_text()
    assert docs.with_examples(text) == text


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
