"""The conversations that a provider's tables describe: submit, look, list, cancel, ask for a balance.

A provider writes down what is so (`tables.py`, `operations.py`), and overrides the method where it is odd.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import quote

from airflow_media_tasks.task import (
    MAX_FILES,
    MediaBalance,
    MediaCost,
    MediaFile,
    MediaNotFoundError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    TaskStatus,
    code_of,
    shown,
)
from airflow_media_tasks.wire.conversations import Conversation, ConversationHook, Reply, Request
from airflow_media_tasks.wire.documents import as_number, as_text, as_time, is_id, kind_of_key, object_of
from airflow_media_tasks.wire.files import Found, has_failed, kind_of, texts_in, urls_in
from airflow_media_tasks.wire.masking import unsigned
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import at, put
from airflow_media_tasks.wire.roads import Road, Takes
from airflow_media_tasks.wire.tables import Balance, Call, Document, Listing, Refusals, words_of


class ProtocolHook(ConversationHook):
    """Part of `MediaHook`: what a provider's tables are, and the conversations made of them."""

    # The tables.

    operations: ClassVar[Mapping[str, Operation]]
    """What the provider can do, by name."""
    submitted_id: ClassVar[str] = "id"
    """Where a submission's reply has the provider's own id of the task: JMESPath, from the reply's top."""
    submitted_parts: ClassVar[re.Pattern[str] | None] = None
    """What parts a name with slashes that stands there into the group and the provider's own id."""
    document: ClassVar[Document] = Document()
    """Where a task's document says what."""
    refusal: ClassVar[Refusals] = Refusals()
    """Where an error says what, and what its codes mean."""
    look: ClassVar[Call]
    """How one task is asked for, by `{id}` and `{group}`."""
    look_at_many: ClassVar[Call | None] = None
    """How tasks of one group are asked for by `{ids}`, at most `batch_size`; None where they cannot be."""
    many: ClassVar[str] = ""
    """Where their documents stand in the reply to that."""
    result: ClassVar[Call | None] = None
    """What is asked once a task has ended, where the files stand in a document of their own.

    It stands in the task's document as `result`. Where it is refused, and the refusal `answers` (see `Call`),
    the task has failed.
    """
    result_of: ClassVar[tuple[TaskStatus, ...]] = (TaskStatus.SUCCEEDED,)
    """Of tasks that have ended how, that is asked."""
    content: ClassVar[Call | None] = None
    """What a finished task's file is fetched by, by its `{id}`, where the document names no address of it.

    Its host must be among `keyed_hosts` if the key is needed for it.
    """
    find: ClassVar[Call | None] = None
    """How a task is asked for by `{ref}`, our reference, and `{group}`; None where it cannot be."""
    listing: ClassVar[Listing | None] = None
    """The list of an account's tasks, newest first; None where there is none."""
    cancel: ClassVar[Call | None] = None
    """How a running task is stopped; None where it cannot be."""
    balance: ClassVar[Balance | None] = None
    """How to see what the account can spend; None where it does not say."""
    proof: ClassVar[Call | None] = None
    """The cheapest call that proves the key, where there is no balance."""
    always: ClassVar[Mapping[str, Any]] = {}
    """What every submission says in its body beside what was asked for."""
    reference: ClassVar[str] = ""
    """The place in a submission's body that keeps a reference of ours; empty where there is none.

    Of a `..._url`, which the provider calls when a task has ended, it is a parameter.
    """
    deaf_path: ClassVar[str] = "/"
    """A path of the provider's own where such a call does no harm, for connections that name no address."""
    groups: ClassVar[Mapping[str, str]] = {}
    """What the group of a `media_task_id` is in a path, where that is something else."""
    units: ClassVar[tuple[str, ...]] = ()
    """What costs are counted in, where that is no currency; a price table may give each in money."""
    batch_size: ClassVar[int] = 1
    """How many tasks one status request can ask about."""
    roads: ClassVar[tuple[Road, ...]] = (Road(Road.URL),)
    """How a file of one's own reaches the provider, in the order in which the ways are tried."""
    takes: ClassVar[Mapping[str, Takes]] = {}
    """What it takes of each kind (`image`, `video`, `audio`); one that is not there has no limits."""

    def __init__(self, media_conn_id: str | None = None) -> None:
        super().__init__(media_conn_id)
        self._unknown_words: set[str] = set()

    # What an odd provider overrides.

    def _group(self, name: str, operation: Operation, arguments: Mapping[str, Any], reply: Reply) -> str:  # noqa: ARG002  # for subclasses
        """What precedes the id of the task that was just submitted."""
        return operation.group

    def _models(self) -> Mapping[str, str]:
        """Which model an operation uses unless it is told, by the connection's extra.

        :raises MediaRequestError: if that is no table of them, nor the JSON of one.
        """
        given = models = self.settings.extra.get("models") or {}
        if isinstance(given, str):
            with contextlib.suppress(ValueError):
                models = json.loads(given)
        known = isinstance(models, Mapping) and not set(models) - set(self.operations)
        if not known or not all(isinstance(model, str) and model for model in models.values()):
            raise MediaRequestError(
                f"connection {self.media_conn_id!r}: models in extra must be an object of operation to "
                f'model, such as {{"{next(iter(self.operations))}": "..."}}, got {shown(given)}'
            )
        return dict(models)

    def _body(self, name: str, operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # for subclasses
        """The body of a submission, without a reference."""
        return operation.body(arguments)

    def _refer(self, body: dict[str, Any], client_ref: str) -> None:
        """Puts our reference into the *body* of a submission that can be `marked`.

        In an address it comes last: the caller's own, else the connection's, else one where nothing listens.
        """
        if self.reference.endswith("_url"):
            address = body.get(self.reference) or self.settings.extra.get(self.reference)
            address = address or f"{self.base_url}{self.deaf_path}"
            client_ref = f"{address}{'&' if '?' in address else '?'}ref={quote(client_ref, safe='')}"
        if self.reference:
            put(body, self.reference, client_ref)

    def _submitted(
        self,
        media_task_id: str,
        reply: Reply,
        name: str,
        body: Mapping[str, Any],  # noqa: ARG002  # for subclasses
    ) -> MediaTask:
        """The task that the *reply* to a submission shows, whose *body* was sent."""
        return self._task(media_task_id, self._within(reply), name, submitted=True)

    def _operation_of(self, media_task_id: str, document: Mapping[str, Any]) -> str:
        """The operation that a task's *document* shows that it comes from; empty if it does not.

        That is the one with what always stands in its body in the echo of the request; of several, the one
        with most in it.
        """
        echo = at(self.document.request, document)
        if not isinstance(echo, Mapping) or not echo:
            return ""
        group = media_task_id.rpartition("/")[0]
        made, most = "", -1
        for name, operation in self._telling.get(group, ()):
            count = operation.echoed_in(echo)
            if count is not None and count > most:
                made, most = name, count
        return made

    @cached_property
    def _telling(self) -> Mapping[str, list[tuple[str, Operation]]]:
        """By group, the operations that can be told from an echo of their request."""
        telling: dict[str, list[tuple[str, Operation]]] = {}
        for name, operation in self.operations.items():
            if operation.fixed:
                telling.setdefault(operation.group, []).append((name, operation))
        return telling

    def _outputs(self, document: Mapping[str, Any]) -> Any:
        """What in a finished task's *document* holds what was made."""
        if self.content is None:
            return at(self.document.outputs, document)
        own_id = as_text(at(self.document.id, document))
        return {"url": self.url_of(self.content.request(id=own_id))} if is_id(own_id) else None

    def _kind_of(self, found: Found, made: str) -> str:
        """The kind of a file, of a task that makes *made*."""
        return kind_of(found, made)

    def _file(self, found: Found, made: str) -> MediaFile:
        return found.file(self._kind_of(found, made))

    def _ask(self, request: Request) -> Conversation[Reply]:
        """One request and its reply."""
        return (yield request)

    # The conversations.

    def _submit(
        self, name: str, operation: Operation, arguments: Mapping[str, Any], client_ref: str | None
    ) -> Conversation[MediaTask]:
        """Submits *arguments* (checked, in neutral words) with one paid request."""
        body = {**self._body(name, operation, arguments), **self.always}
        if client_ref is not None and operation.marked:
            self._refer(body, client_ref)
        reply = yield from self._ask(
            Request(
                "POST",
                operation.submit_path(arguments),
                json=body,
                headers=operation.headers,
                host=operation.host,
                form=operation.form,
                paid=True,
                timeout=operation.timeout,
            )
        )
        said = as_text(at(self.submitted_id, reply.document))
        parts = self.submitted_parts.fullmatch(said or "") if self.submitted_parts else None
        own_id = parts[2] if parts else said
        if not is_id(own_id):
            place = self.submitted_id.partition(" ")[0]
            raise self.senseless(reply, f"{'an' if place[0] in 'aeiou' else 'a'} {place}")
        group = parts[1] if parts else self._group(name, operation, arguments, reply)
        return self._submitted(handle(group, str(own_id)), reply, name, body)

    def _upload(self, road: Road, content: bytes, slots: Mapping[str, Any]) -> Conversation[str]:
        """What stands in a request for *content*, once the provider has it; see `Step` for *slots*."""
        known = dict(slots)
        for step in road.steps:
            reply = yield from self._ask(step.request(content, known))
            for slot, place in step.keep.items():
                header = step.header_of(place)
                known[slot] = at(place, reply.document) if header is None else reply.headers.get(header)
                if known[slot] is None:
                    raise self.senseless(reply, f"the {slot} of an upload ({place})")
        return str(known["value"])

    def _get_task(self, media_task_id: str) -> Conversation[MediaTask]:
        """Raises MediaNotFoundError where the provider does not know the task."""
        document = yield from self._look(self.look, **self._slots(media_task_id))
        if self.find is not None and is_id(own_id := as_text(at(self.document.id, document))):
            # It may have been our reference that was asked for.
            media_task_id = handle(media_task_id.rpartition("/")[0], str(own_id))
        return (yield from self._complete(media_task_id, document))

    def _slots(self, media_task_id: str) -> dict[str, str]:
        """What a call about one task has in its slots."""
        group, _, own_id = media_task_id.rpartition("/")
        return {"id": own_id, "group": self.groups.get(group, group)}

    def _look(self, call: Call, **slots: str) -> Conversation[Mapping[str, Any]]:
        """The document of one task."""
        try:
            reply = yield from self._ask(call.request(**slots))
        except MediaRequestError as error:
            if error.code not in self.refusal.unknown:
                raise
            raise MediaNotFoundError(error.message, provider=self.conn_type, code=error.code) from error
        document = self._within(reply)
        if not document:
            within = self.document.within
            raise self.senseless(reply, f"a task in {within}" if within else "a task document")
        return document

    def _complete(self, media_task_id: str, document: Mapping[str, Any]) -> Conversation[MediaTask]:
        """The task of *document*, with what its files need a call of their own for."""
        if self.result is None:
            return self._task(media_task_id, document)
        status = self._status_in(document, media_task_id)[1]
        if status not in self.result_of:
            return self._task(media_task_id, document)
        try:
            reply = yield from self._ask(self.result.request(**self._slots(media_task_id)))
        except MediaNotFoundError:
            if status is TaskStatus.SUCCEEDED:
                raise
            return self._task(media_task_id, document)
        if reply.status < 400:
            return self._task(media_task_id, {**document, "result": reply.body})
        code, words = self._said(reply.document)
        failure = self.task_failed(media_task_id, code, words, self._failure_class(code, words))
        return self.media_task(media_task_id, TaskStatus.FAILED, code, failure=failure, raw=document)

    def _get_file(self, media_task_id: str, index: int) -> Conversation[bytes]:
        """See `MediaHook.get_file`."""
        whole = replace(self.look, inline="whole")
        document = yield from self._look(whole, **self._slots(media_task_id))
        held = at(self.document.inline, document)
        try:
            return base64.b64decode(held[index], validate=True)
        except (TypeError, ValueError, IndexError, KeyError):
            raise MediaNotFoundError(
                f"{self.named} task {media_task_id} has no file {index} any more", provider=self.conn_type
            ) from None

    def _get_batch(self, media_task_ids: list[str]) -> Conversation[dict[str, MediaTask]]:
        """One request for all ids, which share a `group_of`.

        An id that the provider leaves out of its answer is left out here too; it is then asked for alone.
        """
        if self.look_at_many is None:
            raise NotImplementedError
        wanted = {media_task_id.rpartition("/")[2]: media_task_id for media_task_id in media_task_ids}
        slots = self._slots(media_task_ids[0])
        call = self.look_at_many.request(group=slots["group"], ids=list(wanted), limit=len(wanted))
        reply = yield from self._ask(call)
        found: dict[str, MediaTask] = {}
        for own_id, document in self._documents(reply, self.many):
            media_task_id = wanted.get(own_id)
            if media_task_id is not None and media_task_id not in found:
                with contextlib.suppress(MediaNotFoundError):
                    found[media_task_id] = yield from self._complete(media_task_id, document)
        return found

    def _list_page(self, group: str, word: str, page: int) -> Conversation[tuple[list[MediaTask], bool]]:
        """The tasks on a page of a list, from 0, and whether there is another.

        :param group: see `MediaHook.group_of`.
        :param word: one of `lists_of` that group.
        """
        tasks, more, _ = yield from self._read_page(group, word, page, {})
        return tasks, more

    def _read_page(
        self, group: str, word: str, page: int, slots: Mapping[str, Any]
    ) -> Conversation[tuple[list[MediaTask], bool, str | None]]:
        """As of `_list_page`, and the cursor of the next page.

        :param slots: `since`, `since_iso`, `cursor` and `model`, where they are known.
        """
        listing = self.listing
        if listing is None:
            raise NotImplementedError
        request = listing.call.request(
            group=self.groups.get(group, group),
            word=word or None,
            number=page + 1,
            offset=page * listing.size or None,
            limit=listing.size,
            **{"since": None, "since_iso": None, "cursor": None, **slots},
        )
        reply = yield from self._ask(request)
        documents = self._documents(reply, listing.items)
        tasks = []
        for own_id, document in documents:
            with contextlib.suppress(MediaNotFoundError):
                tasks.append(self._task(handle(group, own_id), document))
        cursor = listing.next_cursor(reply.document)
        if listing.cursor or listing.more:
            more = cursor is not None if listing.cursor else bool(at(listing.more, reply.document))
        else:
            more = len(at(listing.items, reply.document)) >= listing.size
        return tasks, more and page + 1 < listing.last, cursor

    def _cancel_task(self, media_task_id: str) -> Conversation[MediaTask]:
        if self.cancel is None:
            raise NotImplementedError
        yield from self._ask(self.cancel.request(**self._slots(media_task_id)))
        return (yield from self._get_task(media_task_id))

    def _get_balance(self) -> Conversation[MediaBalance]:
        if self.balance is None:
            raise NotImplementedError
        *others, last = self.balance.calls
        reply: Reply | None = None
        for call in others:
            try:
                reply = yield from self._ask(call.request())
                break
            except MediaNotFoundError:
                continue
        reply = reply or (yield from self._ask(last.request()))
        table, document = self.balance, reply.document
        amount = as_text(at(table.amount, document))
        if amount is None:
            raise self.senseless(reply, f"a balance ({table.amount})")
        unit = as_text(at(table.unit_at, document)) or table.unit
        return MediaBalance(amount, unit, as_text(at(table.reserved, document)))

    def _probe(self) -> Conversation[None]:
        if self.proof is None:
            yield from self._get_balance()
        else:
            yield from self._ask(self.proof.request(group="", since=None))

    # Reading.

    def error_of(self, reply: Reply) -> MediaTaskError | None:
        """As the table says; without a code and words of the provider's own, by HTTP status.

        Returns None for a good reply.
        """
        if reply.status < 400 and reply.body is not None and not at(self.refusal.refused, reply.document):
            return None
        code, words = self._said(reply.document)
        if code is None and words is None:
            return super().error_of(reply)
        return self._refused(reply, self.refusal.class_of(code, words, reply.status))

    def _refused(self, reply: Reply, cls: type[MediaTaskError] | None) -> MediaTaskError:
        """The error of a *reply* that the provider itself has written; without a class, by HTTP status."""
        table, document = self.refusal, reply.document
        request_id, retry_after = at(table.request_id, document), as_number(at(table.retry_after, document))
        code, words = self._said(document)
        # As the provider writes it, a number as a number.
        as_is = None if code is None else at(table.code, document)
        return self.error(cls, reply, as_is, words, request_id, retry_after=retry_after)

    def _said(self, document: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """The code and the words of an error."""
        code = as_text(at(self.refusal.code, document))
        return code, words_of(at(self.refusal.words, document))

    def _within(self, reply: Reply) -> Mapping[str, Any]:
        return object_of(at(self.document.within, reply.document)) if self.document.within else reply.document

    def _documents(self, reply: Reply, place: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The tasks at *place* in a reply, each with its own id."""
        listed = at(place, reply.document)
        if not isinstance(listed, list):
            raise self.senseless(reply, f"a list of {place}")
        documents = [document for document in listed if isinstance(document, Mapping)]
        ids = [as_text(at(self.document.id, document)) for document in documents]
        return [
            (own_id, document) for own_id, document in zip(ids, documents, strict=True) if own_id is not None
        ]

    def _status_in(self, document: Mapping[str, Any], media_task_id: str) -> tuple[str | None, TaskStatus]:
        """The status word of a task's document, and what it means."""
        word = at(self.document.status, document)
        if isinstance(word, str) and word in self.document.statuses:
            return word, self.document.statuses[word]
        if isinstance(word, str) and word in self.document.lost:
            raise MediaNotFoundError(
                f"{self.named} says {shown(word)} of task {media_task_id}", provider=self.conn_type, code=word
            )
        return (word if isinstance(word, str) else None), self.status_of(word, media_task_id)

    def _task(
        self, media_task_id: str, document: Mapping[str, Any], name: str = "", *, submitted: bool = False
    ) -> MediaTask:
        """The task that a *document* describes, by the table.

        :param name: the operation, if it is known.
        :param submitted: whether it is the reply to a submission, which may have no status word yet.
        """
        table = self.document
        if submitted and at(table.status, document) is None:
            word, status = None, TaskStatus.QUEUED
        else:
            word, status = self._status_in(document, media_task_id)
        operation = name or self._operation_of(media_task_id, document)
        progress = as_number(at(table.progress, document)) if table.progress else None
        rest: dict[str, Any] = {
            "operation": operation,
            "progress": None if progress is None else min(max(progress / table.whole, 0.0), 1.0),
            "cost": self._cost(document),
            "created_at": self._time(table.created_at, document),
            "raw": document,
        }
        if not status.is_terminal:
            return MediaTask(media_task_id, status, status_word=word or "", **rest)
        if status is TaskStatus.SUCCEEDED:
            self._count_failed(media_task_id, document)
            return self.media_task(
                media_task_id, status, word, files=self._files(media_task_id, document, operation), **rest
            )
        code = as_text(at(table.failure_code, document))
        words = words_of(at(table.failure, document))
        failure = self.task_failed(
            media_task_id, code or word, words or word, self._failure_class(code, words)
        )
        return self.media_task(media_task_id, status, word, failure=failure, **rest)

    def _cost(self, document: Mapping[str, Any]) -> MediaCost | None:
        table = self.document
        if not table.cost and not table.estimated:
            return None
        amount, estimated = as_text(at(table.cost, document)), as_text(at(table.estimated, document))
        return MediaCost(table.unit, amount, estimated) if amount or estimated else None

    def _files(self, media_task_id: str, document: Mapping[str, Any], operation: str) -> Iterable[MediaFile]:
        """What a finished task made."""
        table = self.document
        made = self.operations[operation].kind if operation in self.operations else ""
        held = at(table.inline, document)
        if isinstance(held, list) and held:
            # An address of its own, by which a page and a record tell it from others; nothing is there.
            path = quote(f"/{media_task_id}")
            for number in range(min(len(held), MAX_FILES)):
                url = f"{self._address('')}{path}#{number}"
                yield MediaFile(made or kind_of_key(table.inline) or "file", url, access="task")
            return
        asked = texts_in(at(table.request, document))
        ended_at = self._time(table.ended_at, document)
        found_urls = urls_in(self._outputs(document), any_text=table.any_text, but=asked)
        for found in islice(found_urls, MAX_FILES):
            file = self._file(found, made)
            if self.needs_key(file.url):
                file = replace(file, access="key")
            if file.expires_at is None and table.kept is not None:
                file = replace(file, expires_at=(ended_at or datetime.now(timezone.utc)) + table.kept)
            yield file

    def _count_failed(self, media_task_id: str, document: Mapping[str, Any]) -> None:
        items = at(self.document.items, document) or []
        failed = sum(1 for item in items if isinstance(item, Mapping) and has_failed(item))
        if failed:
            self.log.warning(
                "%s of %s items of %s task %s failed, the others are kept",
                failed,
                len(items),
                self.conn_type,
                media_task_id,
            )

    @staticmethod
    def _time(place: str, document: Mapping[str, Any]) -> datetime | None:
        return as_time(at(place, document)) if place else None

    def _failure_class(self, code: str | None, words: str | None) -> type[MediaTaskError]:
        return self.refusal.failure_of(code, words) or MediaTaskFailed

    def status_of(self, word: Any, media_task_id: str) -> TaskStatus:
        """The status of the provider's *word*; one that nobody knows is running, and is logged once."""
        status = TaskStatus.from_word(word) if isinstance(word, str) else None
        if status is None:
            seen = shown(word)
            if seen not in self._unknown_words:
                self._unknown_words.add(seen)
                self.log.warning(
                    "%s says %s of task %s, a status this package does not know; taken as still running",
                    self.conn_type,
                    seen,
                    media_task_id,
                )
            return TaskStatus.RUNNING
        return status

    def media_task(
        self,
        media_task_id: str,
        status: TaskStatus,
        word: str | None,
        *,
        files: Iterable[MediaFile] = (),
        failure: MediaTaskError | None = None,
        **rest: Any,
    ) -> MediaTask:
        """A `MediaTask` that keeps the rules which hold for every provider.

        Files count once the task has succeeded: what stands in the document before is a preview. A task
        that calls itself finished and shows nothing but a thumbnail has failed (`no_output`).

        :param failure: why, if *status* says that it failed.
        :param rest: the other fields of `MediaTask`.
        """
        made = tuple(files) if status is TaskStatus.SUCCEEDED else ()
        error = None
        if status is TaskStatus.SUCCEEDED and all(file.kind == "thumbnail" for file in made):
            status = TaskStatus.FAILED
            error = self.task_failed(
                media_task_id, "no_output", f"{word or 'finished'} without an output URL"
            )
        elif status.is_terminal and status is not TaskStatus.SUCCEEDED:
            error = failure or self.task_failed(media_task_id, word, word)
        return MediaTask(
            id=media_task_id, status=status, status_word=word or "", files=made, error=error, **rest
        )

    def task_failed(
        self, media_task_id: str, code: Any, words: Any, cls: type[MediaTaskError] = MediaTaskFailed
    ) -> MediaTaskError:
        """The error of a task that ended failed, with what the provider said of it."""
        says = shown(unsigned(words), 500) if words else "no reason given"
        return cls(
            f"{self.named} task {media_task_id} failed: {says}",
            provider=self.conn_type,
            code=code_of(code),
            media_task_id=media_task_id,
        )


def handle(group: str, own_id: str) -> str:
    """The `media_task_id` of the provider's own id in a group, which may be none."""
    return f"{group}/{own_id}" if group else own_id
