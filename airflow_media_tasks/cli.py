"""`airflow media-tasks show|adopt|resubmit`: a person's answer to a submission whose outcome is unknown.

They read the record in a task instance's state store and write the answer beside it, over Airflow's public
REST API and with its permissions; nothing here touches the metadata database or a provider.
"""

from __future__ import annotations

import getpass
import json
import os
import urllib.error
import urllib.request
from argparse import Namespace
from typing import Any
from urllib.parse import quote

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command


_KEY = "media_task"  # records.KEY; not imported, because every call of `airflow` reads this module
_PLACE = (
    Arg(("dag_id",), help="the DAG"),
    Arg(("run_id",), help="its run"),
    Arg(("task_id",), help="the Airflow task"),
)
_OPTIONS = (
    Arg(("--map-index",), help="index of a mapped task", type=int, default=-1),
    Arg(("--request",), help="number of a batch's request, from 0", type=int),
    Arg(("--api-url",), help="address of Airflow's API server, default [api] base_url"),
    Arg(
        ("--username",),
        help="who to log in as, with AIRFLOW_API_PASSWORD or a prompt; without it the token in "
        "AIRFLOW_API_TOKEN is used, or none where Airflow asks for none",
    ),
)
_REFERENCE = Arg(
    ("--reference",), help="of the submission that the question is about; another one's is not answered"
)


def get_cli_commands() -> list[GroupCommand]:
    """What Airflow adds to its command line."""
    return [
        GroupCommand(
            name="media-tasks",
            help="Look at, adopt or give up the submission of a media task",
            subcommands=(
                ActionCommand(
                    name="show",
                    help="Show what is recorded of a task's submission",
                    func=lazy_load_command("airflow_media_tasks.cli.show"),
                    args=(*_PLACE, *_OPTIONS),
                ),
                ActionCommand(
                    name="adopt",
                    help="Say which of the provider's tasks it became; then clear the task",
                    func=lazy_load_command("airflow_media_tasks.cli.adopt"),
                    args=(
                        *_PLACE,
                        Arg(("media_task_id",), help="for example luma/<id>"),
                        *_OPTIONS,
                        _REFERENCE,
                    ),
                ),
                ActionCommand(
                    name="resubmit",
                    help="Give the submission up: a new one is made, and paid, once the task is cleared",
                    func=lazy_load_command("airflow_media_tasks.cli.resubmit"),
                    args=(*_PLACE, *_OPTIONS, _REFERENCE),
                ),
            ),
        )
    ]


def show(args: Namespace) -> None:
    """Prints the record as JSON."""
    print(json.dumps(_Airflow(args).record(), indent=2))  # noqa: T201  # printing is what a command does


def adopt(args: Namespace) -> None:
    """Answers that the submission became `args.media_task_id`."""
    _answer(args, args.media_task_id)
    print(f"it became {args.media_task_id}; clear the task and it continues with it")  # noqa: T201  # as above


def resubmit(args: Namespace) -> None:
    """Answers that the submission is given up."""
    _answer(args, None)
    print("given up; clear the task and it submits anew, which is paid")  # noqa: T201  # as above


def _answer(args: Namespace, media_task_id: str | None) -> None:
    from airflow_media_tasks import answers  # noqa: PLC0415  # every call of `airflow` reads this module

    airflow = _Airflow(args)
    record = airflow.record()
    try:
        reference = answers.reference_of(airflow.state(), record, args.reference)
        key = answers.key_of(reference)
        answer = answers.answer(airflow.entry(key), record, media_task_id).to_dict()
    except answers.NotAnswerable as error:
        raise SystemExit(f"not answered: {error}") from None
    airflow.write(key, answer)
    if airflow.entry(key) != answer:
        raise SystemExit("not answered: somebody else has answered at the same moment; clear the task")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is told and not followed: the user's token is for the address that the user gave."""

    def redirect_request(self, *_: Any) -> None:
        """Nothing."""


_OPENER = urllib.request.build_opener(_NoRedirects)


class _Airflow:
    """One task instance, through the REST API."""

    def __init__(self, args: Namespace) -> None:
        from airflow.sdk.configuration import conf  # noqa: PLC0415  # this module is read at every `airflow`

        self._base = (args.api_url or conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip(
            "/"
        )
        self._username = args.username
        place = [quote(part, safe="") for part in (args.dag_id, args.run_id, args.task_id)]
        self._instance = f"/api/v2/dags/{place[0]}/dagRuns/{place[1]}/taskInstances/{place[2]}"
        self._map_index = args.map_index
        self._key = _KEY if args.request is None else f"{_KEY}.{args.request}"
        self._token = os.environ.get("AIRFLOW_API_TOKEN") or self._log_in()

    def state(self) -> Any:
        """Airflow's state of the task instance."""
        mapped = "" if self._map_index < 0 else f"/{self._map_index}"
        return self._value("state", self._call("GET", self._instance + mapped))

    def record(self) -> dict[str, Any]:
        """The record; ends the command where there is none."""
        value = self._value("value", self._call("GET", self._path(self._key)))
        if not isinstance(value, dict):
            raise SystemExit(f"the record is not one of ours: {value!r:.200}")
        return value

    def entry(self, key: str) -> Any:
        """What stands in another entry, or None."""
        found = self._call("GET", self._path(key), absent={"value": None})
        return self._value("value", found)

    def write(self, key: str, value: dict[str, Any]) -> None:
        """Writes an entry, for ever."""
        self._call("PUT", self._path(key), {"value": value, "expires_at": None})

    def _path(self, key: str) -> str:
        return f"{self._instance}/state-store/{quote(key, safe='')}?map_index={self._map_index}"

    def _log_in(self) -> str:
        if self._username is None:
            return str(self._value("access_token", self._call("GET", "/auth/token")))
        password = os.environ.get("AIRFLOW_API_PASSWORD") or getpass.getpass(
            f"password of {self._username}: "
        )
        login = {"username": self._username, "password": password}
        return str(self._value("access_token", self._call("POST", "/auth/token", login)))

    def _value(self, key: str, answer: Any) -> Any:
        if not isinstance(answer, dict) or key not in answer:
            raise SystemExit(f"{self._base} does not answer as Airflow's API does: {answer!r:.200}")
        return answer[key]

    def _call(self, method: str, path: str, body: Any = None, absent: Any = None) -> Any:
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
            "give --map-index"
        )
    return f"{method} {path}: HTTP {error.code} {error.read(500).decode(errors='replace')}"
