"""Whether a real account answers as the provider's table says: `airflow media-tasks doctor --conn-id X`.

Asked is only what is free: the balance or what else proves the key, the lists, tasks that stand in them, and
a task that there cannot be. What differs from the table is said with the shape of each reply: names, types,
status words and codes, and no other value, so that the report can be shown to anybody.
"""

from __future__ import annotations

import dataclasses
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from airflow_media_tasks import __version__
from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import MediaAuthError, MediaNotFoundError, MediaTask, MediaTaskError, TaskStatus
from airflow_media_tasks.wire.conversations import SENSELESS, Reply, Request
from airflow_media_tasks.wire.documents import as_text, as_time, is_id
from airflow_media_tasks.wire.places import at


T = TypeVar("T")

_MOST_LISTS = 12
"""Of a provider that has one for each kind of task."""
_DEEPEST = 8
_MOST_NAMES = 60
_LONGEST = 4000
"""Levels of a document, names of an object, and characters of both that are shown."""
# No id, address, sentence or key looks like one of these.
_NAME = re.compile(r"(?!(?:\D*\d){5})[A-Za-z_@$][\w@$.:-]{0,39}", re.ASCII)
_CODE = re.compile(r"(?:[A-Za-z][\w.:-]{0,39}|\d{1,5})", re.ASCII)


@dataclasses.dataclass
class Question:
    """One thing that was asked, with one request or several.

    :param what: in plain words.
    :param own_id: of the task that was asked for; its place is shown in its stead.
    :param heard: each request that was answered, with its reply.
    :param error: with what it ended, if not well.
    :param told: status words and codes that came, and what they are taken for.
    :param differs: what is not as the table says, a sentence each.
    """

    what: str
    own_id: str = ""
    heard: list[tuple[Request, Reply]] = dataclasses.field(default_factory=list)
    error: MediaTaskError | None = None
    told: list[str] = dataclasses.field(default_factory=list)
    differs: list[str] = dataclasses.field(default_factory=list)

    @property
    def reply(self) -> Reply | None:
        """The last one."""
        return self.heard[-1][1] if self.heard else None

    @property
    def document(self) -> Mapping[str, Any]:
        """Of the last reply."""
        return self.reply.document if self.reply is not None else {}


class Examination:
    """What one account answers, held against the table of its provider.

    :param hook: of the connection; from now on all that it hears is noted here.
    """

    def __init__(self, hook: MediaHook) -> None:
        self.hook = hook
        self.questions: list[Question] = []
        self.notes: list[str] = []
        """What could not be compared, and why."""
        self._known: dict[str, MediaTask] = {}
        hook.witness = self._hear

    @property
    def differs(self) -> list[str]:
        """All that is not as the table says."""
        return [f"{question.what}: {said}" for question in self.questions for said in question.differs]

    def run(self) -> None:
        """Asks everything that is free.

        :raises MediaTaskError: if the connection cannot be used: nothing answers, or the key is refused.
        """
        self.hook.check_settings()
        self.hook.send_before = 0.0  # nothing that is paid leaves
        try:
            with self.hook:
                self._account()
                self._lists()
                self._tasks()
                self._nobodys()
                self._many()
        finally:
            self.hook.send_before = None

    # What is asked.

    def ask(self, what: str, answer: Callable[[], T], own_id: str = "") -> tuple[Question, T | None]:
        """Notes what is heard while *answer* runs; no answer means that the question has an error."""
        question = Question(what, own_id)
        self.questions.append(question)
        try:
            return question, answer()
        except MediaTaskError as error:
            question.error = error
            if error.code is not None:
                question.told.append(f"code {self.word(error.code)} is taken for a {type(error).__name__}")
            return question, None

    def _hear(self, request: Request, reply: Reply) -> None:
        heard = self.questions[-1].heard
        if heard and heard[-1][0] == request:
            heard.pop()  # it was repeated
        heard.append((request, reply))

    def _account(self) -> None:
        hook, shows = self.hook, self.hook.shows_balance()
        table = hook.balance if shows else None
        what = "the balance" if shows else "what proves the key"
        question, _ = self.ask(what, hook.get_balance if shows else lambda: hook._run(hook._probe()))
        error = question.error
        if error is not None and (question.reply is None or isinstance(error, MediaAuthError)):
            raise error
        missing = f"no balance stands at `{table.amount}`" if table else "no balance is where it should be"
        question.differs += self.unanswered(question, missing)
        if table and error is None and table.unit_at and at(table.unit_at, question.document) is None:
            question.differs.append(f"no unit stands at `{table.unit_at}`")

    def _lists(self) -> None:
        if self.hook.listing is None:
            self.notes.append("a list: the table says that there is none")
            return
        for group in self.hook._groups_listed(None)[:_MOST_LISTS]:
            listed = [one.listed for one in self.hook.operations.values() if one.group == group]
            if listed and not any(listed):
                self.notes.append(f"the list of {group}: the table says that there is none")
                continue
            what = f"the list of {group}" if group else "the list"
            self.look_at_list(what, group, self._operation_in(group))
        if not self._known:
            self.notes.append("the documents of tasks: the lists were empty")

    def look_at_list(self, what: str, group: str, name: str | None) -> None:
        """Holds the first page of a list against the table.

        :param name: of an operation whose tasks are in it, or None.
        """
        listing = self.hook.listing
        if listing is None:
            return
        read = self.hook._pages_of(group, None, name, None)
        question, page = self.ask(what, lambda: self.hook._run(read(0)))
        question.differs += self.unanswered(question, f"no list stands at `{listing.items}`")
        if page is None:
            return
        tasks, items = page[0], at(listing.items, question.document)
        if len(items) > listing.size:
            question.differs.append(
                f"a page has {len(items)} tasks, and {listing.size} at most were expected"
            )
        place = self.hook.document.id
        nameless = sum(not (isinstance(x, Mapping) and is_id(as_text(at(place, x)))) for x in items)
        said = Counter({f"no id stands at `{place}`": nameless} if nameless else {})
        for task in tasks:
            if self.hook._is_id(task.id):
                self._known.setdefault(task.id, task)
            else:
                said["its id cannot be one"] += 1
            self._tell(question, task)
            # Where the files stand in a document of their own, so may why there are none.
            end = () if self.hook.result is not None else self._about_end(task)
            said.update((*self._about(task), *self._about_listed(task), *end))
        question.differs += [f"{words} ({count} of {len(items)} tasks)" for words, count in said.items()]
        times = [task.created_at for task in tasks if task.created_at is not None]
        if listing.by_time and times != sorted(times, reverse=True):
            question.differs.append("the newest submissions do not come first")

    def _tasks(self) -> None:
        for status in TaskStatus:
            listed = next((task for task in self._known.values() if task.status is status), None)
            if listed is None:
                continue
            own_id = listed.id.rpartition("/")[2]
            what = f"a task that is listed as {status}"
            question, task = self.ask(what, partial(self.hook.get_task, listed.id), own_id)
            self.hold(question, task)
            if task is not None and status.is_terminal and task.status is not status:
                question.differs.append(f"the task itself is {task.status}")

    def _nobodys(self) -> None:
        nobody = self._nobody()
        own_id = nobody.rpartition("/")[2]
        if not self.hook._is_id(nobody):
            self.notes.append("a task that there is not: the form of an id is not known")
            return
        question, task = self.ask("a task that there is not", partial(self.hook.get_task, nobody), own_id)
        if task is not None:
            question.differs.append(f"a task that is {task.status}, where there can be none")
        elif isinstance(question.error, MediaNotFoundError):
            # Where the table has no code for it, the HTTP status alone says it.
            table = self.hook.refusal
            has_code = bool(table.unknown) or MediaNotFoundError in table.codes.values()
            question.differs += self._strange_error(question.reply) if has_code else []
        else:
            question.differs += self.unanswered(question, "neither a task nor an error")
            question.differs.append("this is not taken for 'there is no such task'")

    def _many(self) -> None:
        if self.hook.look_at_many is None:
            return
        nobody = self._nobody()
        group = self.hook.group_of(nobody)
        known = [id_ for id_ in self._known if self.hook.group_of(id_) == group][: self.hook.batch_size - 1]
        ids = [*known, nobody]
        question, found = self.ask("many tasks at once", lambda: self.hook._run(self.hook._get_batch(ids)))
        question.differs += self.unanswered(question, f"no list stands at `{self.hook.many}`")
        if found is not None:
            missing = len(set(known) - set(found))
            question.differs += [f"{missing} of {len(known)} tasks are not in the reply"] if missing else []
            question.differs += ["a task that there is not is in the reply"] if nobody in found else []

    def _operation_in(self, group: str) -> str | None:
        """The cheapest operation, if it is in *group*, or the first one there; None if there is none."""
        names = [name for name, operation in self.hook.operations.items() if operation.group == group]
        if self.hook.cheapest is not None and self.hook.cheapest[0] in names:
            return self.hook.cheapest[0]
        return names[0] if names else None

    def _nobody(self) -> str:
        """The id of no task, in the form of those that there are."""
        for known in self._known:
            group, slash, own_id = known.rpartition("/")
            backwards = own_id[:-12] + own_id[:-13:-1]
            if len(own_id) >= 16 and f"{group}{slash}{backwards}" not in self._known:
                return f"{group}{slash}{backwards}"
        group = self.hook._groups_listed(None)[0]
        if not group and self.hook.cheapest is not None:
            name, arguments = self.hook.cheapest
            operation = self.hook.operations[name]
            group = self.hook._group(name, operation, {**operation.defaults, **arguments}, Reply(200, {}, ""))
        return f"{group}/{uuid.uuid4()}" if group else str(uuid.uuid4())

    # What is held against the table.

    def hold(self, question: Question, task: MediaTask | None) -> None:
        """Notes what differs in the reply to a *question* for one task."""
        within = self.hook.document.within
        question.differs += self.unanswered(
            question, f"no task stands at `{within}`" if within else "no task"
        )
        if task is None:
            return
        own_id = as_text(at(self.hook.document.id, task.raw))
        if question.own_id and own_id not in (None, question.own_id):
            question.differs.append("it has another id than the one that was asked for")
        self._tell(question, task)
        if task.files:
            question.told.append(f"files: {', '.join(file.kind for file in task.files)}")
        question.differs += [*self._about(task), *self._about_end(task)]

    def _tell(self, question: Question, task: MediaTask) -> None:
        word = self.word(task.status_word) if task.status_word else "without a word"
        said = f"status {word} is taken for {task.status}"
        question.told += [] if said in question.told else [said]

    def unanswered(self, question: Question, missing: str) -> Iterator[str]:
        """Why there is no answer, if there is none.

        :param missing: says it of a good reply that does not have what was asked for.
        """
        error, reply = question.error, question.reply
        if error is None:
            return
        refused = None if reply is None else self.hook.error_of(reply)
        if reply is None or (refused is None and error.code != SENSELESS):
            yield f"nothing came ({type(error).__name__})"
        elif refused is None or refused.code == SENSELESS:
            yield missing
        else:
            code = f", code {self.word(refused.code)}" if refused.code is not None else ""
            yield f"HTTP {reply.status}{code}, taken for a {type(refused).__name__}"
            yield from self._strange_error(reply)

    def _strange_error(self, reply: Reply | None) -> Iterator[str]:
        """What of an error is not in the table."""
        if reply is None or self.hook.error_of(reply) is None:
            return
        table = self.hook.refusal
        code, words = self.hook._said(reply.document)
        if code is None and words is None:
            yield f"an error with nothing at `{table.code or table.words}`"
            return
        is_known = code is None or code in table.unknown
        if not is_known and table.class_of(code, words, reply.status) is None:
            yield f"the table does not know the code {self.word(str(code))}"

    def _about(self, task: MediaTask) -> Iterator[str]:
        """What of a task's document is not as the table says, wherever it stands."""
        table = self.hook.document
        # The hook takes a word that it does not know for a running task, and tells its log only.
        if task.status is TaskStatus.RUNNING and task.status_word:
            if task.status_word not in table.statuses and TaskStatus.from_word(task.status_word) is None:
                yield f"the status word {self.word(task.status_word)} is not known"
        elif table.status and not task.status_word and not self._own("_status_in"):
            yield f"no status word stands at `{table.status}`"

    def _about_end(self, task: MediaTask) -> Iterator[str]:
        """What of a task's whole document does not tell its end as the table says."""
        table, document = self.hook.document, task.raw
        if task.status.is_terminal and table.ended_at and as_time(at(table.ended_at, document)) is None:
            yield f"it has ended, and no time stands at `{table.ended_at}`"
        if task.error is not None and task.error.code == "no_output":
            yield "it has succeeded, and no file is found"
        elif task.status is TaskStatus.FAILED and table.failure and not at(table.failure, document):
            yield f"it has failed, and nothing stands at `{table.failure}`"
        has_cost = bool(table.cost) or self._own("_cost")
        if task.status is TaskStatus.SUCCEEDED and has_cost and (task.cost is None or not task.cost.amount):
            yield "it has succeeded, and no cost is " + (f"at `{table.cost}`" if table.cost else "told")

    def _about_listed(self, task: MediaTask) -> Iterator[str]:
        """What of a listed task's document is not as finding a lost submission needs it."""
        table = self.hook.document
        if table.created_at and task.created_at is None:
            yield f"no time stands at `{table.created_at}`"
        if table.request and at(table.request, task.raw) is None:
            yield f"no echo of the request stands at `{table.request}`"

    def _own(self, method: str) -> bool:
        """Whether the provider has a *method* of its own, beside the table."""
        return getattr(type(self.hook), method) is not getattr(MediaHook, method)

    # What is shown.

    def report(self) -> str:
        """What differs, and every request with the shape of its reply, in Markdown."""
        hook = self.hook
        address = "its public address" if hook.settings.base_url == hook.base_url else "another address"
        lines = [
            f"# {hook.hook_name}, asked {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC",
            f"airflow-media-tasks {__version__}, connection type `{hook.conn_type}`, {address}",
            "## What differs from the table",
            "\n".join(f"* {said}" for said in self.differs) or "Nothing.",
        ]
        if self.notes:
            lines += ["## What could not be compared", "\n".join(f"* {note}" for note in self.notes)]
        lines.append("## What was asked")
        for question in self.questions:
            lines.append(f"### {question.what[0].upper()}{question.what[1:]}")
            lines += [self._shown(question, *heard) for heard in question.heard] or ["Nothing came."]
            lines += ["\n".join(f"* {told}" for told in question.told)] if question.told else []
        return "\n\n".join(lines) + "\n"

    def _shown(self, question: Question, request: Request, reply: Reply) -> str:
        own_id = quote(question.own_id, safe="")
        path = "/".join(
            part if part != own_id and self._is_plain(_NAME, part) else part and "{id}"
            for part in request.path.split("/")
        )
        sent = [name for name, value in request.params.items() if value is not None]
        sent += list(request.json) if isinstance(request.json, Mapping) else []
        with_ = f" with {', '.join(sent)}" if sent else ""
        came = self.shape(reply.body) if reply.body is not None else f"no JSON, {len(reply.text)} characters"
        return f"{request.method} {path}{with_}: HTTP {reply.status}\n\n    {came[:_LONGEST]}"

    def shape(self, document: Any, depth: int = 0) -> str:
        """Names and types in a *document*, without its values; of a list those of its first item."""
        if isinstance(document, Mapping):
            if depth == _DEEPEST:
                return "{...}"
            some = list(document.items())[:_MOST_NAMES]
            more = ["..."] if len(document) > len(some) else []
            inside = [f"{self._name(name)}: {self.shape(value, depth + 1)}" for name, value in some]
            return "{" + ", ".join(inside + more) + "}"
        if isinstance(document, list):
            return f"[{self.shape(document[0], depth + 1)}] x {len(document)}" if document else "[]"
        if isinstance(document, str):
            return f"text of {len(document)}"
        return {bool: "true or false", type(None): "null"}.get(type(document), "number")

    def word(self, said: str) -> str:
        """A status word or an error's code, if it looks like one."""
        return f"'{said}'" if self._is_plain(_CODE, said) else f"(a text of {len(said)} characters)"

    def _name(self, name: str) -> str:
        return name if self._is_plain(_NAME, name) else f"(a name of {len(name)} characters)"

    def _is_plain(self, form: re.Pattern[str], text: str) -> bool:
        settings = self.hook.settings
        secrets = [secret for secret in (settings.password, settings.login) if secret]
        return form.fullmatch(text) is not None and not any(secret in text for secret in secrets)
