"""What Airflow reads of this package, and the shape of the house: who may import whom."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import airflow
import jsonschema
import pytest

import airflow_media_tasks
from airflow_media_tasks import task
from airflow_media_tasks.get_provider_info import get_provider_info
from airflow_media_tasks.hooks.base import MediaHook


PACKAGE = Path(airflow_media_tasks.__file__).parent
INFO = get_provider_info()
CONNECTION_TYPES = INFO["connection-types"]
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(module: Path) -> str:
    """A module's dotted name."""
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports_of(module: Path) -> set[str]:
    """The dotted name of every module, and of every name in one, that *module* imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def importers_of(name: str) -> set[str]:
    """The modules of the package that import *name* or something below it."""
    return {
        name_of(module)
        for module in MODULES
        if any(found == name or found.startswith(f"{name}.") for found in imports_of(module))
    }


# What Airflow reads.


def test_it_is_valid() -> None:
    """By the schema with which Airflow itself judges a provider."""
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)
    assert json.loads(json.dumps(INFO)) == INFO
    assert INFO["package-name"] == "airflow-media-tasks"


def test_airflow_finds_it() -> None:
    """The installed package has the entry point under which Airflow looks for providers."""
    (entry,) = (
        entry
        for entry in entry_points(group="apache_airflow_provider")
        if entry.value.startswith("airflow_media_tasks.")
    )
    assert entry.load()() == INFO


def test_each_call_gives_a_dict_of_its_own() -> None:
    """Airflow edits what it reads."""
    get_provider_info()["connection-types"].clear()
    assert get_provider_info() == INFO


@pytest.mark.parametrize("entry", CONNECTION_TYPES, ids=lambda entry: str(entry["connection-type"]))
def test_a_connection_type_names_its_hook(entry: dict[str, Any]) -> None:
    """The hook can be imported and agrees about its own name; its form hides what it does not use."""
    hook = resolve_name(entry["hook-class-name"])
    assert issubclass(hook, MediaHook)
    assert hook.conn_type == entry["connection-type"]
    assert hook.default_conn_name == f"{hook.conn_type}_default"
    assert hook.conn_name_attr == "media_conn_id"
    assert hook("somewhere").media_conn_id == "somewhere"
    assert hook(media_conn_id="somewhere").media_conn_id == "somewhere"
    assert hook().media_conn_id == hook.default_conn_name
    form = entry["ui-field-behaviour"]
    fields = {"description", "host", "port", "login", "password", "schema", "extra"}
    assert set(form["hidden-fields"]) <= fields
    assert not set(form["hidden-fields"]) & set(form["relabeling"])
    assert set(form["relabeling"]) | set(form["placeholders"]) <= fields
    assert "password" in form["relabeling"]
    assert hook.base_url == form["placeholders"]["host"]


@pytest.mark.parametrize("entry", CONNECTION_TYPES, ids=lambda entry: str(entry["connection-type"]))
def test_the_form_of_a_connection_fits_what_it_holds(entry: dict[str, Any]) -> None:
    """Prices are an object, which a field for text shows as [object Object]; a port can be given."""
    assert entry["conn-fields"]["prices"]["schema"] == {"type": ["object", "null"]}
    form = entry["ui-field-behaviour"]
    assert "port" not in form["hidden-fields"]
    assert form["placeholders"]["port"].startswith("0,")


def test_every_provider_is_listed() -> None:
    """A hook in `hooks/` without an entry here could not be used; this list is the registry."""
    listed = {entry["hook-class-name"] for entry in CONNECTION_TYPES}
    for path in (PACKAGE / "hooks").glob("*.py"):
        module = importlib.import_module(name_of(path))
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, MediaHook) and value is not MediaHook:
                assert f"{value.__module__}.{name}" in listed
    modules = {module for entry in INFO["hooks"] for module in entry["python-modules"]}
    assert modules == {path.rpartition(".")[0] for path in listed}


def test_everything_that_is_named_can_be_imported() -> None:
    """A wrong path would only be noticed by the one who opens that page."""
    for kind in ("operators", "sensors", "triggers", "hooks"):
        for entry in INFO[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)
    for path in INFO["extra-links"]:
        assert resolve_name(path)().name
    for path in INFO.get("cli", ()):
        assert resolve_name(path)()


def test_reading_it_imports_nothing() -> None:
    """Every Airflow process reads it, most of them never to use it: no Airflow, no HTTP library."""
    code = (
        "import sys; before = set(sys.modules); import airflow_media_tasks.get_provider_info as info; "
        "info.get_provider_info(); "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(answer.stdout.split())
    assert "airflow_media_tasks" in loaded
    assert loaded - set(sys.stdlib_module_names) == {"airflow_media_tasks"}


# The shape of the house.


def test_no_module_imports_a_providers_hook() -> None:
    """The connection's type names it; whoever needs another provider writes one file and one entry."""
    for entry in CONNECTION_TYPES:
        module = entry["hook-class-name"].rpartition(".")[0]
        assert importers_of(module) - {module} == set(), module


def test_nothing_imports_the_simulator() -> None:
    """It is for tests and demos, and independent, so that it can prove the hooks wrong."""
    inside = {name_of(module) for module in MODULES if "simulator" in module.parts}
    assert importers_of("airflow_media_tasks.simulator") <= inside
    for name in " ".join(FLOORS).split():
        assert name == "simulator" or not importers_of(f"airflow_media_tasks.{name}") & inside, name
    assert not importers_of("airflow") & inside


@pytest.mark.parametrize("library", ["httpx", "tenacity", "aiohttp"])
def test_http_is_in_few_places(library: str) -> None:
    """The day on which httpx is replaced is to be a small diff."""
    allowed = {
        "airflow_media_tasks.wire.conversations",
        "airflow_media_tasks.landing.downloads",
        "airflow_media_tasks.gallery.airflow_api",
    }
    outside = {name for name in importers_of(library) if ".simulator" not in name}
    assert outside <= allowed
    assert library in ("aiohttp", "tenacity") or outside == allowed


def test_values_know_neither_airflow_nor_a_provider() -> None:
    """`task.py` is what everything else stands on."""
    own = {found for found in imports_of(PACKAGE / "task.py") if found.partition(".")[0] != "__future__"}
    assert {found.partition(".")[0] for found in own} <= set(sys.stdlib_module_names)


FLOORS = (
    "operators",
    "cli gallery",
    "batch sensors",
    "deferring",
    "parameters",
    "triggers",
    "landing waiting retries trial",
    "submissions links doctor",
    "material",
    "hooks",
    "wire",
    "task get_provider_info simulator",
)
"""The rooms, files and folders, from the roof down: each imports only what stands below it."""


def room_of(name: str) -> str:
    """The room in which the module *name* is."""
    return [*name.split("."), ""][1]


def test_every_room_has_its_floor() -> None:
    """A new file or folder is given its place before anything is built on it."""
    assert {room_of(name_of(module)) for module in MODULES} - {""} == set(" ".join(FLOORS).split())


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_the_arrows_point_down(module: Path) -> None:
    """From operators to triggers, landing and submissions, from there to hooks, from there to task."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}
    own = room_of(name_of(module))
    for found in imports_of(module):
        room = room_of(found)
        if found.startswith("airflow_media_tasks.") and room in floor and room != own:
            assert floor[room] > floor.get(own, 0), found


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("submissions.records", ["submissions.submission", "submissions.answers", "hooks.base"]),
        ("submissions.answers", ["submissions.submission", "submissions.records", "hooks.base"]),
        ("submissions.metrics", ["submissions.submission", "hooks.base"]),
        ("landing.downloads", ["landing.provenance"]),
        ("landing.provenance", ["landing.downloads", "material.verification"]),
        ("wire.prices", ["wire.conversations"]),
        ("wire.conversations", ["wire.protocol", "wire.tables"]),
        ("wire.connections", ["wire.conversations"]),
        ("wire.replies", ["wire.conversations"]),
        ("wire.masking", ["wire.conversations"]),
        ("wire.operations", ["wire.conversations"]),
        ("wire.protocol", ["wire.finding"]),
    ],
)
def test_arrows_within_a_room(module: str, never: list[str]) -> None:
    """What is written down knows nothing of who writes it, and what reads a reply nothing of who asked."""
    assert resolve_name(f"airflow_media_tasks.{module}")
    for name in never:
        assert resolve_name(f"airflow_media_tasks.{name}")
        assert f"airflow_media_tasks.{module}" not in importers_of(f"airflow_media_tasks.{name}"), name


def test_no_file_is_too_long_to_keep_in_mind() -> None:
    """One of more than 600 lines is to be split."""
    long = {name_of(module) for module in MODULES if len(module.read_text().splitlines()) > 600}
    assert long == set()


# Names that stay.


@pytest.mark.parametrize(
    "path",
    [
        "hooks.vap.VapHook",
        "hooks.acedata.AceDataHook",
        "hooks.kling.KlingHook",
        "hooks.replicate.ReplicateHook",
        "hooks.runway.RunwayHook",
        "hooks.luma.LumaHook",
        "hooks.comfyui.ComfyUIHook",
        "hooks.google_media.GoogleMediaHook",
        "hooks.openai_media.OpenAIMediaHook",
        "triggers.MediaTaskTrigger",
        "sensors.MediaTaskSensor",
        "operators.MediaTaskOperator",
        "operators.GenerateImageOperator",
        "operators.GenerateVideoOperator",
        "operators.GenerateAudioOperator",
        "operators.DownloadMediaOperator",
        "retries.MediaRetryPolicy",
        "task.MediaTask",
        "task.MediaFile",
        "task.TaskStatus",
        "simulator.Simulator",
    ],
)
def test_a_public_name_is_where_it_was(path: str) -> None:
    """Users' DAGs import these."""
    assert inspect.isclass(resolve_name(f"airflow_media_tasks.{path}"))


def test_the_values_have_their_public_fields() -> None:
    """Users' DAGs read these out of XCom."""
    fields = {field.name for field in dataclasses.fields(task.MediaTask)}
    assert fields >= {"id", "operation", "status", "files", "error", "cost", "progress", "created_at", "raw"}
    fields = {field.name for field in dataclasses.fields(task.MediaFile)}
    assert fields >= {"kind", "url", "width", "height", "duration", "content_type", "expires_at"}
    assert [str(status) for status in task.TaskStatus] == [
        "queued",
        "running",
        "succeeded",
        "failed",
        "cancelled",
    ]
    assert [status.value for status in task.TaskStatus if status.is_terminal] == [
        "succeeded",
        "failed",
        "cancelled",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "MediaAuthError",
        "MediaFundsError",
        "MediaRateLimitError",
        "MediaConcurrencyError",
        "MediaModerationError",
        "MediaRequestError",
        "MediaNotFoundError",
        "MediaExpiredError",
        "MediaProviderError",
        "MediaTaskFailed",
        "MediaTaskTimeout",
        "SubmissionOutcomeUnknown",
    ],
)
def test_an_error_is_below_the_one_of_all(name: str) -> None:
    """And carries what the provider said of it."""
    error = getattr(task, name)("words", provider="p", code="c", retry_after=2.5)
    assert isinstance(error, task.MediaTaskError)
    assert (str(error), error.provider, error.code, error.retry_after) == ("words", "p", "c", 2.5)


@pytest.mark.parametrize("entry", CONNECTION_TYPES, ids=lambda entry: str(entry["connection-type"]))
@pytest.mark.parametrize(
    "name", ["submit", "get_task", "get_tasks", "find_tasks", "cancel_task", "get_balance"]
)
def test_every_method_has_an_awaitable_twin(entry: dict[str, Any], name: str) -> None:
    """With the same parameters, defaults and result; and no provider overrides one of the two alone."""
    hook = resolve_name(entry["hook-class-name"])
    plain, awaitable = getattr(hook, name), getattr(hook, f"a{name}")
    assert inspect.signature(plain) == inspect.signature(awaitable)
    assert not inspect.iscoroutinefunction(plain)
    assert inspect.iscoroutinefunction(awaitable)
    assert name not in vars(hook)
    assert f"a{name}" not in vars(hook)


@pytest.mark.parametrize("entry", CONNECTION_TYPES, ids=lambda entry: str(entry["connection-type"]))
def test_a_provider_says_what_it_can(entry: dict[str, Any]) -> None:
    """Operations by names of one vocabulary, and capabilities as data."""
    hook = resolve_name(entry["hook-class-name"])
    assert hook.operations
    for name, operation in hook.operations.items():
        assert name.replace("/", "_").isidentifier()
        assert name == name.lower()
        assert operation.kind in (("",) if name == "run" else ("image", "video", "audio"))
        assert operation.path.startswith("/")
    assert hook.batch_size >= 1
    assert isinstance(hook.can_cancel, bool)
    assert isinstance(hook.client_ref_is_queryable, bool)
