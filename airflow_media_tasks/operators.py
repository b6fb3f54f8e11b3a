"""Operators that generate media, and the one that lands it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

from airflow.sdk import Context, RetryPolicy, XComArg
from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
from typing_extensions import Unpack

from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.deferring import WaitsForMediaTask
from airflow_media_tasks.hooks.base import MediaHook, default_conn_id, get_media_hook
from airflow_media_tasks.landing import provenance, storage
from airflow_media_tasks.landing.operators import LandsMedia
from airflow_media_tasks.links import MediaResultLink, ProviderConsoleLink
from airflow_media_tasks.material.materials import Materials
from airflow_media_tasks.parameters import MediaTaskArguments, Parameter, TaskArguments, seconds
from airflow_media_tasks.retries import MediaRetryPolicy
from airflow_media_tasks.submissions import costs, metrics
from airflow_media_tasks.submissions.records import Entries, KeepsRecords, Record, generation_of, moment_of
from airflow_media_tasks.submissions.submission import ON_UNKNOWN, STOP, Submission, ask, finish, once
from airflow_media_tasks.task import (
    MediaConcurrencyError,
    MediaExpiredError,
    MediaNotFoundError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskTimeout,
    TaskStatus,
    shown,
)
from airflow_media_tasks.triggers import Turn, TurnTrigger
from airflow_media_tasks.wire.prices import Price, Prices, decimal_of, limit_of


__all__ = [
    "DownloadMediaOperator",
    "GenerateAudioOperator",
    "GenerateImageOperator",
    "GenerateMediaBatchOperator",
    "GenerateVideoOperator",
    "MediaTaskOperator",
]


_AUDIO = ("text_to_music", "text_to_audio")


class MediaTaskOperator(KeepsRecords, WaitsForMediaTask, LandsMedia):
    """Submits one generation task, waits for it without a worker slot, returns what was made.

    The result (XCom) is the dict of a `MediaTask`: `url` and `urls` for the next step, `video_id` and
    `file_ids` for operations on what was made, `files` with what is known of each, `cost`, `id` for a sensor,
    and what was asked for (`arguments`, `model`, `provider`, `submitted_at`, `finished_at`, `made_by`). `id`,
    `url`, `urls`, `video_id` and `file_ids` are XComs of their own, too, for `video.output["url"]`.

    :param operation: what to do, a name of the provider's operations (templated); an unknown one is an error
        that lists them.
    :param arguments: the request, in neutral words where they exist (`prompt`, `image_url`, `duration` in
        seconds, ...), every other key passed to the provider as it is (templated). None is left out. What is
        an address of a file (`..._url`, each of `..._urls`) may be an object storage path (`s3://...`).
    :param media_conn_id: connection of the account; its type decides which provider it is (templated).
        Default that of the provider (`kling_default`, ...) if *operation* is one that no other has.
    :param poll_interval: seconds between two looks at the task, default 10 (templated; so are *timeout*,
        *queue_timeout*, *max_cost* and *min_balance*).
    :param timeout: seconds or timedelta to wait for the task, default 1 hour; `execution_timeout`, if
        shorter, counts instead. The task is not cancelled when it is reached.
    :param queue_timeout: seconds or timedelta that the task may stay queued at the provider, or be refused
        because there is no room for it, default *timeout*.
    :param deferrable: True (default) waits in the triggerer; False holds the worker slot meanwhile.
    :param on_unknown_submission: `stop` (default) fails with the question when nobody can say whether an
        earlier submission was accepted; `resubmit` submits anew and may pay twice.
    :param save_to: object storage path (`s3://...`, `file:///...`; templated) at which this task also lands
        what was made, as `DownloadMediaOperator` does with its *destination*; each landed one of `files` then
        has `path`, `sha256`, `size` (bytes) and `content_type`, and the result has `path` and `paths`. A
        retry or a clear after a landing that failed pays nothing: it only lands.
    :param max_cost: what all submissions of this task may cost, decimal text, whole number or Decimal, in the
        unit of the connection's price table (`airflow_media_tasks.wire.prices`), or with a unit that
        the table gives, `0.50 USD`; default no limit. One that would exceed it is not sent (MediaFundsError).
    :param min_balance: what the account must have, in its own unit, before a submission is sent; default
        anything.
    :param retry_policy: default `MediaRetryPolicy`.
    :raises MediaTaskError: typed, see `airflow_media_tasks.task`.
    """

    template_fields: Sequence[str] = (
        "operation",
        "arguments",
        "media_conn_id",
        "save_to",
        "poll_interval",
        "timeout",
        "queue_timeout",
        "max_cost",
        "min_balance",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"arguments": "json"}
    operator_extra_links = (MediaResultLink(), ProviderConsoleLink())
    ui_color = "#e8def8"

    named_arguments: ClassVar[tuple[str, ...]] = ()
    """Arguments that have a parameter of their own."""

    timeout = Parameter(seconds)
    queue_timeout: Parameter[float | None] = Parameter(seconds, optional=True)
    max_cost: Parameter[Price | None] = Parameter(limit_of, optional=True, read=str)
    min_balance: Parameter[Decimal | None] = Parameter(decimal_of, optional=True, read=str)

    def __init__(
        self,
        *,
        operation: str | XComArg | None,
        arguments: Mapping[str, Any] | str | XComArg | None = None,
        media_conn_id: str | XComArg | None = None,
        poll_interval: float | timedelta | str | XComArg = 10.0,
        timeout: float | timedelta | str | XComArg = 3600.0,
        queue_timeout: float | timedelta | str | XComArg | None = None,
        deferrable: bool = True,
        on_unknown_submission: str = STOP,
        save_to: str | XComArg | None = None,
        max_cost: str | int | Decimal | XComArg | None = None,
        min_balance: str | int | Decimal | XComArg | None = None,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Unpack[TaskArguments],
    ) -> None:
        super().__init__(retry_policy=retry_policy or MediaRetryPolicy(), **kwargs)
        if on_unknown_submission not in ON_UNKNOWN:
            raise MediaRequestError(
                f"on_unknown_submission must be one of {', '.join(ON_UNKNOWN)}, "
                f"got {shown(on_unknown_submission)}"
            )
        self.on_unknown_submission = on_unknown_submission
        self.operation: Any = operation
        self.arguments: Any = arguments
        self.media_conn_id = default_conn_id(operation) if media_conn_id is None else media_conn_id
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.queue_timeout = queue_timeout
        self.deferrable = deferrable
        self.save_to: Any = save_to
        self.max_cost = max_cost
        self.min_balance = min_balance

    def execute(self, context: Context) -> dict[str, Any]:
        """Checks everything, submits unless an earlier try has, and waits."""
        with self.errors_shown(context):
            return self._submit_and_wait(context, Turn(time.time()))

    def submit_again(self, context: Context, event: Any) -> dict[str, Any]:
        """Where a submission that the provider had no room for comes back to; it is still the same try."""
        return self._submit_and_wait(context, Turn.of_event(event))

    def _submit_and_wait(self, context: Context, turn: Turn) -> dict[str, Any]:
        hook = get_media_hook(self.media_conn_id)
        operation, arguments = self.request(hook)
        name, checked = hook.check(operation, arguments)
        if self.save_to is not None:
            self.place_of(context, self.save_to)
        guard = costs.guard(hook, name, checked, self.max_cost, self.min_balance)
        limit = self.execution_timeout.total_seconds() if self.execution_timeout else self.timeout
        seconds = min(self.timeout, limit)
        store, landed = context["task_state_store"], Entries(context).landed
        with Materials(hook, self.log, seconds + (self.queue_timeout or 0), store, landed) as materials:
            materials.look(name, checked)
            materials.save()
            submission = Submission(
                hook,
                name,
                checked,
                generation_of(context),
                self.on_unknown_submission,
                self.log,
                materials,
            )
            while True:
                try:
                    record, task = once(submission, context, guard)
                    break
                except (MediaRateLimitError, MediaConcurrencyError) as error:
                    turn = self._next_turn(turn, error)
        context["ti"].xcom_push(key="media_task_id", value=task.id)
        estimate = (
            f", estimated {task.cost.estimated} {task.cost.unit}" if task.cost and task.cost.estimated else ""
        )
        self.log.info("%s has %s as %s%s", hook.conn_type, name, task.id, estimate)
        if task.status.is_terminal:
            return self.result(context, task)
        now = time.time()
        queue_deadline = None if self.queue_timeout is None else now + self.queue_timeout
        return self.wait(
            context,
            task.id,
            deadline=now + seconds,
            queue_deadline=queue_deadline,
            operation=name,
            submitted_at=moment_of(record),
        )

    def _next_turn(self, turn: Turn, error: MediaTaskError) -> Turn:
        """Waits, in the triggerer if `deferrable`, until a refused submission may be tried again."""
        ends = turn.since + (self.queue_timeout or self.timeout)
        until = turn.next_try(error.retry_after)
        if until > ends:
            raise error
        self.log.info(
            "the provider has no room (%s); nothing was accepted, next try in %.0f s, giving up at %s",
            error,
            until - time.time(),
            datetime.fromtimestamp(ends, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        )
        turn = dataclasses.replace(turn, refusals=turn.refusals + 1)
        if self.deferrable:
            trigger = TurnTrigger(until, turn.since, turn.refusals)
            self.defer(
                trigger=trigger,
                method_name="submit_again",
                timeout=timedelta(seconds=until - time.time() + 600),
            )
        time.sleep(max(until - time.time(), 0))
        return turn

    def result(self, context: Context, task: MediaTask) -> dict[str, Any]:
        """As of `WaitsForMediaTask`, with what was asked for and where, and landed if there is a `save_to`.

        The record learns that it is over, but not before the files are where they are wanted.
        """
        lands = self.save_to is not None and task.status is TaskStatus.SUCCEEDED
        record = cost = None
        if task.status.is_terminal:
            before, _ = Entries(context).load()
            record = finish(context, task, handed_over=not lands)
            cost = self._cost(context, task, record, known=before is not None and bool(before.finished_at))
        elif isinstance(task.error, (MediaNotFoundError, MediaRequestError)):
            ask(context, task)
        result = super().result(context, task)
        if record is not None:
            arguments = record.arguments or {}
            result |= {
                "provider": record.provider,
                "arguments": arguments,
                "model": arguments.get("model"),
                "cost": cost,
                "submitted_at": record.submitted_after,
                "finished_at": record.finished_at,
                **({"material": record.material} if record.material else {}),
            }
        if self.save_to is None:
            self.tell_of(context, [provenance.document(result, result["files"])])
            return result
        return self._landed(context, task, result, self.save_to)

    def _cost(
        self, context: Context, task: MediaTask, record: Record | None, *, known: bool
    ) -> dict[str, Any] | None:
        """What *task* has cost, as of `Prices.told`; it is counted, and the end too, unless *known*."""
        said = None if task.cost is None else dict(task.cost.__dict__)
        if record is None:
            return said
        try:
            cost = Prices.of(get_media_hook(record.media_conn_id)).told(record.operation, task)
        except MediaTaskError as error:
            # It is made and paid for: a table that was broken meanwhile must not keep it from us.
            self.log.warning("what it cost in money is not known: %s", error)
            cost = said
        if not known:
            metrics.ended(record, record.arguments or {}, task, context)
            metrics.spent(cost, record, record.arguments or {}, task, context)
        return cost

    def _landed(
        self, context: Context, task: MediaTask, result: dict[str, Any], save_to: str
    ) -> dict[str, Any]:
        """*result* with where its files are now."""
        try:
            documents = storage.land(
                storage.made_of(result, [self.media_conn_id]),
                self.place_of(context, save_to),
                self.log,
                store=context["task_state_store"],
            )
        except MediaExpiredError:
            # Nothing is left to hand over: who clears the task wants a new one.
            finish(context, task)
            raise
        except MediaTaskError:
            # A retry and a clear go on landing it; a person may prefer a new one.
            ask(context, task)
            raise
        finish(context, task)
        self.tell_of(context, documents)
        return {**storage.with_landed(result, documents[0]), **self.landed(context, documents)}

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As of `BaseOperator`; where the trigger was lost, the provider's task is not.

        A trigger that crashed or outlived its deferral comes back without its arguments, the task's id among
        them: the record has it.
        """
        with self.errors_shown(context):
            return self._resume(next_method, next_kwargs, context)

    def _resume(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            record, _ = Entries(context).load()
            # A record of before a clear is not what this generation waited for.
            if record is None or record.media_task_id is None or record.generation != generation_of(context):
                raise
            task = get_media_hook(self.media_conn_id).get_task(record.media_task_id)
            if task.status.is_terminal:
                return self.result(context, dataclasses.replace(task, operation=record.operation))
            raise MediaTaskTimeout(
                f"{task.id} is still {task.status}, and nobody waits for it any more ({error}); it was not "
                "cancelled, and a retry waits for it again without paying",
                provider=record.media_conn_id,
                code="lost",
                media_task_id=task.id,
            ) from error

    def request(self, hook: MediaHook) -> tuple[str, dict[str, Any]]:
        """The operation and its arguments, as rendered: those given by name together with `arguments`."""
        rest = {} if self.arguments is None else self.arguments
        if not isinstance(rest, Mapping):
            raise MediaRequestError(
                f"arguments must be a dict of name to value, got {type(rest).__name__}: {shown(rest)}"
            )
        named = {name: value for name in self.named_arguments if (value := getattr(self, name)) is not None}
        twice = [name for name in named if rest.get(name) is not None]
        if twice:
            raise MediaRequestError(
                f"{twice[0]!r} is given by name ({shown(named[twice[0]])}) and in arguments "
                f"({shown(rest[twice[0]])}); give it once"
            )
        arguments = {**rest, **named}
        return self.operation or self.default_operation(hook, arguments), arguments

    def default_operation(
        self,
        hook: MediaHook,  # noqa: ARG002  # for subclasses
        arguments: Mapping[str, Any],  # noqa: ARG002  # for subclasses
    ) -> str:
        """The operation that *arguments* speak of, where none was named."""
        raise MediaRequestError(f"operation must be the name of an operation, got {shown(self.operation)}")


class GenerateImageOperator(MediaTaskOperator):
    """Generates images: `text_to_image`, or `image_to_image` if there is an *image_url*.

    :param prompt: what to show (templated, as all of these).
    :param image_url: http(s) URL, or object storage path, of a picture to begin with.
    :param negative_prompt: what not to show.
    :param aspect_ratio: for example `16:9`.
    :param resolution: the provider's word, for example `2k`.
    :param count: how many pictures, where the provider takes it.
    :param seed: whole number, where the provider takes it.
    :param model: the provider's model id.
    :param operation: another operation than those two.
    :param kwargs: as of `MediaTaskOperator`; *arguments* takes every other option of the provider.
    """

    named_arguments = (
        "prompt",
        "image_url",
        "negative_prompt",
        "aspect_ratio",
        "resolution",
        "count",
        "seed",
        "model",
    )
    template_fields: Sequence[str] = (*MediaTaskOperator.template_fields, *named_arguments)

    def __init__(
        self,
        *,
        prompt: str | XComArg | None = None,
        image_url: str | XComArg | None = None,
        negative_prompt: str | XComArg | None = None,
        aspect_ratio: str | XComArg | None = None,
        resolution: str | XComArg | None = None,
        count: int | str | XComArg | None = None,
        seed: int | str | XComArg | None = None,
        model: str | XComArg | None = None,
        operation: str | XComArg | None = None,
        **kwargs: Unpack[MediaTaskArguments],
    ) -> None:
        super().__init__(operation=operation, **kwargs)
        self.prompt = prompt
        self.image_url = image_url
        self.negative_prompt = negative_prompt
        self.aspect_ratio = aspect_ratio
        self.resolution = resolution
        self.count = count
        self.seed = seed
        self.model = model

    def default_operation(
        self,
        hook: MediaHook,  # noqa: ARG002  # not every one needs both
        arguments: Mapping[str, Any],  # not every one needs both
    ) -> str:
        """By whether there is a picture to begin with."""
        return "image_to_image" if arguments.get("image_url") else "text_to_image"


class GenerateVideoOperator(MediaTaskOperator):
    """Generates a video: `text_to_video`, or `image_to_video` if there is an *image_url*.

    :param prompt: what to show (templated, as all of these).
    :param image_url: http(s) URL, or object storage path, of the first frame.
    :param end_image_url: the same of the last frame, where the provider takes one.
    :param negative_prompt: what not to show.
    :param aspect_ratio: for example `16:9`.
    :param duration: seconds.
    :param resolution: the provider's word, for example `1080p`.
    :param seed: whole number, where the provider takes it.
    :param model: the provider's model id.
    :param operation: another operation than those two, for example `luma/image_to_video`.
    :param kwargs: as of `MediaTaskOperator`; *arguments* takes every other option of the provider.
    """

    named_arguments = (
        "prompt",
        "image_url",
        "end_image_url",
        "negative_prompt",
        "aspect_ratio",
        "duration",
        "resolution",
        "seed",
        "model",
    )
    template_fields: Sequence[str] = (*MediaTaskOperator.template_fields, *named_arguments)

    def __init__(
        self,
        *,
        prompt: str | XComArg | None = None,
        image_url: str | XComArg | None = None,
        end_image_url: str | XComArg | None = None,
        negative_prompt: str | XComArg | None = None,
        aspect_ratio: str | XComArg | None = None,
        duration: float | str | XComArg | None = None,
        resolution: str | XComArg | None = None,
        seed: int | str | XComArg | None = None,
        model: str | XComArg | None = None,
        operation: str | XComArg | None = None,
        **kwargs: Unpack[MediaTaskArguments],
    ) -> None:
        super().__init__(operation=operation, **kwargs)
        self.prompt = prompt
        self.image_url = image_url
        self.end_image_url = end_image_url
        self.negative_prompt = negative_prompt
        self.aspect_ratio = aspect_ratio
        self.duration = duration
        self.resolution = resolution
        self.seed = seed
        self.model = model

    def default_operation(
        self,
        hook: MediaHook,  # noqa: ARG002  # not every one needs both
        arguments: Mapping[str, Any],  # not every one needs both
    ) -> str:
        """By whether there is a first frame."""
        return "image_to_video" if arguments.get("image_url") else "text_to_video"


class GenerateAudioOperator(MediaTaskOperator):
    """Generates sound: `text_to_music`, or `text_to_audio` where the provider makes no music.

    :param prompt: what to hear (templated, as all of these).
    :param duration: seconds.
    :param model: the provider's model id.
    :param operation: another operation than those two.
    :param kwargs: as of `MediaTaskOperator`; *arguments* takes every other option of the provider.
    """

    named_arguments = ("prompt", "duration", "model")
    template_fields: Sequence[str] = (*MediaTaskOperator.template_fields, *named_arguments)

    def __init__(
        self,
        *,
        prompt: str | XComArg | None = None,
        duration: float | str | XComArg | None = None,
        model: str | XComArg | None = None,
        operation: str | XComArg | None = None,
        **kwargs: Unpack[MediaTaskArguments],
    ) -> None:
        super().__init__(operation=operation, **kwargs)
        self.prompt = prompt
        self.duration = duration
        self.model = model

    def default_operation(
        self,
        hook: MediaHook,  # not every one needs both
        arguments: Mapping[str, Any],  # noqa: ARG002  # not every one needs both
    ) -> str:
        """Music, else sounds."""
        return next((name for name in _AUDIO if name in hook.operations), _AUDIO[0])


class DownloadMediaOperator(KeepsRecords, LandsMedia):
    """Lands the files that a task made, before their URLs die.

    The result (XCom) is `{"path", "paths", "files"}`, each file with `path`, `url`, `kind`, `content_type`
    (by its bytes), `size` (bytes), `sha256` and `media_task_id`. A JSON document beside each file says where
    it comes from. Running it again downloads only what is missing or was changed.

    Only public addresses are asked, unless the setting `[media_tasks] allowed_hosts` names others; no file
    may be larger than `[media_tasks] max_file_size` (bytes, default 2 GiB).

    :param media: what an operator or the sensor returned, a list of those, or URLs (templated).
    :param destination: an object storage path (`s3://...`, `file:///...`; templated). One that ends with `/`
        is a folder: below it come `<dag>/<run>/<task>/<map index>-<number><extension>`. One with `{` in it is
        a template of `{dag_id}`, `{run_id}`, `{task_id}`, `{map_index}`, `{index}`, `{ext}`, `{kind}` and
        `{media_task_id}`. Otherwise it is the file's own name; further files of the same task get `-1`, `-2`,
        ... before the extension.
    :param destination_conn_id: Airflow connection of the object store, default that of the path
        (`s3://my_conn@bucket/...`).
    :param media_conn_id: connection of the account that made the files, to ask it for fresh URLs where theirs
        have died (templated); default the one that *media* names, if a task of
        this DAG has it as its own.
    :param retry_policy: default `MediaRetryPolicy`.
    :raises MediaExpiredError: if a file is gone for good.
    :raises MediaRequestError: if an address may not be asked, a file is too large, or the destination cannot
        be written.
    :raises MediaProviderError: if what comes is broken, cut off, or not what it claims to be.
    """

    template_fields: Sequence[str] = ("media", "destination", "destination_conn_id", "media_conn_id")
    operator_extra_links = (MediaResultLink(),)
    ui_color = "#d7f0e3"

    def __init__(
        self,
        *,
        media: Any,
        destination: str | XComArg,
        destination_conn_id: str | XComArg | None = None,
        media_conn_id: str | XComArg | None = None,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Unpack[TaskArguments],
    ) -> None:
        super().__init__(retry_policy=retry_policy or MediaRetryPolicy(), **kwargs)
        self.media = media
        self.destination: Any = destination
        self.destination_conn_id: Any = destination_conn_id
        self.media_conn_id: Any = media_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Downloads up to four files at once."""
        with self.errors_shown(context):
            made = storage.made_of(self.media, self._connections(context))
            place = self.place_of(context, self.destination, self.destination_conn_id)
            documents = storage.land(made, place, self.log, store=context["task_state_store"])
        self.tell_of(context, documents)
        files = [file for document in documents for file in document["files"]]
        return {**self.landed(context, documents), "files": files}

    def _connections(self, context: Context) -> list[str]:
        """Those that the DAG's author wrote: this task's own, else those of all tasks of the DAG."""
        if self.media_conn_id is not None:
            return [self.media_conn_id]
        dag: Any = context.get("dag")
        found: dict[str, None] = {}
        for task in () if dag is None else dag.tasks:
            written = getattr(task, "partial_kwargs", vars(task)).get("media_conn_id")
            try:
                rendered = self.render_template(written, context, self.get_template_env(dag))
            except Exception:  # a template of another task may need what only that one has
                self.log.info(
                    "media_conn_id %s of %s is not known here", shown(written), task.task_id, exc_info=True
                )
                continue
            if isinstance(rendered, str):
                found[rendered] = None
        return list(found)
