"""What is done to the tasks, and what has to come of it: read by the rig and by its DAG file alike."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from airflow import sdk


MAPPED = 3
BATCH = 8
LOOP = 3  # iterations
HAS_LOOPS = hasattr(sdk, "LoopDecision")  # from Airflow 3.4 on
FOREVER = 1_000_000  # simulated seconds: until the rig moves the simulator's clock
# What each family is asked for: its place in the rig.
OPERATIONS = {
    "vap": "text_to_image",
    "acedata": "veo/text_to_video",
    "kling": "text_to_video",
    "replicate": "text_to_image",
    "fal": "text_to_image",
    "runway": "text_to_image",
    "luma": "text_to_image",
    "comfyui": "text_to_image",
    "google_media": "text_to_video",
    "openai_media": "text_to_video",
}
UNMARKED = ("vap", "replicate", "fal", "runway", "google_media", "openai_media")
EVERYBODY = tuple(OPERATIONS)
# Most of what is tried is the same code for all families. Two go through all of it, one whose tasks carry no
# mark of ours and one whose tasks do; the others through what their hooks decide, with one task each.
WHOLE = EVERYBODY if os.environ.get("FAULTS_ROWS") == "all" else ("vap", "acedata")
# Whose list proves only an hour later that nothing was accepted, and the rows in which the retry needs that.
LATE = ("fal",)
UNSENT = {"kill_before_post", "zombie", "batch_killed_before_post", "batch_killed_in_middle"}
# Of whose submissions none is found again once its reply is lost, and the rows in which that is to happen.
# What becomes of theirs are the rows of `DOUBTS`.
UNSEEN = ("runway", "google_media")
UNHEARD = UNSENT | {
    *("kill_during_post", "kill_after_post", "answers_500", "answers_504", "loses_reply"),
    *("batch_killed_after_all", "loop_killed"),
}
CORE = {
    *("kill_after_post", "loses_reply", "polling_503", "raise_in_complete", "user_clears_deferred"),
    *("cannot_tell", "person_adopts", "person_resubmits", "loop_killed"),
    *("material_url", "material_inline", "material_upload", "material_killed"),
}
PICTURE = "s3://products/pictures/bag-05.png"  # of scripts/bucket.py


@dataclass(frozen=True)
class Doubt:
    """A submission of which nobody can say what became of it, once its reply is lost.

    :param operation: what is submitted.
    :param group: what its id begins with.
    :param arguments: besides the prompt.
    :param words: `[sim:...]` words in the prompt.
    """

    operation: str
    group: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    words: str = ""


# Replicate asks only about equal requests, or where what was made is gone and could not be adopted.
DOUBTS = {
    # There is no list of operations.
    "vap": Doubt("edit_image", "operations", {"image_url": "https://example.com/1.png"}),
    # The list does not show our mark, without which any equal request may be the one.
    "acedata": Doubt("veo/text_to_video", "veo", words="[sim:no-echo]"),
    # It takes no mark, and the list does not show what it extends before it is made.
    "kling": Doubt("extend_video", "videos/video-extend", {"video_id": "{{ dag_run.conf['video'] }}"}),
    # The list shows what has ended.
    "fal": Doubt("text_to_image", "fal-ai/flux"),
    # There is no list, and nothing by which a submission is known again.
    "runway": Doubt("text_to_image", ""),
    "google_media": Doubt("text_to_video", "models/veo-3.1-generate-preview"),
    # The list does not show the picture.
    "openai_media": Doubt("image_to_video", "", {"image_url": "https://example.com/1.png"}),
    # Agents has no list.
    "luma": Doubt("agents/text_to_image", "agents"),
}


@dataclass(frozen=True)
class Scenario:
    """One fault, as one DAG with a task for each provider, single and mapped, or with a batch for each.

    :param name: the DAG's id.
    :param fault: for the table.
    :param hurt: what the operator does to itself on its first pass at a point: `kill`, `raise` or `freeze`,
        and where, see `dags/faults.py`. Or empty.
    :param words: `[sim:...]` words in the prompt.
    :param seconds: how long the provider takes.
    :param paid: ledger entries for each task instance.
    :param outcome: the final state of each task instance.
    :param tries: the least and the most tries that a task instance may need.
    :param log: what one of the tries must have logged.
    :param naive: whether the record is switched off.
    :param mapped: how many mapped task instances there are besides the single one.
    :param batch: how many requests the one batch of each provider has, instead of those tasks.
    :param quick: how many of them take three seconds only.
    :param loop: how many iterations of a task loop there are, instead of those tasks; the second one is hurt.
    :param doubtful: whether what is submitted is one of `DOUBTS`; of a batch the first request, whose reply
        is lost.
    :param material: by which way a picture from a bucket goes along, or empty.
    :param options: further arguments of the operator.
    """

    name: str
    fault: str
    hurt: str = ""
    words: str = ""
    seconds: float = 3.0
    paid: int = 1
    outcome: str = "success"
    tries: tuple[int, int] = (1, 4)
    log: str = ""
    naive: bool = False
    providers: tuple[str, ...] = EVERYBODY
    single: bool = True
    mapped: int = MAPPED
    batch: int = 0
    quick: int = 0
    loop: int = 0
    doubtful: bool = False
    material: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loses_a_worker(self) -> bool:
        """Whether only a missing heartbeat tells Airflow of it; of a killed task its Celery worker does."""
        return self.hurt.startswith("freeze") or self.name == "chaos"

    @property
    def runs_here(self) -> bool:
        """Whether this version of Airflow has what it takes."""
        return HAS_LOOPS or not self.loop

    @property
    def modes(self) -> dict[str, int]:
        """`single` and `mapped`, or `batch`, or `loop`, with the number of task instances of each."""
        if self.batch:
            return {"batch": 1}
        if self.loop:
            return {"loop": self.loop}
        return {**({"single": 1} if self.single else {}), **({"mapped": self.mapped} if self.mapped else {})}

    def modes_of(self, provider: str) -> dict[str, int]:
        """The same for one provider."""
        return self.modes if self.batch or self.loop or provider in WHOLE else {"single": 1}

    def conn_id(self, provider: str) -> str:
        """The account that the tasks of this scenario use."""
        return f"{provider}_{self.name}"

    def operation(self, provider: str) -> str:
        """What is submitted, where a batch's request does not say it itself."""
        if self.material:
            return "image_to_video"
        return DOUBTS[provider].operation if self.doubtful and not self.batch else OPERATIONS[provider]

    def requests(self, provider: str, mode: str) -> list[dict[str, Any]]:
        """Each task instance's arguments, or those of each request of the batch, or those of all iterations.

        Equal ones, except where the provider keeps no mark of ours: it cannot tell two equal ones apart.
        """
        number = 1 if self.loop else self.batch or self.modes_of(provider)[mode]
        return [self._request(provider, mode, index) for index in range(number)]

    def _request(self, provider: str, mode: str, index: int) -> dict[str, Any]:
        prompt = f"{self.name} {mode} {self.words} [sim:seconds={3 if index < self.quick else self.seconds}]"
        # The rig's clock leaps by days, and files would die in between that a user's day leaves alive.
        prompt += f" [sim:expires={10 * FOREVER}]"
        if provider in UNMARKED:
            prompt += " {{ loop.index }}" if self.loop else f" {index}"
        if self.material:
            return {"prompt": prompt, "image_url": PICTURE}
        if not self.doubtful or (self.batch and index):
            return {"prompt": prompt}
        doubt = DOUBTS[provider]
        request = {**doubt.arguments, "prompt": prompt + doubt.words}
        if self.batch:
            # The first submission with this text loses its reply: one at each provider.
            request |= {"operation": doubt.operation, "prompt": f"{request['prompt']} {provider} {LOST}"}
        return request


LOST = "[sim:lose-reply*1]"
"""By this a batch's request is known whose reply is lost."""


def mark_name(dag_id: str, task_id: str, map_index: int) -> str:
    """The file by which a task instance, in all its tries, and the rig know that it has been hurt."""
    return f"{dag_id}-{task_id}-{max(map_index, 0)}"


REFUSALS = {
    "auth": "authentication",
    "funds": "no money",
    "moderation": "moderation",
    "bad_request": "bad request",
}
OUTAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "polling_503": ("provider answers 503 for 60 s", {"kind": "outage", "status": 503}),
    "polling_429": ("provider answers 429 for 60 s", {"kind": "rate_limit"}),
    "polling_html": ("provider answers HTML for 60 s", {"kind": "html"}),
    "polling_silence": ("provider answers nothing at all for 60 s", {"kind": "hang", "delay": 90}),
}


def _narrowed(scenarios: list[Scenario]) -> list[Scenario]:
    """The same scenarios, those that are not core rows only for the families that go through all."""

    def has(each: Scenario, provider: str) -> bool:
        if each.name in (UNSENT if provider in LATE else UNHEARD if provider in UNSEEN else ()):
            return False
        return provider in WHOLE or each.name in CORE or bool(each.batch)

    return [
        replace(each, providers=tuple(name for name in each.providers if has(each, name)))
        for each in scenarios
    ]


SIDE_BY_SIDE = _narrowed(
    [
        Scenario("kill_before_post", "worker SIGKILL before the POST", "kill before_post", tries=(2, 4)),
        Scenario("kill_during_post", "worker SIGKILL, the reply under way", "kill during_post", tries=(2, 4)),
        Scenario(
            "kill_after_post", "worker SIGKILL before the id is stored", "kill after_post", tries=(2, 4)
        ),
        Scenario("kill_before_defer", "worker SIGKILL before deferring", "kill before_defer", tries=(2, 4)),
        Scenario(
            "kill_in_complete", "worker SIGKILL inside execute_complete", "kill in_complete", tries=(2, 4)
        ),
        Scenario("raise_on_execute", "exception in the user's pre_execute", "raise on_resume", tries=(2, 4)),
        Scenario("raise_in_complete", "exception in execute_complete", "raise in_complete", tries=(2, 4)),
        Scenario(
            "kill_synchronous",
            "worker SIGKILL while polling, deferrable=False",
            "kill while_polling",
            tries=(2, 4),
            mapped=0,
            options={"deferrable": False},
        ),
        Scenario(
            "deferral_timeout",
            "deferral timeout, then retry",
            "defer briefly",
            seconds=FOREVER,
            tries=(2, 4),
            log="nobody waits for it any more",
        ),
        Scenario(
            "slow_provider",
            "provider slower than the deadline, then retry",
            seconds=FOREVER,
            tries=(2, 31),
            log="submitting nothing",
            options={"timeout": 40, "retries": 30},
        ),
        *(
            Scenario(name, label, seconds=FOREVER, tries=(1, 1), mapped=0)
            for name, (label, _) in OUTAGES.items()
        ),
        Scenario("answers_500", "submit answered 500 after acceptance", words="[sim:error-after-accept=500]"),
        Scenario("answers_504", "submit answered 504 after acceptance", words="[sim:error-after-accept=504]"),
        Scenario("loses_reply", "connection cut after acceptance", words="[sim:lose-reply]"),
        *(
            Scenario(
                f"material_{way}",
                f"connection cut after acceptance, a picture gone along by {label}",
                words="[sim:lose-reply*1]",
                mapped=0,
                providers=providers,
                material=way,
            )
            for way, label, providers in (
                ("url", "a presigned address", ("vap", "replicate", "fal")),
                ("inline", "the request", ("replicate", "fal")),
                ("upload", "an upload", ("replicate", "fal")),
            )
        ),
        Scenario(
            "material_killed",
            "worker SIGKILL between an upload and the POST",
            "kill before_post",
            tries=(2, 4),
            mapped=0,
            providers=("replicate",),
            material="upload",
        ),
        *(
            Scenario(
                f"refuses_{reason}",
                f"submit refused: {label}",
                words=f"[sim:reject={reason}]",
                paid=0,
                outcome="failed",
                tries=(1, 1),
                mapped=0,
            )
            for reason, label in REFUSALS.items()
        ),
        Scenario("refuses_concurrency", "submit refused: concurrency, for 30 s", tries=(1, 1), log="no room"),
        Scenario("user_fails", "user marks failed", seconds=FOREVER, outcome="failed", tries=(1, 1)),
        Scenario(
            "user_clears_deferred", "user clears while deferred", seconds=FOREVER, log="submitting nothing"
        ),
        Scenario("user_clears_success", "user clears a success", paid=2, log="submitting anew"),
        Scenario(
            "user_clears_mapped",
            "user clears a mapped task as a whole while it waits",
            seconds=FOREVER,
            single=False,
            log="submitting nothing",
        ),
        *(
            Scenario(
                f"batch_killed_{where}",
                f"batch: worker SIGKILL {label}",
                f"kill {where}",
                paid=BATCH,
                batch=BATCH,
                tries=(2, 4),
            )
            for where, label in {
                "before_post": "when the intents are written",
                "in_middle": "when some are sent",
                "after_all": "when all are sent and nothing of it is written",
            }.items()
        ),
        Scenario(
            "batch_cleared_waiting",
            "user clears a batch that waits",
            seconds=FOREVER,
            paid=BATCH,
            batch=BATCH,
            log="under way since an earlier try",
        ),
        Scenario(
            "batch_cleared_half",
            "user clears a batch of which half has ended",
            seconds=FOREVER,
            paid=BATCH,
            batch=BATCH,
            quick=BATCH // 2,
            log="under way since an earlier try",
        ),
        Scenario(
            "batch_cleared_success",
            "user clears a batch that has succeeded",
            paid=BATCH,
            batch=BATCH,
            log=f"of {BATCH} requests",
        ),
        Scenario(
            "naive_batch",
            "naive twin: worker SIGKILL when all are sent",
            "kill after_all",
            paid=2 * BATCH,
            batch=BATCH,
            tries=(2, 2),
            naive=True,
            options={"deferrable": False},
        ),
        *(
            Scenario(
                f"batch_person_{decides}",
                f"batch: a person {label} while the worker writes its neighbours",
                "wait in_settling",
                seconds=FOREVER,
                paid=BATCH + more,
                batch=BATCH,
                tries=(3, 12),
                log=log,
                providers=tuple(DOUBTS),
                doubtful=True,
                options={"timeout": 10, "retry_delay": timedelta(seconds=10)},
            )
            for decides, label, more, log in (
                ("adopts", "adopts the id of one request", 0, "a person has decided: adopt"),
                ("resubmits", "gives up one request", 1, "a person has decided: submit anew"),
            )
        ),
        Scenario(
            "loop_killed",
            "task loop: worker SIGKILL in the second iteration",
            "kill after_post",
            loop=LOOP,
        ),
        Scenario("zombie", "two workers execute the same try", "freeze before_post", tries=(2, 4), mapped=1),
        Scenario(
            "prompt_changes",
            "code changes its prompt between tries",
            "raise in_complete",
            paid=2,
            tries=(2, 4),
            log="the request is not the one",
            words="{{ 'again' if is_hurt(ti) else 'first' }}",
        ),
        Scenario(
            "cannot_tell",
            "worker SIGKILL before the id is stored, nobody can tell",
            "kill after_post",
            seconds=FOREVER,
            outcome="failed",
            tries=(2, 4),
            log="airflow media-tasks adopt",
            mapped=1,
            providers=tuple(DOUBTS),
            doubtful=True,
        ),
        Scenario(
            "person_adopts",
            "the same, then the id adopted by a person",
            "kill after_post",
            seconds=FOREVER,
            tries=(3, 5),
            log="nothing is paid again",
            single=False,
            mapped=1,
            providers=tuple(DOUBTS),
            doubtful=True,
        ),
        Scenario(
            "person_resubmits",
            "the same, then given up by a person",
            "kill after_post",
            seconds=FOREVER,
            paid=2,
            tries=(3, 5),
            log="a person has decided: submit anew",
            single=False,
            mapped=1,
            providers=tuple(DOUBTS),
            doubtful=True,
        ),
        Scenario(
            "naive_kill_after_post",
            "naive twin: worker SIGKILL after the POST",
            "kill after_post",
            paid=2,
            tries=(2, 2),
            naive=True,
            mapped=0,
        ),
        Scenario(
            "naive_raise_on_execute",
            "naive twin: exception in pre_execute",
            "raise on_resume",
            paid=2,
            tries=(2, 2),
            naive=True,
            mapped=0,
        ),
        Scenario(
            "naive_raise_in_complete",
            "naive twin: exception in execute_complete",
            "raise in_complete",
            paid=2,
            tries=(2, 2),
            naive=True,
            mapped=0,
        ),
    ]
)

# These wait from the beginning on, and are dealt with one after the other when the others are done.
SHAKEN = _narrowed(
    [
        Scenario(name, fault, seconds=FOREVER, tries=(1, 3))
        for name, fault in {
            "triggerer_sigkill": "triggerer SIGKILL",
            "triggerer_sigterm": "triggerer SIGTERM",
            "triggerer_sigstop": "triggerer SIGSTOP for 45 s",
            "postgres_restart": "PostgreSQL restarted",
            "redis_restart": "Redis restarted",
            "api_server_restart": "API server restarted",
        }.items()
    ]
)

CHAOS = Scenario(
    "chaos",
    "workers and triggerers killed at random for 3 minutes",
    seconds=45,
    tries=(1, 26),
    providers=("acedata",),
    single=False,
    mapped=200,
    options={"retries": 25},
)

SCENARIOS = [*SIDE_BY_SIDE, *SHAKEN, CHAOS]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    scenario: Scenario
    provider: str
    mode: str

    def __str__(self) -> str:
        return f"{self.scenario.name}-{self.provider}-{self.mode}"

    @property
    def task_id(self) -> str:
        """The Airflow task."""
        return f"{self.provider}_{self.mode}"


def cases(scenario: Scenario) -> Iterator[Case]:
    """The scenario's rows."""
    for provider in scenario.providers:
        for mode in scenario.modes_of(provider):
            yield Case(scenario, provider, mode)
