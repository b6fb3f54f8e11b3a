"""A ComfyUI: a job goes one step further each time that it is looked for.

`stranger-NAME` anywhere in a graph says what becomes of it: see `OUTPUTS` and `MESSAGES`. Of the old one the
API of 2025 is there: no jobs, and any text as an id, which it runs as often as it gets it.
"""

from __future__ import annotations

import itertools
import re
import time
import uuid
from pathlib import PurePosixPath
from typing import Any

from .media import MADE, picture
from .stranger import Asked, Refused, Said, Stranger


CHECKPOINTS = ["stranger.safetensors", "other.safetensors"]
ENDS = ("SaveImage", "PreviewImage", "SaveVideo", "SaveAudio", "VHS_VideoCombine")
NODES = {
    *ENDS,
    *("CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode", "LoadImage"),
    *("LoraLoader", "CLIPLoader", "UNETLoader", "VAELoader", "VAEEncode", "ImageScale", "PrimitiveString"),
}
_KEPT = {"subfolder": "", "type": "output"}
_PREVIEW = {"filename": "ComfyUI_temp_aaaaa_00001_.png", "subfolder": "", "type": "temp"}

# What a job of stranger-NAME has made, by node.
OUTPUTS: dict[str, dict[str, Any]] = {
    "two": {"9": {"images": [{"filename": f"fox_0000{n}_.png", **_KEPT} for n in (1, 2)]}},
    "previews": {"8": {"images": [_PREVIEW]}, "9": {"images": [{"filename": "fox_00001_.png", **_KEPT}]}},
    "only_previews": {"8": {"images": [_PREVIEW]}},
    "folder": {"9": {"images": [{"filename": "a b_00001_.png", "subfolder": "day 1/x", "type": "output"}]}},
    "film": {"9": {"images": [{"filename": "fox_00001_.mp4", **_KEPT}], "animated": [True]}},
    "combined": {
        "9": {"gifs": [{"filename": "fox_00001.mp4", "format": "video/h264-mp4", "frame_rate": 8.0, **_KEPT}]}
    },
    "sound": {"9": {"audio": [{"filename": "fox_00001_.wav", **_KEPT}]}},
    "words": {"9": {"text": ["a fox"]}},
    "cached": {},
}
# How a job of stranger-NAME breaks off.
MESSAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "memory": (
        "execution_error",
        {
            "node_id": "3",
            "node_type": "KSampler",
            "exception_message": "Allocation on device 0 would exceed allowed memory.",
            "exception_type": "torch.OutOfMemoryError",
            "traceback": ['  File "/srv/comfy/execution.py", line 1, in execute\n'],
            "current_inputs": {"seed": ["7"]},
        },
    ),
    "interrupted": ("execution_interrupted", {"node_id": "3", "node_type": "KSampler", "executed": []}),
}


class Comfy(Stranger):
    """One's own ComfyUI.

    :param old: whether it is one of 2025.
    :param token: what the proxy before it wants as a bearer token; without one everybody may.
    """

    def __init__(self, *, old: bool = False, token: str = "") -> None:
        super().__init__()
        self.old, self.token = old, token
        self.jobs: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self._numbers = itertools.count(1)

    def restart(self) -> None:
        """Queue and history are in memory only."""
        self.jobs.clear()

    def answer(self, asked: Asked) -> Said:
        """See `Stranger`."""
        if self.token and asked.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "<html><center><h1>401 Authorization Required</h1></center></html>")
        segments = asked.segments
        if segments[:2] == ["api", "jobs"] and not self.old:
            return self.of_jobs(asked, segments[2:])
        segments = segments[1:] if segments[0] == "api" else segments
        said = self.read(asked, segments) if asked.method == "GET" else self.wrote(asked, segments)
        if said is None:
            raise Refused(404, "404: Not Found")
        return said

    def read(self, asked: Asked, segments: list[str]) -> Said | None:
        """What a GET gives."""
        body: Any = None
        match segments:
            case ["view"]:
                return self.view(asked.query)
            case ["history", id_]:
                body = {job["id"]: entry_of(job) for job in self.jobs if job["id"] == id_ and job["ended"]}
                self.step(id_)
            case ["history"]:
                body = {job["id"]: entry_of(job) for job in self.jobs if job["ended"]}
            case ["queue"]:
                waiting = [job for job in self.jobs if not job["ended"]]
                body = {
                    "queue_running": [asked_of(job) for job in waiting if job["started"]],
                    "queue_pending": [asked_of(job) for job in waiting if not job["started"]],
                }
            case ["prompt"]:
                body = {"exec_info": {"queue_remaining": sum(not job["ended"] for job in self.jobs)}}
            case ["system_stats"]:
                body = {"system": {"os": "posix", "comfyui_version": "0.3.60"}, "devices": []}
            case ["object_info", *names]:
                body = {name: about(name) for name in sorted(NODES) if not names or name in names}
        return None if body is None else (200, body, {})

    def wrote(self, asked: Asked, segments: list[str]) -> Said | None:
        """What a POST does."""
        match segments:
            case ["prompt"]:
                return self.submit(asked)
            case ["queue"]:
                gone = asked.body.get("delete", [])
                self.jobs = [job for job in self.jobs if job["id"] not in gone or job["started"]]
                return 200, b"", {}
            case ["interrupt"]:
                wanted = (asked.body or {}).get("prompt_id")
                for job in self.jobs:
                    if job["started"] and not job["ended"] and wanted in (None, job["id"]):
                        end(job, "interrupted")
                return 200, b"", {}
            case ["upload", "image"]:
                return self.upload(asked)
        return None

    def of_jobs(self, asked: Asked, segments: list[str]) -> Said:
        """The jobs of a new server."""
        match (asked.method, *segments):
            case ("GET",):
                jobs = [{k: v for k, v in job_of(job).items() if k != "outputs"} for job in self.jobs[::-1]]
                limit, offset = (
                    int(asked.query.get("limit", len(jobs) or 1)),
                    int(asked.query.get("offset", 0)),
                )
                page = {
                    "offset": offset,
                    "limit": limit,
                    "total": len(jobs),
                    "has_more": len(jobs) > offset + limit,
                }
                return 200, {"jobs": jobs[offset : offset + limit], "pagination": page}, {}
            case ("GET", id_):
                self.step(id_)
                return 200, job_of(self.known(id_)), {}
            case ("POST", id_, "cancel"):
                return 200, {"cancelled": self.cancel([id_])}, {}
            case ("POST", "cancel"):
                return 200, {"cancelled": self.cancel(asked.body["job_ids"])}, {}
        raise Refused(404, "404: Not Found")

    def known(self, id_: str) -> dict[str, Any]:
        """The job of this id."""
        for job in self.jobs:
            if job["id"] == id_:
                return job
        raise Refused(404, {"error": "Job not found"})

    def cancel(self, ids: list[str]) -> bool:
        """Stops those that have not ended; whether there was one."""
        found = [job for job in self.jobs if job["id"] in ids and not job["ended"]]
        for job in found:
            end(job, "interrupted")
        return bool(found)

    def submit(self, asked: Asked) -> Said:
        """A new job, unless the server has one of that id."""
        body = asked.body
        id_ = body.get("prompt_id")
        if id_ is None:
            id_ = str(uuid.uuid4())
        elif not self.old and not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(id_)):
            raise Refused(400, refusal("invalid_prompt_id", "prompt_id must be a UUID"))
        errors = errors_in(body.get("prompt"))
        if not self.old and any(job["id"] == id_ for job in self.jobs):
            raise Refused(409, {"error": "prompt_id already exists"})
        number = next(self._numbers)
        self.jobs.append(
            {
                "id": id_,
                "number": number,
                "graph": body["prompt"],
                "extra": {**body.get("extra_data", {}), "create_time": int(time.time() * 1000)},
                "word": asked.word,
                "started": False,
                "ended": "",
                "messages": [],
            }
        )
        reply = {"prompt_id": id_, "number": number, "node_errors": errors if asked.word == "partial" else {}}
        return 200, None if asked.word == "lost" else reply, {}

    def step(self, id_: str) -> None:
        """One step: waiting, at work, and what its word says."""
        for job in self.jobs:
            if job["id"] == id_ and not job["ended"]:
                if job["started"]:
                    end(job, job["word"])
                job["started"] = True

    def view(self, query: dict[str, str]) -> Said:
        """A file."""
        name = query.get("filename", "")
        if not name or "/" in name or ".." in name:
            return 400, b"", {}
        if query.get("type", "output") == "input":
            return (200, self.uploads[name], {}) if name in self.uploads else (404, b"", {})
        suffix = PurePosixPath(name).suffix
        kinds = {".png": "image/png", ".mp4": "video/mp4", ".wav": "audio/wav"}
        return (
            200,
            MADE.get(suffix, picture)(),
            {"Content-Type": kinds.get(suffix, "application/octet-stream")},
        )

    def upload(self, asked: Asked) -> Said:
        """A file for a graph; another one of the same name gets another name."""
        form = asked.form
        name, content = form["image"]
        stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
        for number in itertools.count(1):
            if self.uploads.get(name, content) == content or form.get("overwrite") == "true":
                break
            name = f"{stem} ({number}){suffix}"
        self.uploads[name] = content
        return (
            200,
            {"name": name, "subfolder": form.get("subfolder", ""), "type": form.get("type", "input")},
            {},
        )


def about(name: str) -> dict[str, Any]:
    """What a server says of a kind of node."""
    required = {"ckpt_name": [CHECKPOINTS, {}]} if name == "CheckpointLoaderSimple" else {}
    told = {"name": name, "display_name": name, "description": "", "category": "", "output": []}
    return {**told, "input": {"required": required}, "output_node": name in ENDS}


def end(job: dict[str, Any], word: str) -> None:
    """Ends a job as *word* says, or well."""
    job["started"] = True
    start = ["execution_start", {"prompt_id": job["id"], "timestamp": int(time.time() * 1000)}]
    kind, details = MESSAGES.get(word, ("execution_success", {}))
    job["messages"] = [start, [kind, {"prompt_id": job["id"], **details}]]
    job["ended"] = {"execution_success": "completed", "execution_error": "failed"}.get(kind, "cancelled")


def outputs_of(job: dict[str, Any]) -> dict[str, Any]:
    """What it has made."""
    usual = {"9": {"images": [{"filename": f"ComfyUI_{job['number']:05}_.png", **_KEPT}]}}
    return OUTPUTS.get(job["word"], usual) if job["ended"] == "completed" else {}


def asked_of(job: dict[str, Any]) -> list[Any]:
    """What was asked for, as queue and history tell it."""
    return [job["number"], job["id"], job["graph"], job["extra"], ["9"]]


def entry_of(job: dict[str, Any]) -> dict[str, Any]:
    """What the history has of a job."""
    good = job["ended"] == "completed"
    return {
        "prompt": asked_of(job),
        "outputs": outputs_of(job),
        "status": {
            "status_str": "success" if good else "error",
            "completed": good,
            "messages": job["messages"],
        },
        "meta": {},
    }


def job_of(job: dict[str, Any]) -> dict[str, Any]:
    """A job as a new server tells it."""
    document = {
        "id": job["id"],
        "status": job["ended"] or ("in_progress" if job["started"] else "pending"),
        "priority": job["number"],
        "create_time": job["extra"]["create_time"],
    }
    if job["ended"]:
        entry, outputs = entry_of(job), outputs_of(job)
        document |= {"outputs": outputs, "outputs_count": len(outputs), "execution_status": entry["status"]}
        document["workflow"] = {"prompt": job["graph"], "extra_data": job["extra"]}
    if job["ended"] == "failed":
        document["execution_error"] = job["messages"][-1][1]
    return document


def refusal(
    kind: str, message: str, details: str = "", node_errors: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What ComfyUI says of a graph that it does not take."""
    said = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return {"error": said, "node_errors": node_errors or {}}


def errors_in(graph: Any) -> dict[str, Any]:
    """The errors of nodes of a graph that runs all the same; refuses what does not."""
    if not isinstance(graph, dict) or not graph:
        raise Refused(400, refusal("no_prompt", "No prompt provided"))
    for id_, node in graph.items():
        if node.get("class_type") not in NODES:
            details = f"Node ID '#{id_}'"
            what = (
                f"node {node['class_type']} does not exist"
                if "class_type" in node
                else "it has no class_type"
            )
            message = f"Cannot execute: {what}"
            raise Refused(400, refusal("invalid_prompt", message, details))
    if not any(node["class_type"] in ENDS for node in graph.values()):
        raise Refused(400, refusal("prompt_no_outputs", "Prompt has no outputs"))
    errors = {
        id_: {
            "errors": [
                {
                    "type": "value_not_in_list",
                    "message": "Value not in list",
                    "details": f"ckpt_name: '{node['inputs'].get('ckpt_name')}' not in {CHECKPOINTS}",
                    "extra_info": {"input_name": "ckpt_name"},
                }
            ],
            "dependent_outputs": ["9"],
            "class_type": node["class_type"],
        }
        for id_, node in graph.items()
        if node["class_type"] == "CheckpointLoaderSimple"
        and node["inputs"].get("ckpt_name") not in CHECKPOINTS
    }
    partial = any("stranger-partial" in str(node) for node in graph.values())
    if errors and not partial:
        raise Refused(
            400, refusal("prompt_outputs_failed_validation", "Prompt outputs failed validation", "", errors)
        )
    return errors
