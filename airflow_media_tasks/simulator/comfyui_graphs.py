"""What ComfyUI makes of a graph: whether it runs, and what its nodes write."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from airflow_media_tasks.simulator.provider import audio, image, video
from airflow_media_tasks.simulator.world import Output, Refusal


# What a node writes, by its class; what it only previews is written, too, and is no result ([O]).
_WRITERS: Mapping[str, Callable[[], Output]] = {
    "SaveImage": image,
    "PreviewImage": lambda: image("preview"),
    "SaveVideo": video,
    "SaveAudioMP3": lambda: audio("mp3"),
}
MISSING = "missing.safetensors"


def is_canonical(value: Any) -> bool:
    """Whether it is a UUID in its canonical form."""
    try:
        return bool(str(uuid.UUID(value)) == value)
    except (ValueError, AttributeError, TypeError):
        return False


def error(kind: str, words: str, node_errors: Mapping[str, Any]) -> dict[str, Any]:
    """A refusal's body."""
    said = {"type": kind, "message": words, "details": "", "extra_info": {}}
    return {"error": said, "node_errors": node_errors}


def wrong(kind: str, words: str) -> NoReturn:
    """Refuses a submission."""
    raise Refusal("bad_request", words, code=kind)


def classes_of(nodes: Any) -> list[str]:
    """Of all nodes. Raises Refusal if one has none, or one that nobody has installed."""
    for name, node in nodes.items() if isinstance(nodes, dict) else [("#", None)]:
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            wrong("invalid_prompt", f"Cannot execute because node {name} has no class_type.")
        if node["class_type"].startswith("NoSuch"):
            wrong("invalid_prompt", f"Node '{node['class_type']}' not found.")
    return [node["class_type"] for node in nodes.values()]


def errors_in(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """What is wrong with which node, as the server tells it."""
    found = {}
    for name, node in nodes.items():
        kind, given = "", node.get("inputs", {})
        if given.get("ckpt_name") == MISSING:
            kind, details = "value_not_in_list", f"ckpt_name: '{MISSING}' not in ['v1-5.safetensors']"
        elif node["class_type"] in _WRITERS and not any(isinstance(one, list) for one in given.values()):
            kind, details = "required_input_missing", "images"
        if kind:
            told = {"type": kind, "message": kind.replace("_", " "), "details": details, "extra_info": {}}
            found[name] = {"errors": [told], "dependent_outputs": [], "class_type": node["class_type"]}
    return found


def outputs_of(nodes: Mapping[str, Any], errors: Mapping[str, Any]) -> tuple[Output, ...]:
    """What its nodes write, but for those with errors."""
    count = max(node.get("inputs", {}).get("batch_size", 1) for node in nodes.values()) if nodes else 1
    writers = [node["class_type"] for name, node in nodes.items() if name not in errors]
    makers = [_WRITERS[one] for one in writers if one in _WRITERS]
    return tuple(make() for make in makers for _ in range(count if make().kind == "image" else 1))
