"""`scripts/demo`, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from airflow_media_tasks.simulator import Simulator


DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"
SIMULATED = ("AIRFLOW_CONN_VAP_DEFAULT", "AIRFLOW_CONN_ACEDATA_DEFAULT", "AIRFLOW_CONN_KLING_DEFAULT")


def run_demo(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder and return what it printed and how it ended."""
    kept = {name: value for name, value in os.environ.items() if name not in SIMULATED}
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_demo_prints_twelve_finished_products(tmp_path: Path) -> None:
    """It exits with 0, and its table has an image and a video of each product, with files that are there."""
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting at the provider" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if " succeeded " in line]
    videos = [row for row in rows if row[1:3] == ["acedata", "luma/image_to_video"]]
    images = [row for row in rows if row[1:3] == ["vap", "text_to_image"]]
    assert len({row[0] for row in videos}) == len({row[0] for row in images}) == 12
    for row in rows:
        assert (tmp_path / row[-2]).stat().st_size > 0
        assert re.fullmatch(r"[0-9a-f]{12}", row[-1])
    assert done.stdout.splitlines()[-1] == "example_product_videos: success; 24 files landed, 24 decode"


def test_demo_uses_a_given_connection_and_says_why_it_failed(
    tmp_path: Path, media_simulator: Simulator
) -> None:
    """A connection of the environment is used as it is: its key is refused, exit code and log say so."""
    fields = {"conn_type": "kling", "host": f"{media_simulator.url}/kling", "password": "sim-bad-key"}
    arguments = ("--dag", "example_kling_text_to_video", "--output", "elsewhere")
    done = run_demo(tmp_path, *arguments, AIRFLOW_CONN_KLING_DEFAULT=json.dumps(fields))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "video (video) failed; the end of its log:" in done.stdout
    assert "MediaAuthError" in done.stdout
    assert "example_kling_text_to_video: failed; 0 files landed" in done.stdout
    assert (tmp_path / "elsewhere").is_dir()
    assert media_simulator.ledger() == []
