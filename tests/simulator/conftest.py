"""A plain HTTP client of each simulated provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


Connect = Callable[..., httpx.Client]


@pytest.fixture
def connect(media_simulator: Simulator) -> Iterator[Connect]:
    """Makes a client for a provider and a key."""
    with ExitStack() as open_clients:

        def client(provider: str, key: str = "key") -> httpx.Client:
            base = f"{media_simulator.url}/{provider}"
            scheme = "Key" if provider == "fal" else "Bearer"
            headers = {"Authorization": f"{scheme} {key}"} if key else {}
            return open_clients.enter_context(httpx.Client(base_url=base, headers=headers, timeout=10))

        yield client


@pytest.fixture
def vap(connect: Connect) -> httpx.Client:
    """A client of VAP."""
    return connect("vap")


@pytest.fixture
def acedata(connect: Connect) -> httpx.Client:
    """A client of AceData."""
    return connect("acedata")


@pytest.fixture
def kling(connect: Connect) -> httpx.Client:
    """A client of Kling."""
    return connect("kling")


@pytest.fixture
def fal(connect: Connect) -> httpx.Client:
    """A client of fal."""
    return connect("fal")


@pytest.fixture
def replicate(connect: Connect) -> httpx.Client:
    """A client of Replicate."""
    return connect("replicate")


@pytest.fixture
def runway(connect: Connect) -> httpx.Client:
    """A client of Runway, which says of which version it is."""
    client = connect("runway")
    client.headers["X-Runway-Version"] = "2024-11-06"
    return client


@pytest.fixture
def luma(connect: Connect) -> httpx.Client:
    """A client of Luma."""
    return connect("luma")


@pytest.fixture
def comfyui(connect: Connect) -> httpx.Client:
    """A client of a ComfyUI behind a proxy."""
    return connect("comfyui")


@pytest.fixture
def gemini(connect: Connect) -> httpx.Client:
    """A client of the Gemini API, with a key."""
    client = connect("google_media", "")
    client.headers["x-goog-api-key"] = "key"
    return client


@pytest.fixture
def vertex(connect: Connect) -> httpx.Client:
    """A client of Vertex and of Google's storage, with a token."""
    return connect("google_media")


@pytest.fixture
def openai_media(connect: Connect) -> httpx.Client:
    """A client of a server of OpenAI's shape."""
    return connect("openai_media")


@pytest.fixture
def control(media_simulator: Simulator) -> Iterator[httpx.Client]:
    """A client of the control endpoints."""
    with httpx.Client(base_url=f"{media_simulator.url}/_sim") as client:
        yield client


@pytest.fixture
def image_task(vap: httpx.Client) -> Callable[..., Any]:
    """Submits a VAP image with a prompt and returns the whole response."""

    def submit(prompt: str = "a red mug", **params: Any) -> httpx.Response:
        return vap.post("/v3/tasks", json={"type": "image", "params": {"description": prompt, **params}})

    return submit
