"""A workflow of nodes as a request's document: read from JSON or a file, with values put into its nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_media_tasks.task import MediaRequestError, shown
from airflow_media_tasks.wire.documents import object_of


def workflow_of(operation: str, given: Any, values: Any) -> dict[str, Any]:
    """The workflow that was *given*, with *values*.

    :param operation: its name, for errors.
    :param given: an object of node to `{"class_type", "inputs"}`, its JSON, or the path of a file with that.
    :param values: `{"<node>.<input>": value}`, or its JSON, of inputs that the workflow has.
    :raises MediaRequestError: naming the argument that is none, and what is allowed.
    """
    graph = _read(operation, "workflow", given)
    nodes = list(graph.values()) if isinstance(graph, Mapping) else []
    if not nodes or not all({"class_type", "inputs"} <= set(object_of(node)) for node in nodes):
        raise MediaRequestError(
            f"argument 'workflow' of {operation!r} must be a workflow in the API's format (Export (API) in "
            "ComfyUI's menu): an object of nodes that each have class_type and inputs, or its JSON, or the "
            f"path of a file with it; got {shown(given)}"
        )
    filled = {name: {**node, "inputs": dict(object_of(node["inputs"]))} for name, node in graph.items()}
    values = _read(operation, "values", values)
    places = {f"{name}.{word}" for name, node in filled.items() for word in node["inputs"]}
    if not isinstance(values, Mapping) or not places >= set(values):
        raise MediaRequestError(
            f"argument 'values' of {operation!r} must be an object of '<node>.<input>' to value; got "
            f"{shown(values)}, and the workflow has {shown(sorted(places), 1000)}"
        )
    for place, value in values.items():
        name, _, word = place.partition(".")
        filled[name]["inputs"][word] = value
    return filled


def _read(operation: str, word: str, given: Any) -> Any:
    """The JSON in a text, or in the file that it names; what is no text stays."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given if given.lstrip().startswith("{") else Path(given).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise MediaRequestError(
            f"argument {word!r} of {operation!r} must be JSON or the path of a file with it, got "
            f"{shown(given)}: {error}"
        ) from None
