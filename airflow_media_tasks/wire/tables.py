"""What a provider's wire protocol is written down as: what is asked, and where an answer says what.

Every place in a reply is a JMESPath expression (https://jmespath.org), read from the top of the reply's
document unless said otherwise; an empty one is a place that the provider does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from airflow_media_tasks.task import MediaExpiredError, MediaModerationError, MediaTaskError, TaskStatus
from airflow_media_tasks.wire.addresses import is_address
from airflow_media_tasks.wire.conversations import Request
from airflow_media_tasks.wire.documents import as_text
from airflow_media_tasks.wire.places import at, filled


@dataclass(frozen=True)
class Call:
    """One kind of request that costs nothing; `{slots}` in its texts are filled when it is made.

    The slots: `{id}` is the provider's own id, `{group}` what precedes it in the `media_task_id` as `groups`
    of the hook spells it, `{ids}` a list of ids, `{ref}` our reference. In a list, `{number}` is a page's,
    from 1, `{offset}` what is before it, `{limit}` its size, `{cursor}` what the page before named, `{word}`
    which list, `{since}` unix seconds, `{since_iso}` the same as text, `{model}` what was asked for. What is
    None is left out.

    :param path: below the base URL.
    :param host: one of the hook's `other_urls`, instead of the base URL; may be a slot.
    :param answers: where a refusal has what makes it an answer about the task: the provider's final word.
    :param inline: `short` where the reply may hold files in base64, see `Document`.
    :param timeout: seconds without a byte until we give up.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    answers: str = ""
    inline: str = ""
    timeout: float = 60.0

    def request(self, **values: Any) -> Request:
        """The request with *values* in its slots."""
        quoted = {
            name: quote(str(value), safe="/" if name == "group" else "") for name, value in values.items()
        }
        json = filled(self.json, values)
        if isinstance(json, dict):
            json = {name: value for name, value in json.items() if value is not None}
        return Request(
            self.method,
            filled(self.path, quoted),
            json=json,
            params=filled(self.params, values),
            headers=self.headers,
            host=filled(self.host, values),
            answers=self.answers,
            inline=self.inline,
            timeout=self.timeout,
        )


@dataclass(frozen=True)
class Listing:
    """The provider's list of an account's tasks.

    :param items: where the tasks stand; each is a task's document.
    :param size: of a page.
    :param more: whether there is another page; by default there is if this one is full.
    :param cursor: where the next page's `{cursor}` stands, if pages are not numbered: itself, or in an
        address as the parameter that it is in *call*. A page without one is the last.
    :param words: of lists, `{word}`, in which many waiting tasks can be looked for; those of what has ended
        are enough.
    :param last: the number of the last page that the provider shows.
    :param by_time: whether the newest submissions come first, so that not all pages need be read.
    :param shows_after: seconds after its submission until a task is certain to be there.
    """

    call: Call
    items: str
    size: int
    more: str = ""
    cursor: str = ""
    words: tuple[str, ...] = ()
    last: int = 1_000_000
    by_time: bool = True
    shows_after: float = 0.0

    def next_cursor(self, document: Mapping[str, Any]) -> str | None:
        """What the next page's `{cursor}` is, by this page's *document*."""
        said = as_text(at(self.cursor, document))
        if said is None or not is_address(said):
            return said
        (name,) = (name for name, value in self.call.params.items() if value == "{cursor}")
        return next(iter(parse_qs(urlsplit(said).query).get(name, [])), None)


@dataclass(frozen=True)
class Balance:
    """Where a reply says what an account can spend.

    :param unit: a currency code, or the provider's word; `unit_at` outranks it.
    """

    calls: tuple[Call, ...]
    amount: str
    unit: str
    unit_at: str = ""
    reserved: str = ""


@dataclass(frozen=True)
class Document:
    """Where a task's document says what.

    :param within: the document in the reply to a submission or to a look at one task; all other places are
        read from there.
    :param id: of the provider's own id of the task.
    :param status: of the word that says where it stands.
    :param statuses: what words mean that `TaskStatus.from_word` does not know, or knows otherwise.
    :param lost: words that say that there is no such task.
    :param progress: of a number from 0 to *whole*.
    :param whole: what progress is when all is done.
    :param items: of the parts of a set, each with a state of its own; the log counts those that failed.
    :param outputs: of what was made: a URL, or a list or an object with URLs at any depth.
    :param inline: of a list of files in base64, where they stand in the document itself; `look` is `inline`,
        too. Who waits gets the beginning of each, landing the whole. The place's name tells their kind.
    :param any_text: whether every text in there that is a URL is a result, or only one under a key that says
        so (`url`, `video_url`, `urls`).
    :param failure_code: of why it failed, in one word.
    :param failure: of why, for people.
    :param cost: of what it cost.
    :param estimated: of what it will cost.
    :param unit: of both, a currency code or the provider's word.
    :param created_at: of when it was submitted.
    :param ended_at: of when it ended.
    :param kept: how long after its end the provider keeps the files; None if that is not known.
    :param request: of the request that made it, as the provider echoes it.
    :param echoed: of what is echoed, in the body of our submission.
    :param reference: of our reference.
    """

    within: str = ""
    id: str = "id"
    status: str = "status"
    statuses: Mapping[str, TaskStatus] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    progress: str = ""
    whole: float = 1.0
    items: str = ""
    outputs: str = ""
    inline: str = ""
    any_text: bool = False
    failure_code: str = ""
    failure: str = ""
    cost: str = ""
    estimated: str = ""
    unit: str = ""
    created_at: str = ""
    ended_at: str = ""
    kept: timedelta | None = None
    request: str = ""
    echoed: str = "@"
    reference: str = ""


@dataclass(frozen=True)
class Saying:
    """Words of an error that say what is to be done, where no code does.

    :param statuses: HTTP statuses of which it is so; a failed task's own words have none.
    """

    pattern: re.Pattern[str]
    error: type[MediaTaskError]
    statuses: range = range(400, 500)


@dataclass(frozen=True)
class Refusals:
    """Where an error says what, and what its codes mean.

    :param refused: of what makes a reply a refusal although its HTTP status says that all is well.
    :param code: of the error's code.
    :param words: of what it says to people: a text, or an object or a list of what says it.
    :param request_id: of the request's own id, for a bug report.
    :param retry_after: of seconds to wait.
    :param codes: code -> what is to be done; the code as a text.
    :param sayings: for what has no code.
    :param unknown: codes that mean, of a task that was asked for, that there is no such task.
    """

    refused: str = ""
    code: str = ""
    words: str = ""
    request_id: str = ""
    retry_after: str = ""
    codes: Mapping[str, type[MediaTaskError]] = field(default_factory=dict)
    sayings: tuple[Saying, ...] = ()
    unknown: tuple[str, ...] = ()

    def class_of(self, code: str | None, words: str | None, status: int) -> type[MediaTaskError] | None:
        """What an error of HTTP *status* is; None if neither its code nor its words say."""
        if code is not None and code in self.codes:
            return self.codes[code]
        said = f"{code} {words}"
        return next((x.error for x in self.sayings if status in x.statuses and x.pattern.search(said)), None)

    def failure_of(self, code: str | None, words: str | None) -> type[MediaTaskError] | None:
        """What the failure of a task is, if it is one of those that need no other look at them."""
        classes = [
            self.codes.get(code or ""),
            *(x.error for x in self.sayings if x.pattern.search(f"{code} {words}")),
        ]
        return next((x for x in classes if x in (MediaModerationError, MediaExpiredError)), None)


def words_of(said: Any) -> str | None:
    """What an error says: a text, an object with a message, or a list of such, as frameworks write it."""
    if isinstance(said, list):
        return "; ".join(words for item in said if (words := words_of(item))) or None
    if isinstance(said, Mapping):
        return words_of(at("message || msg || detail || title || code || error", said)) or str(dict(said))
    return str(said) if said not in (None, "", False) else None
