"""Puts the examples into the documentation: `python scripts/docs.py`.

Where a page says `<!-- example_dags/some_file.py howto_name -->`, the lines between that file's START and END
markers of that name follow as a code block. A test holds the pages against the examples.
"""

from __future__ import annotations

import re
from pathlib import Path


ROOT = Path(__file__).parent.parent
_MARK = re.compile(
    r"(<!-- (?P<file>\S+\.py) (?P<name>howto_\w+) -->\n)(?:\n```python\n.*?\n```\n)?", re.DOTALL
)


def with_examples(page: str) -> str:
    """*page* with its examples as they are now. Raises ValueError for a marker that is not there."""
    return _MARK.sub(
        lambda mark: f"{mark[1]}\n```python\n{_example(mark['file'], mark['name'])}\n```\n", page
    )


def pages() -> list[Path]:
    """Every page of the documentation."""
    return sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def _example(file: str, name: str) -> str:
    text = (ROOT / file).read_text()
    match = re.search(rf"# \[START {name}\]\n(.*?)# \[END {name}\]", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{file} has no lines between START and END of {name}")
    return match[1].strip()


if __name__ == "__main__":
    for path in pages():
        path.write_text(with_examples(path.read_text()))
