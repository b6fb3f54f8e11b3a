"""`MediaHook`: what every provider's hook offers, and what a provider writes to become one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pkgutil import resolve_name
from typing import Any, ClassVar

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException

from airflow_media_tasks.get_provider_info import get_provider_info
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaBalance,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    SubmissionOutcomeUnknown,
    shown,
)
from airflow_media_tasks.wire.addresses import is_address
from airflow_media_tasks.wire.conversations import NOT_SENT, Conversation
from airflow_media_tasks.wire.documents import is_id
from airflow_media_tasks.wire.finding import FindingHook
from airflow_media_tasks.wire.materials import in_place, paths_in
from airflow_media_tasks.wire.prices import Prices
from airflow_media_tasks.wire.roads import Road


def get_media_hook(media_conn_id: str) -> MediaHook:
    """The hook that the connection's type names, whichever provider that is.

    :raises MediaRequestError: if there is no such connection, or its type is not one of ours.
    """
    if not media_conn_id:
        raise MediaRequestError(f"media_conn_id must be the id of a connection, got {shown(media_conn_id)}")
    try:
        hook = BaseHook.get_hook(media_conn_id)
    except AirflowException as error:
        raise MediaRequestError(
            f"media_conn_id {media_conn_id!r}: {error}. Define it under Admin > Connections or as the "
            f"environment variable AIRFLOW_CONN_{media_conn_id.upper()}, with one of the types that "
            "'airflow providers hooks' lists for airflow-media-tasks"
        ) from None
    if not isinstance(hook, MediaHook):
        raise MediaRequestError(
            f"media_conn_id {media_conn_id!r} has a type that generates no media ({type(hook).__name__}); "
            "use one of the types that 'airflow providers hooks' lists for airflow-media-tasks"
        )
    return hook


def default_conn_id(operation: Any) -> str:
    """The default connection of the one provider that has *operation*.

    :raises MediaRequestError: if it is none's, or several have it, so that nobody can know who is meant.
    """
    found: dict[str, str] = {}
    for entry in get_provider_info()["connection-types"]:
        hook: type[MediaHook] = resolve_name(entry["hook-class-name"])
        # What a connection completes to a full name counts, too.
        if any(operation in (name, name.rpartition("/")[2]) for name in hook.operations):
            found[hook.conn_type] = hook.default_conn_name
    if len(found) == 1:
        return next(iter(found.values()))
    raise MediaRequestError(
        "media_conn_id must be the id of a connection; it has a default only where operation is the name of "
        f"one that a single provider has, and {shown(operation)} is "
        + (f"one of {', '.join(found)}" if found else "none")
    )


class MediaHook(FindingHook):
    """Base of every provider's hook.

    A provider sets the class attributes, which are its tables, and overrides a conversation (a method whose
    name begins with `_`) where it is odd; the public methods, each with an awaitable twin whose name begins
    with `a`, are not overwritten. `docs/providers.md` shows a whole one.

    :param media_conn_id: id of an Airflow connection; its type must be the hook's own.
    """

    id_groups: ClassVar[re.Pattern[str]] = re.compile("")
    """What stands before the provider's own id in a `media_task_id`, see `group_of`."""
    id_form: ClassVar[str]
    """What a `media_task_id` looks like, for people."""
    console_url: ClassVar[str | None] = None
    """Where a person sees what the account has made and paid, https; None where there is no such page."""
    client_ref_is_queryable: ClassVar[bool] = False
    """Whether a lost submission can be asked for by the `client_ref` it carried."""
    can_cancel: ClassVar[bool] = False
    """Whether a running task can be stopped; set by a table `cancel`."""
    has_balance: ClassVar[bool] = True
    """Whether the account's balance can be read; needs a table `balance`, or a `_get_balance` of its own."""
    refunds_failures: ClassVar[bool] = False
    """Whether a task that ends failed is known to cost nothing."""
    cheapest: ClassVar[tuple[str, Mapping[str, Any]] | None] = None
    """The operation, with its arguments, that is thought to cost least: what `doctor --pay` makes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.can_cancel = cls.can_cancel or cls.cancel is not None
        own = cls._get_balance is not MediaHook._get_balance
        cls.has_balance = cls.has_balance and (own or cls.balance is not None)

    # What callers use.

    def submit(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        client_ref: str | None = None,
        handed: Mapping[str, str] | None = None,
    ) -> MediaTask:
        """Submit one task; it costs money, so it is sent once.

        :param operation: a name of `operations`.
        :param arguments: neutral words where they exist, every other key passed through untouched.
        :param client_ref: the caller's own name for this submission, kept by the provider where it can.
        :param handed: what the provider gets in the place of each object storage path in *arguments*.
        :return: the task as the provider first describes it, rarely finished already.
        :raises MediaRequestError: before anything is sent, if the operation or an argument is wrong.
        :raises SubmissionOutcomeUnknown: if it was sent and the answer does not say what became of it.
        """
        return self._run(self._checked_submit(operation, arguments, client_ref, handed))

    async def asubmit(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        client_ref: str | None = None,
        handed: Mapping[str, str] | None = None,
    ) -> MediaTask:
        """Awaitable twin of `submit`."""
        return await self._arun(self._checked_submit(operation, arguments, client_ref, handed))

    def upload(self, road: Road, content: bytes, content_type: str, name: str) -> str:
        """Give the provider a file, which costs nothing; what stands in a request for it.

        :param road: one of `roads` whose way is `upload`.
        :param name: of the file, for the provider.
        :raises MediaTaskError: if the provider does not take it.
        """
        slots = {
            "name": name,
            "type": content_type,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        return self._run(self._upload(road, content, slots))

    def get_task(self, media_task_id: str) -> MediaTask:
        """The task as it is now. Raises MediaNotFoundError if the provider does not know it."""
        return self._run(self._get_task(self.check_id(media_task_id)))

    async def aget_task(self, media_task_id: str) -> MediaTask:
        """Awaitable twin of `get_task`."""
        return await self._arun(self._get_task(self.check_id(media_task_id)))

    def get_file(self, media_task_id: str, index: int) -> bytes:
        """The bytes of a file that stands in its task's own document (`MediaFile.access` is `task`).

        :param index: its number among the task's files.
        :raises MediaNotFoundError: if the provider does not know the task, or there is no such file in it.
        """
        return self._run(self._get_file(self.check_id(media_task_id), index))

    async def aget_file(self, media_task_id: str, index: int) -> bytes:
        """Awaitable twin of `get_file`."""
        return await self._arun(self._get_file(self.check_id(media_task_id), index))

    def get_tasks(self, media_task_ids: Iterable[str]) -> dict[str, MediaTask]:
        """The tasks as they are now, keyed by the ids given; ids that the provider does not know are absent.

        :raises MediaTaskError: what kept one of them from being read.
        """
        return self._run(self._read_all(media_task_ids))

    async def aget_tasks(self, media_task_ids: Iterable[str]) -> dict[str, MediaTask]:
        """Awaitable twin of `get_tasks`."""
        return await self._arun(self._read_all(media_task_ids))

    def find_tasks(
        self,
        *,
        client_ref: str | None = None,
        submitted_after: datetime | None = None,
        operation: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        traces: Mapping[str, str] | None = None,
    ) -> list[MediaTask]:
        """The account's tasks that were made by the submission described, newest first.

        :param client_ref: as given to `submit`; where the provider keeps it, it alone decides.
        :param submitted_after: UTC; tasks older than this are left out.
        :param operation: only tasks of this operation, where the provider says which.
        :param arguments: only tasks with this request.
        :param traces: of what was handed over in the place of each path in *arguments*, see
            `airflow_media_tasks.wire.materials.trace_of`; one without a trace is a doubt.
        :return: with neither *client_ref* nor *arguments*, all that may be of interest; with them, an empty
            list is proof that the provider has accepted no such submission.
        :raises SubmissionOutcomeUnknown: if what the provider shows is not enough to tell.
        """
        return self._run(self._checked_find(client_ref, submitted_after, operation, arguments, traces))

    async def afind_tasks(
        self,
        *,
        client_ref: str | None = None,
        submitted_after: datetime | None = None,
        operation: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        traces: Mapping[str, str] | None = None,
    ) -> list[MediaTask]:
        """Awaitable twin of `find_tasks`."""
        return await self._arun(self._checked_find(client_ref, submitted_after, operation, arguments, traces))

    def cancel_task(self, media_task_id: str) -> MediaTask:
        """Stop a running task. Raises MediaRequestError where the provider cannot (`can_cancel`)."""
        return self._run(self._checked_cancel(media_task_id))

    async def acancel_task(self, media_task_id: str) -> MediaTask:
        """Awaitable twin of `cancel_task`."""
        return await self._arun(self._checked_cancel(media_task_id))

    def get_balance(self) -> MediaBalance:
        """What the account can spend. Raises MediaRequestError where the provider does not say."""
        return self._run(self._checked_balance())

    async def aget_balance(self) -> MediaBalance:
        """Awaitable twin of `get_balance`."""
        return await self._arun(self._checked_balance())

    def test_connection(self) -> tuple[bool, str]:
        """Airflow's *Test* button: all that the connection says, then the balance, or what proves the key."""
        try:
            self.check_settings()
            if self.shows_balance():
                balance = self.get_balance()
                if balance.is_empty:
                    return True, f"ok, but with a balance of {balance} nothing can be generated"
                return True, f"ok, balance {balance}"
            self._run(self._probe())
        except (MediaTaskError, AirflowException) as error:
            return False, f"{error}{self._to_check(error)}"
        proven = "the key is accepted" if self._has_key else "it answers, without a key"
        return True, f"ok, {proven} (this provider's API shows no balance)"

    def check_settings(self) -> None:
        """Override this where a connection's extra says more than prices, models and an address.

        :raises MediaRequestError: naming what is wrong in the connection, and what is allowed.
        """
        Prices.of(self)
        self._models()
        self._check_extra()
        self.roads_of("")

    def shows_balance(self) -> bool:
        """Override this where `has_balance` depends on the connection."""
        return self.has_balance

    def _to_check(self, error: Exception) -> str:
        """What a person can look at, whose connection ends in *error*."""
        if not isinstance(error, MediaTaskError) or not error.provider:
            return ""
        if isinstance(error, MediaAuthError):
            # Without a code it is our own, and says so already.
            return (
                ""
                if error.code is None
                else ". Look at the key in this connection, and whether the account may use the API"
            )
        if isinstance(error, MediaRateLimitError):
            return ". The key may be good: test again in a minute"
        if isinstance(error, (MediaNotFoundError, MediaRequestError, MediaProviderError)):
            return f". Look at the base URL; left empty it is {self.base_url}"
        return ""

    def check(self, operation: str, arguments: Any) -> tuple[str, dict[str, Any]]:
        """The operation's full name and the *arguments* in neutral words, if a submission may be tried.

        :raises MediaRequestError: naming what is wrong and what is allowed; nothing is sent.
        """
        self._check_extra()
        name = self.operation_name(operation)
        checked = self.operations[name].check(name, arguments)
        model = self._models().get(name)
        return name, checked if model is None else {"model": model, **checked}

    def _check_extra(self) -> None:
        """Raises MediaRequestError if the connection's extra says what cannot be an address."""
        extra, where = self.settings.extra, f"connection {self.media_conn_id!r}"
        address = extra.get(self.reference) if self.reference.endswith("_url") else None
        if address and not is_address(address):
            raise MediaRequestError(
                f"{where}: {self.reference} in extra must be an http or https URL, got {shown(address)}"
            )

    def roads_of(self, word: str) -> list[Road]:
        """The ways by which a file of the argument *word* reaches the provider, the preferred one first.

        The connection's `material` (extra), a way or several separated by commas, says which, and in which
        order; without it they are those of the table.

        :raises MediaRequestError: if it says something else.
        """
        given = self.settings.extra.get("material") or ""
        ways = [way.strip() for way in str(given).split(",") if way.strip()]
        have = [road.way for road in self.roads]
        if not set(ways) <= set(have):
            raise MediaRequestError(
                f"connection {self.media_conn_id!r}: material in extra must be one or more of "
                f"{', '.join(dict.fromkeys(have))}, separated by commas, got {shown(given)}"
            )
        roads = [road for way in ways for road in self.roads if road.way == way] if ways else [*self.roads]
        return [road for road in roads if road.takes(word)]

    def operation_name(self, operation: str) -> str:
        """Override this where an account serves several services and a short name can be completed."""
        if operation in list(self.operations):
            return operation
        raise MediaRequestError(
            f"{self.named} has no operation {shown(operation)}; there are: "
            + ", ".join(sorted(self.operations)),
            provider=self.conn_type,
        )

    def check_id(self, media_task_id: Any) -> str:
        """*media_task_id* itself. Raises MediaRequestError if it is not of this provider's form.

        What may follow the group is one rule for all providers, and the same when a task is submitted: an id
        that a provider has given is never refused afterwards.
        """
        if self._is_id(media_task_id):
            return str(media_task_id)
        raise MediaRequestError(
            f"media_task_id {shown(media_task_id)} is none of {self.conn_type}'s, which look like "
            f"{self.id_form}; is media_conn_id {self.media_conn_id!r} the account it was submitted with?",
            provider=self.conn_type,
        )

    @staticmethod
    def group_of(media_task_id: str) -> str:
        """What precedes a task's own id: tasks of one group can be asked for together."""
        return media_task_id.rpartition("/")[0]

    def lists_of(self, group: str) -> tuple[str, ...]:
        """The lists in which many tasks of a group can be looked for: a word for each."""
        listed = any(op.listed for op in self.operations.values() if op.group == group)
        return self.listing.words if self.listing and listed else ()

    def read_tasks(
        self, media_task_ids: Collection[str]
    ) -> Conversation[dict[str, MediaTask | MediaTaskError]]:
        """Each id's task, or why it alone could not be read; for ids of one group, `batch_size` at most.

        One unreadable task does not hide the others; what concerns them all (the account, the network, a
        batch reply that makes no sense) is raised.
        """
        found: dict[str, MediaTask | MediaTaskError] = {}
        for id_ in media_task_ids:
            try:
                self.check_id(id_)
            except MediaRequestError as error:
                found[id_] = error
        ids = [id_ for id_ in media_task_ids if id_ not in found]
        if len(ids) == 1:
            try:
                found[ids[0]] = yield from self._get_task(ids[0])
            except MediaNotFoundError as error:
                found[ids[0]] = error
        elif ids:
            found.update((yield from self._get_batch(ids)))
        for id_ in ids:
            if id_ not in found:
                try:
                    found[id_] = yield from self._get_task(id_)
                except (MediaNotFoundError, MediaRequestError, MediaProviderError) as error:
                    found[id_] = error
        return found

    async def aread_tasks(self, media_task_ids: Collection[str]) -> dict[str, MediaTask | MediaTaskError]:
        """Runs `read_tasks`; what the poller asks with."""
        return await self._arun(self.read_tasks(media_task_ids))

    async def aread_page(self, group: str, word: str, page: int) -> tuple[list[MediaTask], bool]:
        """Runs `_list_page`; what the poller looks for many tasks with."""
        return await self._arun(self._list_page(group, word, page))

    def _is_id(self, media_task_id: Any) -> bool:
        if not isinstance(media_task_id, str):
            return False
        group, _, own_id = media_task_id.rpartition("/")
        return is_id(own_id) and self.id_groups.fullmatch(group) is not None

    # The conversations behind the public methods.

    def _checked_submit(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        client_ref: str | None,
        handed: Mapping[str, str] | None,
    ) -> Conversation[MediaTask]:
        name, checked = self.check(operation, arguments)
        self.operations[name].check_handed(name, checked, handed or {})
        checked = in_place(checked, handed or {})
        try:
            task = yield from self._submit(name, self.operations[name], checked, client_ref)
        except MediaProviderError as error:
            if error.code in NOT_SENT:
                raise
            raise SubmissionOutcomeUnknown(
                f"{name!r} was sent and may have been accepted and billed: {error}",
                provider=self.conn_type,
                code=error.code,
            ) from error
        if self._is_id(task.id):
            return task
        raise SubmissionOutcomeUnknown(
            f"{name!r} was sent and may have been accepted and billed: {self.conn_type} calls it "
            f"{shown(task.id)}, which cannot be an id",
            provider=self.conn_type,
        )

    def _read_all(self, media_task_ids: Iterable[str]) -> Conversation[dict[str, MediaTask]]:
        groups: dict[str, list[str]] = {}
        for media_task_id in dict.fromkeys(media_task_ids):
            groups.setdefault(self.group_of(self.check_id(media_task_id)), []).append(media_task_id)
        found: dict[str, MediaTask] = {}
        for ids in groups.values():
            for start in range(0, len(ids), self.batch_size):
                answer = yield from self.read_tasks(ids[start : start + self.batch_size])
                for media_task_id, task in answer.items():
                    if isinstance(task, MediaTask):
                        found[media_task_id] = task
                    elif not isinstance(task, MediaNotFoundError):
                        raise task
        return found

    def _checked_find(
        self,
        client_ref: str | None,
        submitted_after: datetime | None,
        operation: str | None,
        arguments: Mapping[str, Any] | None,
        traces: Mapping[str, str] | None = None,
    ) -> Conversation[list[MediaTask]]:
        if submitted_after is not None and submitted_after.tzinfo is None:
            raise MediaRequestError(f"submitted_after must have a time zone, got {submitted_after!r}")
        if submitted_after is not None and not 1970 < submitted_after.year < 9999:
            raise MediaRequestError(f"submitted_after must be a time of a submission, got {submitted_after}")
        name = None if operation is None else self.operation_name(operation)
        if arguments is not None:
            if name is None:
                raise MediaRequestError(
                    "arguments can only be compared for a given operation: pass operation too"
                )
            _, arguments = self.check(name, arguments)
        known = {path: (traces or {}).get(path, "") for _, path in paths_in(arguments or {})}
        tasks = yield from self._find_tasks(client_ref, submitted_after, name, arguments, known)
        strange = [task.id for task in tasks if not self._is_id(task.id)]
        if strange and not (client_ref is None and arguments is None):
            raise SubmissionOutcomeUnknown(
                f"{self.conn_type} lists it as {shown(strange[0])}, which cannot be an id",
                provider=self.conn_type,
            )
        return [task for task in tasks if task.id not in strange]

    def _checked_cancel(self, media_task_id: str) -> Conversation[MediaTask]:
        self._can("cancel a task", self.can_cancel)
        return (yield from self._cancel_task(self.check_id(media_task_id)))

    def _checked_balance(self) -> Conversation[MediaBalance]:
        self._can("say an account's balance", self.shows_balance())
        return (yield from self._get_balance())

    def _can(self, what: str, can: bool) -> None:
        if not can:
            raise MediaRequestError(f"{self.conn_type}'s API cannot {what}", provider=self.conn_type)
