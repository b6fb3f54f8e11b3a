"""What ComfyUI's own command line does with the simulator; run in that client's own environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


SIMULATOR = os.environ["SIMULATOR_URL"]
HERE = Path(os.environ["HOME"])


class Forwarder(BaseHTTPRequestHandler):
    """The client knows a host and a port: what it asks there is asked below the simulator's path."""

    def forward(self) -> None:
        """One request and its reply."""
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        named = {name: self.headers[name] for name in ("Content-Type", "Accept") if name in self.headers}
        asked = Request(SIMULATOR + self.path, sent or None, named, method=self.command)  # noqa: S310  # loopback
        try:
            with urlopen(asked) as reply:  # noqa: S310  # loopback
                status, kind, content = reply.status, reply.headers.get("Content-Type"), reply.read()
        except HTTPError as error:
            status, kind, content = error.code, error.headers.get("Content-Type"), error.read()
        self.send_response(status)
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = forward  # noqa: N815  # the names that the server looks for

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


def graph(text: str, checkpoint: str) -> dict[str, Any]:
    """A picture by the nodes that every ComfyUI has."""
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 7,
                "steps": 20,
                "cfg": 8,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "rain", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "mug", "images": ["8", 0]}},
    }


def main() -> dict[str, Any]:
    """Runs workflows, waits, cancels and downloads, and tells what it saw."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forwarder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    def comfy(*words: str) -> dict[str, Any]:
        """What a command says, as the client's JSON."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("comfy")), "--json", *words],
            env={**os.environ, "COMFY_NO_WATCH": "1", "COMFY_LOCAL_URL": address},
            capture_output=True,
            text=True,
            check=False,
        )
        return dict(json.loads(done.stdout))

    def run(text: str, checkpoint: str = "v1-5-pruned-emaonly-fp16.safetensors") -> dict[str, Any]:
        """Submits a workflow."""
        path = HERE / "workflow.json"
        path.write_text(json.dumps(graph(text, checkpoint)))
        return comfy("run", "--workflow", str(path))

    queued = run("a red mug")
    id_ = queued["data"]["prompt_id"]
    waited = comfy("jobs", "wait", id_)
    fetched = comfy("download", id_, "--out-dir", str(HERE / "made"))
    slow = run("a mug [sim:queued=0] [sim:seconds=600]")["data"]["prompt_id"]
    cancelled = comfy("jobs", "cancel", slow)
    broken = run("a mug [sim:fail=provider]")["data"]["prompt_id"]
    picture = next((HERE / "made").rglob("*.png"))
    return {
        "version": version("comfy-cli"),
        "queued": queued,
        "waited": waited,
        "status": comfy("jobs", "status", id_),
        "fetched": fetched,
        "magic": picture.read_bytes()[:4].hex(),
        "cancelled": cancelled,
        "stopped": comfy("jobs", "status", slow),
        "broken": comfy("jobs", "wait", broken),
        "listed": comfy("jobs", "ls"),
        "refused": run("a mug", "missing.safetensors"),
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
