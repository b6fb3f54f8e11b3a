from __future__ import annotations

from pathlib import Path

import pytest

from .airflow import Airflow, mounted


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """Airflow's API with the gallery in it; no root is set."""
    return mounted(monkeypatch)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the setting names, and its text."""
    folder = tmp_path / "media"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS", f"file://{folder}")
    return folder
