"""Unmodified third-party clients against the simulator; run by hand, needs a package index.

    python tests/simulator/third_party.py [--folder DIR]

Makes virtual environments of its own (two, because mcp-veo and mcp-luma install modules of the same names),
calls the clients' own functions in them with nothing but a base URL and a key changed, and prints one line
for each. Exit code 0 if every client got its media.
"""
# ruff: noqa: PLC0415, S310, T201  # each client is there in one environment only; loopback; a command prints

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path


CLIENTS = {"vap-mcp": "one", "mcp-veo": "one", "acedatacloud": "one", "mcp-luma": "two"}


def main() -> int:
    """Make the environments, start the simulator, run every client in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the environments here for the next time")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory(prefix="sim-thirdparty-") as temporary:
        return run(folder or Path(temporary))


def run(folder: Path) -> int:
    """Run all clients from environments in *folder*; returns the exit code."""
    from airflow_media_tasks.simulator import Simulator

    pythons = {}
    for name in sorted(set(CLIENTS.values())):
        home = folder / name
        pythons[name] = home / "bin" / "python"
        if not pythons[name].exists():
            venv.create(home, with_pip=True)
            wanted = [client for client, place in CLIENTS.items() if place == name]
            install = [
                str(pythons[name]),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                *wanted,
            ]
            subprocess.run(install, check=True, capture_output=True)
    failed = False
    with Simulator(seconds=20.0) as simulator:
        environment = {
            "PATH": os.environ["PATH"],
            "SIMULATOR": simulator.url,
            "VAP_API_KEY": "vap_third_party",
            "VAP_API_BASE_URL": f"{simulator.url}/vap",
            "VAP_API_URL": f"{simulator.url}/vap/mcp",
            "ACEDATACLOUD_API_TOKEN": "ace-third-party",
            "ACEDATACLOUD_API_BASE_URL": f"{simulator.url}/acedata",
        }
        for client, place in CLIENTS.items():
            billed = len(simulator.ledger())
            done = subprocess.run(
                [str(pythons[place]), __file__, "--as", client],
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            failed = failed or done.returncode != 0
            outcome = done.stdout.strip() if done.returncode == 0 else f"FAILED\n{done.stdout}{done.stderr}"
            print(f"{client:<13} billed {len(simulator.ledger()) - billed}  {outcome}", flush=True)
    return 1 if failed else 0


def finish_tasks() -> None:
    """Move the simulator's clock past the end of every task."""
    request = urllib.request.Request(
        os.environ["SIMULATOR"] + "/_sim/clock",
        data=json.dumps({"advance": 30}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).read()


def fetched(url: str, starts_at: int, magic: bytes) -> str:
    """Download *url* and say what it is; raises AssertionError unless the file's magic number is right."""
    with urllib.request.urlopen(url) as reply:
        content = reply.read()
    assert content[starts_at:].startswith(magic), f"{url} does not begin like such a file: {content[:16]!r}"
    return f"{reply.headers['Content-Type']} {len(content)} bytes"


def mp4(url: str) -> str:
    """Download an MP4."""
    return fetched(url, 4, b"ftyp")


def png(url: str) -> str:
    """Download a PNG."""
    return fetched(url, 0, b"\x89PNG")


def mp3(url: str) -> str:
    """Download an MP3, which begins with its tag."""
    return fetched(url, 0, b"ID3")


def url_in(text: str, suffix: str) -> str:
    """The first URL of a file of this kind in a tool's answer."""
    found = re.search(rf"http\S+?\.{suffix}", text)
    assert found, f"no .{suffix} address in: {text}"
    return found[0]


def task_id_in(text: str) -> str:
    """The first UUID in a tool's answer."""
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
    assert found, f"no task id in: {text}"
    return found[0]


async def vap_mcp() -> str:
    """An image, a video and music by the handlers of the vendor's MCP server for VAP."""
    from vap_mcp import server

    image = task_id_in(await server.handle_generate_image({"prompt": "a red mug"}))
    video = task_id_in(await server.handle_generate_video({"prompt": "a red mug turns", "duration": 4}))
    music = task_id_in(await server.handle_generate_music({"prompt": "calm piano"}))
    waiting = await server.handle_get_task({"task_id": video})
    assert "Error" not in waiting, waiting
    assert "Video URL" not in waiting, waiting
    finish_tasks()
    image_file = png(url_in(await server.handle_get_task({"task_id": image}), "png"))
    video_file = mp4(url_in(await server.handle_get_task({"task_id": video}), "mp4"))
    music_file = mp3(url_in(await server.handle_get_task({"task_id": music}), "mp3"))
    balance = await server.handle_check_balance({})
    assert balance.startswith("Balance: $"), balance
    listed = await server.handle_list_tasks({"limit": 5})
    assert image in listed, listed
    assert video in listed, listed
    return f"image {image_file}; video {video_file}; music {music_file}; list and balance"


async def mcp_veo() -> str:
    """Text to video, image to video, 1080p and a batch by the tools of mcp-veo."""
    from tools import task_tools, video_tools

    first = task_id_in(await video_tools.veo_text_to_video(prompt="a red mug turns"))
    second = task_id_in(
        await video_tools.veo_image_to_video(prompt="it turns", image_urls=["https://example.com/mug.png"])
    )
    finish_tasks()
    answer = json.loads(await task_tools.veo_get_task(task_id=first))
    video = answer["response"]["data"][0]
    upscaled = task_id_in(await video_tools.veo_get_1080p(video_id=video["id"]))
    finish_tasks()
    batch = await task_tools.veo_get_tasks_batch(task_ids=[first, second, upscaled])
    assert len(re.findall(r"http\S+\.mp4", batch)) == 3, batch
    return f"video {mp4(video['video_url'])}; image to video, 1080p and a batch of 3"


async def mcp_luma() -> str:
    """Text to video, image to video and extend by the tools of mcp-luma."""
    from tools import task_tools, video_tools

    first = task_id_in(await video_tools.luma_generate_video(prompt="a red mug turns"))
    second = task_id_in(
        await video_tools.luma_generate_video_from_image(
            prompt="it turns", start_image_url="https://example.com/mug.png"
        )
    )
    finish_tasks()
    video = json.loads(await task_tools.luma_get_task(task_id=first))["response"]
    third = task_id_in(await video_tools.luma_extend_video(video_id=video["video_id"], prompt="it stops"))
    finish_tasks()
    batch = await task_tools.luma_get_tasks_batch(task_ids=[first, second, third])
    assert len(re.findall(r'"video_url"', batch)) == 3, batch
    return f"video {mp4(video['video_url'])}; image to video, extend and a batch of 3"


async def acedatacloud() -> str:
    """Image and video by the vendor's SDK: task handles, and one submission that blocks until it is ready."""
    from acedatacloud import AceDataCloud

    base = os.environ["ACEDATACLOUD_API_BASE_URL"]
    with AceDataCloud(base_url=base, platform_base_url=base) as client:
        image = client.images.generate(prompt="a red mug", provider="nano-banana", async_=True)
        luma = client.luma.generate(prompt="a red mug turns")
        veo = client.veo.generate(action="text2video", prompt="a red mug turns", async_=True)
        assert not luma.is_completed()
        finish_tasks()
        image.wait(), luma.wait()
        state = client.tasks.get(veo["task_id"], service="veo")
        blocking = client.veo.generate(action="text2video", prompt="a red mug [sim:seconds=0.2]")
        applications = client.platform.applications.list()
    assert applications["items"][0]["remaining_amount"] > 0
    first, second = png(image.urls()[0]), mp4(luma.urls()[0])
    third, fourth = mp4(state["response"]["data"][0]["video_url"]), mp4(blocking["data"][0]["video_url"])
    return f"image {first}; luma {second}; veo {third}; blocking veo {fourth}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        by_name = {"vap-mcp": vap_mcp, "mcp-veo": mcp_veo, "mcp-luma": mcp_luma, "acedatacloud": acedatacloud}
        print(asyncio.run(by_name[sys.argv[2]]()))
    else:
        sys.exit(main())
