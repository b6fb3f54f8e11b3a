"""`airflow media-tasks`: what is recorded of submissions, and a person's answer; what an account answers.

`adopt` and `resubmit` read the record in a task instance's state store, write the answer beside it and clear
the task; `prune` removes old copies of records. All of it goes over Airflow's public REST API and with its
permissions. `adopt` alone needs more: it asks the provider for the task, with the record's connection as it
is to be found here. `doctor` asks nothing but a provider.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import sys
import urllib.error
import urllib.request
from argparse import Namespace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command


if TYPE_CHECKING:
    from airflow_media_tasks.hooks.base import MediaHook


_KEY = "media_task"  # records.KEY; not imported, because every call of `airflow` reads this module
_KEEPS_STATE_SINCE = (3, 4)
"""Version of Airflow from which on a clear discards the state unless it is told to keep it."""
_PLACE = (
    Arg(("dag_id",), help="the DAG"),
    Arg(("run_id",), help="its run"),
    Arg(("task_id",), help="the Airflow task"),
)
_OPTIONS = (
    Arg(("--map-index",), help="index of a mapped task", type=int, default=-1),
    Arg(("--loop",), help="iteration of a task loop, from 0", type=int),
    Arg(("--request",), help="number of a batch's request, from 0", type=int),
)
_LOGIN = (
    # Airflow takes what is in brackets for markup.
    Arg(("--api-url",), help=r"address of Airflow's API server, default \[api] base_url"),
    Arg(
        ("--username",),
        help="who to log in as, with AIRFLOW_API_PASSWORD or a prompt; without it the token in "
        "AIRFLOW_API_TOKEN is used, or none where Airflow asks for none",
    ),
)
_ANSWER = (
    Arg(("--reference",), help="of the submission that the question is about; another one's is not answered"),
    Arg(("--no-clear",), help="leave it to you to clear the task, with its state kept", action="store_true"),
)


def get_cli_commands() -> list[GroupCommand]:
    """What Airflow adds to its command line."""
    return [
        GroupCommand(
            name="media-tasks",
            help="Look at, adopt or give up the submission of a media task; remove old copies of records; "
            "see whether an account answers as expected",
            subcommands=(
                ActionCommand(
                    name="show",
                    help="Show what is recorded of a task's submission",
                    func=lazy_load_command("airflow_media_tasks.cli.show"),
                    args=(*_PLACE, *_OPTIONS, *_LOGIN),
                ),
                ActionCommand(
                    name="adopt",
                    help="Say which of the provider's tasks it became, and clear the task: it goes on",
                    func=lazy_load_command("airflow_media_tasks.cli.adopt"),
                    args=(
                        *_PLACE,
                        Arg(("media_task_id",), help="for example luma/<id>"),
                        *_OPTIONS,
                        *_LOGIN,
                        *_ANSWER,
                        Arg(
                            ("--unchecked",),
                            help="do not ask the provider for it: its connection is not to be had here",
                            action="store_true",
                        ),
                    ),
                ),
                ActionCommand(
                    name="resubmit",
                    help="Give the submission up, and clear the task, which makes and pays a new one",
                    func=lazy_load_command("airflow_media_tasks.cli.resubmit"),
                    args=(*_PLACE, *_OPTIONS, *_LOGIN, *_ANSWER),
                ),
                ActionCommand(
                    name="prune",
                    help="Remove the copies of records that nothing has changed for that long",
                    func=lazy_load_command("airflow_media_tasks.cli.prune"),
                    args=(
                        Arg(("--older-than",), help="days, for example 90", type=float, required=True),
                        *_LOGIN,
                    ),
                ),
                ActionCommand(
                    name="doctor",
                    help="Say what a provider's account answers differently from what this package expects",
                    func=lazy_load_command("airflow_media_tasks.cli.doctor"),
                    args=(
                        Arg(("--conn-id",), help="the connection of the account", required=True),
                        Arg(
                            ("--output",),
                            help="file for the report; Airflow writes its log to the standard output",
                        ),
                        Arg(
                            ("--pay",),
                            help="also make the cheapest generation, once, for money; its record is a file "
                            "in the current directory",
                            action="store_true",
                        ),
                        Arg(("--yes",), help="pay without being asked", action="store_true"),
                    ),
                ),
            ),
        )
    ]


def show(args: Namespace) -> None:
    """Prints the record as JSON."""
    print(json.dumps(_Instance(args).record(), indent=2))  # noqa: T201  # printing is what a command does


def adopt(args: Namespace) -> None:
    """Answers that the submission became `args.media_task_id`."""
    _answer(args, args.media_task_id)
    then = "clear the task, keeping its state, and it continues" if args.no_clear else "the task continues"
    print(f"it became {args.media_task_id}; {then} with it")  # noqa: T201  # as above


def resubmit(args: Namespace) -> None:
    """Answers that the submission is given up."""
    _answer(args, None)
    then = "clear the task, keeping its state, and it" if args.no_clear else "the task"
    print(f"given up; {then} submits anew, which is paid")  # noqa: T201  # as above


def prune(args: Namespace) -> None:
    """Removes what is older than `args.older_than` days from the state store of the asset `SUBMISSIONS`."""
    from airflow_media_tasks.submissions.records import SUBMISSIONS  # noqa: PLC0415  # every call of `airflow` reads this module

    if not 0 < args.older_than < math.inf:
        raise SystemExit(f"--older-than must be a number of days above 0, got {args.older_than}")
    before = datetime.now(timezone.utc) - timedelta(days=args.older_than)
    removed = _Airflow(args).prune(SUBMISSIONS.name, before)
    print(f"{removed} copies of records removed")  # noqa: T201  # as above


def doctor(args: Namespace) -> None:
    """Prints what differs; ends with 1 if something does, with 2 if the account cannot be asked."""
    from airflow_media_tasks.doctor import Examination  # noqa: PLC0415  # every call of `airflow` reads this module
    from airflow_media_tasks.task import MediaTaskError  # noqa: PLC0415  # as above
    from airflow_media_tasks.trial import Trial  # noqa: PLC0415  # as above

    trouble: MediaTaskError | None = None
    try:
        examination = Examination(_hook(args.conn_id))
        examination.run()
    except MediaTaskError as error:
        _say(f"the account cannot be asked: {error}")
        raise SystemExit(2) from None
    if args.pay:
        try:
            Trial(examination, Path.cwd(), _pays if not args.yes else lambda _: True, _say).run()
        except MediaTaskError as error:
            trouble = error
    _deliver(examination.report(), args.output)
    if trouble is not None:
        _say(f"nothing could be made: {trouble}")
        raise SystemExit(2)
    if examination.differs:
        raise SystemExit(1)


def _deliver(report: str, output: str | None) -> None:
    if output is not None:
        try:
            Path(output).write_text(report)
        except OSError as error:
            _say(f"the report cannot be written there, so here it is: {error}")
        else:
            return
    print(report)  # noqa: T201  # printing is what a command does


def _pays(what: str) -> bool:
    """Whether a person agrees to *what*; nobody who could be asked does not."""
    try:
        return input(f"{what} Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # as above


def _hook(media_conn_id: str) -> MediaHook:
    """The hook of a connection as it is to be found here."""
    from airflow_media_tasks.hooks.base import get_media_hook  # noqa: PLC0415  # every call of `airflow` reads this module

    # As `airflow connections test` does it: a connection may be in the metadata database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    return get_media_hook(media_conn_id)


def _answer(args: Namespace, media_task_id: str | None) -> None:
    from airflow_media_tasks.submissions import answers  # noqa: PLC0415  # every call of `airflow` reads this module

    instance = _Instance(args)
    record = instance.record()
    try:
        reference = answers.reference_of(instance.state, record, args.reference)
        key = answers.key_of(reference)
        answer = answers.answer(instance.entry(key), record, media_task_id).to_dict()
    except answers.NotAnswerable as error:
        raise SystemExit(f"not answered: {error}") from None
    if media_task_id is not None and not args.unchecked:
        _look_for(media_task_id, record)
    instance.write(key, answer)
    if instance.entry(key) != answer:
        raise SystemExit("not answered: somebody else has answered at the same moment; clear the task")
    if not args.no_clear:
        instance.clear()


def _look_for(media_task_id: str, record: dict[str, Any]) -> None:
    """Ends the command unless the account in *record* has that task, and it may be what the record became."""
    from airflow_media_tasks.task import MediaTaskError  # noqa: PLC0415  # every call of `airflow` reads this module

    try:
        hook = _hook(record.get("media_conn_id") or "")
        task = hook.get_task(media_task_id)
    except MediaTaskError as error:
        raise SystemExit(
            f"not answered: {error}. If you know that {media_task_id} is right, and only this machine cannot "
            "see it, say --unchecked"
        ) from None
    if task.operation and record.get("operation") and task.operation != record["operation"]:
        raise SystemExit(
            f"not answered: {media_task_id} is a task of {task.operation!r}, and what was submitted was "
            f"{record['operation']!r}. If you know that it is right, say --unchecked"
        )
    if hook.mark_of(task) not in (None, record["client_ref"]):
        raise SystemExit(f"not answered: {media_task_id} carries the mark of another submission")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is told and not followed: the user's token is for the address that the user gave."""

    def redirect_request(self, *_: Any) -> None:
        """Nothing."""


_OPENER = urllib.request.build_opener(_NoRedirects)


class _Airflow:
    """Airflow's REST API."""

    def __init__(self, args: Namespace) -> None:
        from airflow.sdk.configuration import conf  # noqa: PLC0415  # this module is read at every `airflow`

        self._base = (args.api_url or conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip(
            "/"
        )
        self._username = args.username
        self._token = os.environ.get("AIRFLOW_API_TOKEN") or self._log_in()

    def prune(self, name: str, before: datetime) -> int:
        """Removes the entries of the asset with this *name* that were last written before that moment."""
        listed = self.call("GET", f"/api/v2/assets?{urlencode({'name_pattern': name})}")
        (asset_id,) = [one["id"] for one in self.value("assets", listed) if one["name"] == name] or [None]
        if asset_id is None:
            return 0
        store, removed, offset = f"/api/v2/assets/{asset_id}/state-store", 0, 0
        while page := self.value(
            "asset_state_store", self.call("GET", f"{store}?{urlencode({'limit': 100, 'offset': offset})}")
        ):
            for entry in page:
                if datetime.fromisoformat(entry["updated_at"].replace("Z", "+00:00")) < before:
                    self.call("DELETE", f"{store}/{quote(entry['key'], safe='')}")
                    removed += 1
                else:
                    offset += 1
        return removed

    def value(self, key: str, answer: Any) -> Any:
        """What *answer* has under *key*; ends the command if that is not how Airflow answers."""
        if not isinstance(answer, dict) or key not in answer:
            raise SystemExit(f"{self._base} does not answer as Airflow's API does: {answer!r:.200}")
        return answer[key]

    def _log_in(self) -> str:
        if self._username is None:
            return str(self.value("access_token", self.call("GET", "/auth/token")))
        password = os.environ.get("AIRFLOW_API_PASSWORD") or getpass.getpass(
            f"password of {self._username}: "
        )
        login = {"username": self._username, "password": password}
        return str(self.value("access_token", self.call("POST", "/auth/token", login)))

    def call(self, method: str, path: str, body: Any = None, absent: Any = None) -> Any:
        """The decoded answer; *absent* where there is no such thing. Ends the command if Airflow refuses."""
        if not self._base.startswith(("http://", "https://")):
            raise SystemExit(f"--api-url must be an http or https address, got {self._base!r}")
        request = urllib.request.Request(self._base + path, method=method)  # noqa: S310  # checked above
        request.add_header("Accept", "application/json")
        if getattr(self, "_token", None):
            request.add_header("Authorization", f"Bearer {self._token}")
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with _OPENER.open(request, data, timeout=60) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404 and absent is not None:
                    return absent
                raise SystemExit(_advice(error, method, path)) from None
        except OSError as error:
            raise SystemExit(f"Airflow's API server at {self._base} cannot be reached: {error}") from None
        try:
            return json.loads(text)
        except ValueError:
            return text


class _Instance:
    """One task instance, through the REST API."""

    def __init__(self, args: Namespace) -> None:
        self._airflow = _Airflow(args)
        self._args = args
        dag, run, task = (quote(part, safe="") for part in (args.dag_id, args.run_id, args.task_id))
        self._dag = f"/api/v2/dags/{dag}"
        self._instances = f"{self._dag}/dagRuns/{run}/taskInstances"
        self._path = f"{self._instances}/{task}"
        found = self._found()
        self.state = self._airflow.value("state", found)
        # Airflow 3.4 tells the iterations of a loop, and what was mapped, apart by regions.
        region = {name: found.get(name) for name in ("region_id", "region_index")}
        self._place = {"map_index": args.map_index} if region["region_id"] is None else region

    def _found(self) -> Any:
        return self._in_loop() if self._args.loop is not None else self._airflow.call("GET", self._numbered())

    def _numbered(self) -> str:
        return self._path if self._args.map_index < 0 else f"{self._path}/{self._args.map_index}"

    def _in_loop(self) -> Any:
        wanted = (self._args.task_id, self._args.map_index, self._args.loop)
        query = urlencode({"task_id": self._args.task_id, "limit": 1000})
        listed = self._airflow.call("GET", f"{self._instances}?{query}")
        for one in self._airflow.value("task_instances", listed):
            at = one.get("loop_iteration") or {}
            if (one["task_id"], one["map_index"], at.get("iteration")) == wanted:
                return one
        raise SystemExit(f"{self._args.task_id} has no iteration {self._args.loop} in this run")

    def record(self) -> dict[str, Any]:
        """The record; ends the command where there is none."""
        number = self._args.request
        if number is None:
            value = self._airflow.value("value", self._airflow.call("GET", self._entry(_KEY)))
        else:
            from airflow_media_tasks.batch.pages import BATCH, page_of  # noqa: PLC0415  # as above

            batch = self.entry(BATCH)
            page = page_of(batch, number)
            records = None if page is None else self.entry(page)
            value = records.get(str(number)) if isinstance(records, dict) else None
            if value is None:
                raise SystemExit(f"nothing was recorded for request {number} of this batch")
            # What all records of a batch have in common stands there alone.
            same = {name: batch[name] for name in ("media_conn_id", "provider") if name in batch}
            value = {**same, **value} if isinstance(value, dict) else value
        if not isinstance(value, dict):
            raise SystemExit(f"the record is not one of ours: {value!r:.200}")
        return value

    def entry(self, key: str) -> Any:
        """What stands in another entry, or None."""
        found = self._airflow.call("GET", self._entry(key), absent={"value": None})
        return self._airflow.value("value", found)

    def write(self, key: str, value: dict[str, Any]) -> None:
        """Writes an entry, for ever."""
        self._airflow.call("PUT", self._entry(key), {"value": value, "expires_at": None})

    def clear(self) -> None:
        """Clears the task instance and what comes after it; what is recorded of it is kept."""
        args = self._args
        body = {
            "dry_run": False,
            "dag_run_id": args.run_id,
            "only_failed": False,
            "include_downstream": True,
        }
        version = self._airflow.value("version", self._airflow.call("GET", "/api/v2/version"))
        if tuple(int(part) for part in str(version).split(".")[:2]) >= _KEEPS_STATE_SINCE:
            # Each try has an id of its own, and another one may have begun since.
            body |= {"task_instance_ids": [self._found().get("id")], "keep_task_state": True}
        else:
            body |= {"task_ids": [[args.task_id, args.map_index] if args.map_index >= 0 else args.task_id]}
        self._airflow.call("POST", f"{self._dag}/clearTaskInstances", body)

    def _entry(self, key: str) -> str:
        return f"{self._path}/state-store/{quote(key, safe='')}?{urlencode(self._place)}"


def _advice(error: urllib.error.HTTPError, method: str, path: str) -> str:
    """What a person can do about Airflow's refusal."""
    if 300 <= error.code < 400:
        return (
            f"Airflow's API server redirects to {error.headers.get('Location')!r:.200} (HTTP {error.code}), "
            "and your token is sent to no other address: if that is the API server, give it as --api-url"
        )
    if path.startswith("/auth/") or error.code == 401:
        return (
            f"Airflow does not let us in (HTTP {error.code}): set AIRFLOW_API_TOKEN, or give --username and "
            "AIRFLOW_API_PASSWORD"
        )
    if error.code == 403:
        return "this user may not change task instances of this DAG (HTTP 403)"
    if error.code == 404:
        return (
            "there is no such task instance, or nothing was recorded for it (HTTP 404); for a mapped task "
            "give --map-index, for a request of a batch --request"
        )
    return f"{method} {path}: HTTP {error.code} {error.read(500).decode(errors='replace')}"
