"""The provider of docs/providers.md, which quotes this, in the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from airflow_media_tasks.simulator import Simulator

from .contract import HookContract
from .skylark_hook import SkylarkHook
from .skylark_simulator import Skylark


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    """The simulator of this folder, with Skylark in it."""
    with Simulator(seconds=3.0, more=[Skylark()]) as simulator:
        yield simulator


# [START howto_skylark_test]
class TestSkylarkHook(HookContract):
    """The contract, for Skylark."""

    hook_class = SkylarkHook
    simulated = (Skylark(),)
    paid, other = "text_to_image", "upscale_image"
    unknown_id = "00000000-0000-4000-8000-000000000000"
    foreign_ids = ("veo/00000000", "operations/a/b", "task id", "a?b")
    cost_unit = "USD"
    samples: ClassVar = {
        "text_to_image": {"prompt": "a lighthouse at dusk", "count": "2"},
        "upscale_image": {"image_url": "https://example.com/1.png"},
    }

    def expected_mark(self, operation: str) -> None:
        """A job has no place for a mark of ours."""

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A submission's answer."""
        return {"job": own_id, "phase": "waiting"}

    def group_of(self, operation: str) -> str:
        """Jobs have none."""
        return ""

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """A job that is done."""
        return {"job": "1", "phase": "done", "pictures": [{"url": url}]}


# [END howto_skylark_test]
