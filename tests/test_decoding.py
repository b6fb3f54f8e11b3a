"""The process in which hostile bytes are decoded."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from airflow_media_tasks.material import verification


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PNG = verification.MediaType("image/png", ".png", ("image",), "PNG")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A picture with nothing odd about it."""
    path = tmp_path / "good.png"
    Image.effect_noise((32, 32), 50).save(path)
    return path


def zeros(count: int) -> bytes:
    """As many, packed."""
    packer = zlib.compressobj(9)
    packed = [packer.compress(bytes(min(1 << 20, count - start))) for start in range(0, count, 1 << 20)]
    return b"".join([*packed, packer.flush()])


def huge_tile(path: Path, side: int = 24_000) -> None:
    """A TIFF of 100 x 100 px, in one tile of *side* x *side*."""
    raw = zeros(side * side)
    raw += bytes(len(raw) % 2)
    tags = [
        (256, 100),
        (257, 100),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, side),
        (323, side),
        (324, 8),
    ]
    tags.append((325, len(raw)))
    content = b"II*\0" + struct.pack("<I", 8 + len(raw)) + raw + struct.pack("<H", len(tags))
    path.write_bytes(
        content + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    )


def jpeg(side: int, scans: int) -> bytes:
    """A progressive one of three colours, all of it black, whose scans after the first add nothing."""
    parts = [b"\xff\xd8\xff\xdb", struct.pack(">HB", 67, 0), b"\1" * 64, b"\xff\xc2"]
    parts += [struct.pack(">HBHHB", 17, 8, side, side, 3), b"\1\x11\0\2\x11\0\3\x11\0"]
    parts += [b"\xff\xc4", struct.pack(">HB", 20, 0), b"\1" + bytes(15) + b"\0"]
    scan = b"\xff\xda" + struct.pack(">HB", 12, 3) + b"\1\0\2\0\3\0" + bytes(3)
    scan += bytes(((side + 7) // 8) ** 2 * 3 // 8 + 2)
    return b"".join([*parts, scan * scans, b"\xff\xd9"])


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def film_of_pictures(path: Path) -> None:
    """A MOV of two frames of 8,000 x 8,000 px, each a PNG."""
    side = 8_000
    head = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zeros((1 + 8 * side) * side)) + chunk(b"IEND", b"")
    with av.open(str(path), "w", format="mov") as film:
        stream = film.add_stream("png", rate=1)
        stream.width = stream.height = side
        stream.pix_fmt = "rgba64be"
        for number in range(2):
            packet = av.Packet(b"\x89PNG\r\n\x1a\n" + body)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
            packet.pts = packet.dts = number * 1000
            film.mux(packet)


def checked(decoder: verification.Decoder, path: Path, kind: str = "image") -> dict[str, Any]:
    """What it says of the file."""
    return decoder.check(path, verification.identify(path, kind, "", "it"), kind, "it")


def is_gone(pid: int, seconds: float = 10) -> bool:
    """Whether the process is, and is no zombie either."""
    until = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("a.tiff", "image", "needs more than 512 MiB"),
        ("a.jpg", "image", "may need more than 512 MiB"),
        ("a.mov", "video", "png is none of the codecs that are decoded"),
    ],
)
def test_a_small_file_that_would_be_large_lands_unchecked(
    name: str, kind: str, says: str, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a megabyte that would take gigabytes or half a minute takes nothing of the worker."""
    path = tmp_path / name
    if name == "a.jpg":
        path.write_bytes(jpeg(11_000, 1))
    else:
        {"a.tiff": huge_tile, "a.mov": film_of_pictures}[name](path)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    most = []
    with verification.Decoder() as decoder:
        end = decoder._end

        def ends() -> int | None:
            if decoder.pid is not None:
                lines = Path(f"/proc/{decoder.pid}/status").read_text().splitlines()
                most.extend(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
            return end()

        monkeypatch.setattr(decoder, "_end", ends)
        assert checked(decoder, path, kind)["checked"] == f"not checked: {says}"
        assert checked(decoder, good) == {"width": 32, "height": 32}
    assert time.monotonic() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    # What it had of the limit, and the libraries themselves.
    assert len(most) == 2
    assert max(most) < 600 * 1024


def test_the_process_has_nothing_of_the_workers(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment, where connections and keys may be, and no descriptor but its socket."""
    monkeypatch.setenv("AIRFLOW_CONN_VAP_DEFAULT", "vap://:key-12345678@")
    with good.open("rb") as file, verification.Decoder() as decoder:
        os.set_inheritable(file.fileno(), True)
        checked(decoder, good)
        process = Path(f"/proc/{decoder.pid}")
        assert process.joinpath("environ").read_bytes() == b""
        links = {link.name: str(link.readlink()) for link in process.joinpath("fd").iterdir()}
        assert links.pop("0").startswith("socket:")
        assert links == {"1": "/dev/null", "2": "/dev/null"}
        assert process.joinpath("cwd").readlink() == Path("/")
        limits = process.joinpath("limits").read_text()
        for name, most in (
            ("data size", 512 << 20),
            ("core file size", 0),
            ("file size", 0),
            ("open files", 32),
        ):
            (line,) = [line for line in limits.splitlines() if line.startswith(f"Max {name}")]
            assert line.split()[-3:-1] == [str(most), str(most)]


def test_one_process_serves_all_files_of_a_task(good: Path) -> None:
    """It starts at the first, and is gone at the end."""
    with verification.Decoder() as decoder:
        assert decoder.pid is None
        checked(decoder, good)
        pid = decoder.pid
        with ThreadPoolExecutor(8) as pool:
            found = [*pool.map(lambda _: checked(decoder, good), range(40))]
        assert found == [{"width": 32, "height": 32}] * 40
        assert decoder.pid == pid
    assert pid is not None
    assert is_gone(pid, 0)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSEGV, signal.SIGXCPU])
def test_a_process_that_broke_is_replaced(ending: signal.Signals, good: Path, tmp_path: Path) -> None:
    """The file at which it broke is not checked; the next one is."""
    with verification.Decoder() as decoder:
        checked(decoder, good)
        assert decoder.pid is not None
        broken = decoder.pid
        os.kill(broken, ending)
        says = checked(decoder, good)["checked"]
        assert says.startswith(
            "not checked: takes more than 20 s of CPU"
            if ending == signal.SIGXCPU
            else "not checked: the decoder broke"
        )
        assert is_gone(broken, 0)
        assert checked(decoder, good) == {"width": 32, "height": 32}
        assert decoder.pid != broken


def test_a_file_that_takes_long_is_given_up(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the CPU that it takes, and by the clock where it takes none."""
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(3_000, 400))
    monkeypatch.setattr(verification, "_CPU_SECONDS", 0)
    with verification.Decoder() as decoder:
        assert checked(decoder, path)["checked"] == "not checked: takes more than 0 s of CPU"
        assert checked(decoder, good) == {"width": 32, "height": 32}
        monkeypatch.setattr(verification, "_WALL_SECONDS", 0.3)
        monkeypatch.setattr(verification, "_ENDING_SECONDS", 0.1)
        stuck = decoder.pid
        assert stuck is not None
        os.kill(stuck, signal.SIGSTOP)
        assert checked(decoder, good)["checked"] == "not checked: takes longer than 0 s"
        assert is_gone(stuck, 0)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "the decoder broke"),
        (b"\xff\n", "the decoder broke"),
        (b"[" * 4000 + b"\n", "the decoder broke"),
        (b"[]\n", "the decoder broke"),
        (b"x" * 100_000, "the decoder broke"),
        (json.dumps({"facts": 7, "unchecked": "a\nb\ud800" + "c" * 999}).encode() + b"\n", "a?b?ccc"),
    ],
)
def test_what_a_process_says_that_was_taken_over_harms_nothing(
    answer: bytes, says: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words are bounded, and are read as words."""
    child = tmp_path / "child.py"
    child.write_text(f"import os; os.read(0, 4096); os.write(0, {answer!r}) and os.read(0, 4096)")
    monkeypatch.setattr(verification, "_CHILD", child)
    with verification.Decoder() as decoder:
        found = checked(decoder, good)
    assert list(found) == ["checked"]
    assert found["checked"].startswith(f"not checked: {says}")
    assert len(found["checked"]) < 250
    assert found["checked"].isprintable()


def test_facts_that_cannot_be_are_left_out(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go into XCom, and to the page."""
    facts = {"width": 10**30, "height": True, "duration": float("inf"), "x": 1, "frames": "<b>"}
    child = tmp_path / "child.py"
    answer = json.dumps({"facts": facts}).encode() + b"\n"
    child.write_text(f"import os; os.read(0, 4096); os.write(0, {answer!r}) and os.read(0, 4096)")
    monkeypatch.setattr(verification, "_CHILD", child)
    with verification.Decoder() as decoder:
        assert checked(decoder, good) == {}


def test_where_no_process_starts_files_land_unchecked(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose Python cannot be run without its environment still lands what was paid."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with verification.Decoder() as decoder:
        assert checked(decoder, good)["checked"].startswith("not checked: the decoder broke")


def test_the_process_ends_with_the_worker(good: Path) -> None:
    """Also where the worker is killed and can say nothing."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from airflow_media_tasks.material import verification as v\n"
        "decoder = v.Decoder(); path = Path(sys.argv[1])\n"
        "decoder.check(path, v.identify(path, 'image', '', 'it'), 'image', 'it')\n"
        "print(decoder.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(good)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        pid = int(next(line for line in worker.stdout if line.strip().isdigit()))
        assert Path(f"/proc/{pid}").exists()
        worker.kill()
    assert is_gone(pid)


def test_it_knows_nothing_of_ours() -> None:
    """What hostile bytes take over has neither Airflow nor this package loaded; and it starts soon."""
    source = Path(verification.__file__).with_name("decoding.py")
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]);"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] not in sys.stdlib_module_names))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    assert done.stdout.strip() == "['__main__']"


def test_the_memory_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less where pods are small; and what was not enough is said."""
    path = tmp_path / "a.tiff"
    huge_tile(path, 8_000)
    with verification.Decoder() as decoder:
        assert "checked" not in checked(decoder, path)
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__DECODER_MEMORY", str(64 << 20))
    with verification.Decoder() as decoder:
        assert checked(decoder, path)["checked"] == "not checked: needs more than 64 MiB"
