from __future__ import annotations

from pathlib import Path

import pytest

from airflow_media_tasks.gallery import roots


INSTANCE = {"dag_id": "films & more", "run_id": "manual__2026-01-01", "task_id": "video"}


@pytest.mark.parametrize(
    ("setting", "path", "inside"),
    [
        ("s3://conn@films/media", "s3://films/media/a.mp4", True),
        ("s3://conn@films/media", "s3://other@films/media/a.mp4", True),
        ("s3://conn@films/media/", "s3://films/media/x/y/a.mp4", True),
        ("s3://films", "s3://films/a.mp4", True),
        ("a, s3://films/x , file:///srv/media", "/srv/media/a.mp4", True),
        ("file:///srv/media", "file:///srv/media/a.mp4", True),
        ("/srv/media", "file:///srv/media//a.mp4", True),
        ("", "s3://films/media/a.mp4", False),
        ("s3://films/media", "s3://films/media-of-others/a.mp4", False),
        ("s3://films/media", "s3://films/med", False),
        ("s3://films/media", "s3://films-of-others/media/a.mp4", False),
        ("s3://films/media", "gs://films/media/a.mp4", False),
        ("s3://films/media", "s3://films/media/../secret/a.mp4", False),
        ("s3://films/media", "s3://films/media/./a.mp4", False),
        ("s3://films/media", "s3://films/media/a\0.mp4", False),
        ("s3://films/media", "s3://films@other/media/a.mp4", False),
        ("s3://films/media", "/films/media/a.mp4", False),
        ("s3://films/media", "simplecache::s3://films/media/a.mp4", False),
        ("file:///srv/media", "file:///srv/media/../x", False),
        ("file:///srv/media", "file:///srv/mediaother/x", False),
        ("file:///srv/media", "srv/media/x", False),
        ("media", "media/x", False),
        ("media", "/etc/hostname", False),
        ("s3://films/media", "", False),
    ],
)
def test_a_path_is_in_a_root_by_whole_segments(
    monkeypatch: pytest.MonkeyPatch, setting: str, path: str, inside: bool
) -> None:
    """The connection in a path counts for nothing; what leads out of a root, or is no path, is in none."""
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS", setting)
    assert (roots.root_of(path) is not None) is inside


def test_the_innermost_root_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one is in another, the connection is that of the inner one."""
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS", "s3://outer@films, s3://inner@films/media")
    inner, outer = roots.root_of("s3://films/media/a.mp4"), roots.root_of("s3://films/a.mp4")
    assert inner
    assert outer
    assert (inner[0].conn_id, outer[0].conn_id) == ("inner", "outer")


def test_a_root_that_is_no_place_is_said_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With what is allowed; the others count."""
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS", "media/here, s3://films")
    assert [root.text for root in roots.configured()] == ["s3://films"]
    assert "'media/here' is no place" in caplog.text
    assert "s3://my_conn@bucket/media" in caplog.text


def test_a_local_path_is_the_one_that_links_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root may be a link itself; one within it leads nowhere else."""
    real, outside = tmp_path / "disk/media", tmp_path / "outside"
    real.mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "media").symlink_to(real)
    (real / "out").symlink_to(outside)
    (real / "in").symlink_to(real)
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS", f"file://{tmp_path}/media")
    assert roots.local_path(f"file://{tmp_path}/media/a.mp4") == f"{real}/a.mp4"
    assert roots.local_path(f"{tmp_path}/media/in/a.mp4") == f"{real}/a.mp4"
    assert roots.local_path(f"{tmp_path}/media/out/a.mp4") is None
    assert roots.local_path(f"{outside}/a.mp4") is None
    assert roots.local_path("s3://films/a.mp4") is None


@pytest.mark.parametrize(
    ("paths", "line"),
    [
        (["file:///srv/media/a/manual__2026-01-01/x.mp4"], "file:///srv/media/a"),
        (["/srv/media/x.mp4", "/srv/media/b/x.mp4"], "file:///srv/media"),
        (["/srv/x.mp4", "/data/x.mp4"], "file:///data, file:///srv"),
        (["s3://conn@films/media/video/0-0.mp4", "s3://conn@films/media/x.png"], "s3://conn@films/media"),
        (["s3://films/a/x.png", "s3://films/b/x.png"], "s3://films/a, s3://films/b"),
        (["s3://films/x.png", "s3://films/b/x.png"], "s3://films"),
        (["s3://films/m/x.png", "gs://films/m/x.png"], "gs://films/m, s3://films/m"),
        (["/x.mp4"], None),
        (["relative/x.mp4", "s3://films/a,b/x.png", "s3://films/a\nfernet_key = x/y.png", "/a%(x)s/b"], None),
        (
            [f"s3://bucket{number}/m/x.png" for number in range(9)],
            ", ".join(f"s3://bucket{n}/m" for n in range(5)),
        ),
        ([], None),
    ],
)
def test_the_line_to_set_is_made_of_where_items_have_landed(paths: list[str], line: str | None) -> None:
    """What is above a task's own names, together where it is in one folder; an odd name is left out."""
    told = roots.setting_for([(path, INSTANCE) for path in paths])
    assert told == (None if line is None else f"gallery_roots = {line}")
    if line is not None:
        assert all(roots.Place.of(part) for part in line.split(","))
