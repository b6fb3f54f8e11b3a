"""Puts the examples into the documentation, and writes its page of names: `python scripts/docs.py`.

Where a page says `<!-- example_dags/some_file.py howto_name -->`, the lines between that file's START and END
markers of that name follow as a code block, with the imports and constants that they need and with the call
that makes the DAG. `docs/reference.md` is made from docstrings and signatures. A test holds both against the
code.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path


ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference.md"
_MARK = re.compile(
    r"(<!-- (?P<file>\S+\.py) (?P<name>howto_\w+) -->\n)(?:\n```python\n.*?\n```\n)?", re.DOTALL
)

_PUBLIC = {
    "Operators and the sensor": {
        "operators": [
            "GenerateVideoOperator",
            "GenerateImageOperator",
            "GenerateAudioOperator",
            "MediaTaskOperator",
            "DownloadMediaOperator",
        ],
        "batch.operator": ["GenerateMediaBatchOperator"],
        "sensors": ["MediaTaskSensor"],
        "retries": ["MediaRetryPolicy"],
    },
    "Hooks": {"hooks.base": ["get_media_hook", "MediaHook"]},
    "Values": {"task": ["MediaTask", "MediaFile", "MediaCost", "MediaBalance", "TaskStatus"]},
    "Errors": {
        "task": [
            "MediaTaskError",
            "MediaAuthError",
            "MediaFundsError",
            "MediaModerationError",
            "MediaRequestError",
            "MediaRateLimitError",
            "MediaConcurrencyError",
            "MediaNotFoundError",
            "MediaExpiredError",
            "MediaProviderError",
            "MediaTaskFailed",
            "MediaTaskTimeout",
            "SubmissionOutcomeUnknown",
        ]
    },
    "For tests": {
        "simulator.simulator": ["Simulator"],
        "simulator.pytest_plugin": ["media_simulator"],
    },
}
"""What users import, by heading and module."""
_IMPORTED_FROM = {"batch.operator": "operators", "simulator.simulator": "simulator"}
"""Where it is imported from, if not from where it is written."""
_METHODS = {
    "MediaHook": [
        "submit",
        "get_task",
        "get_tasks",
        "find_tasks",
        "cancel_task",
        "get_balance",
        "test_connection",
    ],
    "Simulator": [
        "url",
        "fault",
        "clear_faults",
        "advance",
        "ledger",
        "requests",
        "received",
        "tasks",
        "reset",
    ],
}


def with_examples(page: str) -> str:
    """*page* with its examples as they are now. Raises ValueError for a marker that is not there."""
    return _MARK.sub(
        lambda mark: f"{mark[1]}\n```python\n{_example(mark['file'], mark['name'])}\n```\n", page
    )


def pages() -> list[Path]:
    """Every page of the documentation."""
    return sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def reference() -> str:
    """The page of names as the code has it now: what there is, from where, and with which parameters."""
    parts = [
        "# What there is, from where, with which parameters",
        "Made from the docstrings by `python scripts/docs.py`. Parameters are given by name.",
    ]
    for heading, modules in _PUBLIC.items():
        parts.append(f"## {heading}")
        for module, names in modules.items():
            source = ROOT / "airflow_media_tasks" / f"{module.replace('.', '/')}.py"
            found = {
                node.name: node
                for node in ast.parse(source.read_text()).body
                if isinstance(node, (ast.ClassDef, ast.FunctionDef))
            }
            for name in names:
                parts += _described(module, found[name])
    return "\n\n".join(parts) + "\n"


def _example(file: str, name: str) -> str:
    """The lines between the markers, after what they need, and before what comes at the end of the file."""
    text = (ROOT / file).read_text()
    match = re.search(rf"# \[START {name}\]\n(.*?)# \[END {name}\]", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{file} has no lines between START and END of {name}")
    first, last = (text.count("\n", 0, match.start(1)) + 1, text.count("\n", 0, match.end(1)) + 1)
    statements = ast.parse(text).body
    shown = [one for one in statements if first <= one.lineno <= last]
    calls = [one for one in statements if one.lineno > last]
    needed = _needed([one for one in statements if one.lineno < first], _names([*shown, *calls]))
    imports = [one for one in needed if isinstance(one, (ast.Import, ast.ImportFrom))]
    parts = [
        _import_block(text, imports),
        "\n".join(_source(text, one) for one in needed if one not in imports),
        match[1].strip(),
        "\n".join(_source(text, one) for one in calls),
    ]
    return "\n\n".join(part for part in parts if part)


def _needed(before: list[ast.stmt], names: set[str]) -> list[ast.stmt]:
    """Those of the statements *before* that give *names* a meaning, and what they need themselves."""
    needed: list[ast.stmt] = []
    for one in reversed(before):
        if isinstance(one, (ast.Import, ast.ImportFrom)):
            one.names = [alias for alias in one.names if (alias.asname or alias.name) in names]
            is_needed = bool(one.names)
        else:
            is_needed = bool(_bound(one) & names)
            if is_needed:
                names |= _names([one])
        if is_needed:
            needed.insert(0, one)
    return needed


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _names(statements: list[ast.stmt]) -> set[str]:
    return {node.id for one in statements for node in ast.walk(one) if isinstance(node, ast.Name)}


def _source(text: str, statement: ast.stmt) -> str:
    return ast.get_source_segment(text, statement) or ""


def _import_block(text: str, imports: list[ast.Import | ast.ImportFrom]) -> str:
    """In groups as they are written."""
    lines, block, last = text.splitlines(), "", 0
    for one in imports:
        block += "\n" if block and "" in lines[last : one.lineno - 1] else ""
        block += f"{ast.unparse(one)}\n"
        last = one.end_lineno or 0
    return block.strip()


def _described(module: str, node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    """Paragraphs of Markdown about a class or a function."""
    doc = _Docstring(ast.get_docstring(node) or "")
    yield f"### `{node.name}`"
    yield f"```python\nfrom airflow_media_tasks.{_IMPORTED_FROM.get(module, module)} import {node.name}\n```"
    yield from doc.paragraphs
    functions = [one for one in getattr(node, "body", ()) if isinstance(one, ast.FunctionDef)]
    init = next((one for one in functions if one.name == "__init__"), None)
    yield from doc.table(_defaults(node if isinstance(node, ast.FunctionDef) else init or node))
    for name in _METHODS.get(node.name, ()):
        method = next(one for one in functions if one.name == name)
        of_method = _Docstring(ast.get_docstring(method) or "")
        is_property = any(ast.unparse(one) == "property" for one in method.decorator_list)
        signature = "" if is_property else f"({', '.join(_arguments(method))})"
        yield f"#### `{name}{signature}`"
        yield from of_method.paragraphs
        yield from of_method.table(_defaults(method))


def _arguments(method: ast.FunctionDef) -> list[str]:
    """As in a signature, without their types."""
    defaults = _defaults(method)
    return [name if value is None else f"{name}={value}" for name, value in defaults.items()]


def _defaults(node: ast.AST) -> dict[str, str | None]:
    """What is taken by name, and the default of each, None where it has to be given."""
    if not isinstance(node, ast.FunctionDef):
        return {}
    plain = node.args.args
    missing: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults))
    pairs = [
        *zip(plain, [*missing, *node.args.defaults], strict=True),
        *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
    ]
    return {
        one.arg: None if default is None else ast.unparse(default)
        for one, default in pairs
        if one.arg != "self"
    }


class _Docstring:
    """A docstring in its parts: what it says, its parameters, and its errors."""

    def __init__(self, text: str) -> None:
        body, *fields = re.split(
            r"^:(?=(?:param|return|raises)\b)", inspect.cleandoc(text), flags=re.MULTILINE
        )
        self.paragraphs = [body.strip()]
        self.parameters: dict[str, str] = {}
        for field in fields:
            kind, _, said = field.partition(":")
            said = " ".join(said.split())
            word, _, name = kind.partition(" ")
            if word == "param":
                self.parameters[name] = said
            else:
                self.paragraphs.append(f"Raises `{name}`: {said}" if word == "raises" else f"Returns {said}")

    def table(self, defaults: Mapping[str, str | None]) -> list[str]:
        """The parameters, or a value's fields, in the docstring's order.

        :param defaults: of parameters; of a field nobody needs it.
        """
        if not self.parameters:
            return []
        rows = ["| parameter | default | |", "|---|---|---|"] if defaults else ["| field | |", "|---|---|"]
        for name, said in self.parameters.items():
            shown = f"`{name}`" if name != "kwargs" else "others"
            default = defaults.get(name)
            # A constant's name says nothing here; the text does.
            cells = [shown, "" if default is None or default.isupper() else f"`{default}`", said]
            rows.append(f"| {' | '.join(cells if defaults else [shown, said])} |")
        return ["\n".join(rows)]


if __name__ == "__main__":
    REFERENCE.write_text(reference())
    for path in pages():
        path.write_text(with_examples(path.read_text()))
