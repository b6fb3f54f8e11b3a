"""What Google's APIs have in common: their errors, their files, and Vertex in the Gemini API's place.

Wire facts: providers/google_veo.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from mimetypes import guess_type
from pkgutil import resolve_name
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from airflow.sdk.log import mask_secret

from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaRequestError,
    shown,
)
from airflow_media_tasks.wire.addresses import is_address
from airflow_media_tasks.wire.connections import is_below
from airflow_media_tasks.wire.conversations import Request
from airflow_media_tasks.wire.tables import Refusals, Saying


REFUSALS = Refusals(
    code="(error.details[?reason].reason | [0]) || error.status",
    # Which quota is used up is told by its id alone ([3]).
    words="[error.message, error.details[].violations[].quotaId]",
    retry_after="error.details[?retryDelay].retryDelay | [0]",
    # A wrong key is a 400 ([3] google_veo.md, Errors).
    codes={
        "API_KEY_INVALID": MediaAuthError,
        "BILLING_DISABLED": MediaFundsError,
        "filtered": MediaModerationError,
    },
    sayings=(
        # A quota of a day, or one that the account does not have at all: no matter of minutes ([3]).
        Saying(re.compile(r"(?i)per ?day|daily|limit: 0\b"), MediaFundsError, range(429, 430)),
        Saying(re.compile(r"(?i)\bbilling\b"), MediaFundsError, range(400, 404)),
        # There is no code for it; the words are those of public captures ([3]).
        Saying(re.compile(r"(?i)usage guidelines|responsible ai|\bsafety\b"), MediaModerationError),
    ),
)
"""Errors as of google.rpc.Status ([O] google_veo.md, Errors); `filtered` is ours, of a result withheld."""

_FORMS = {
    "project": (re.compile(r"[a-z0-9][a-z0-9:.-]{3,62}"), "films-1"),
    "location": (re.compile(r"[a-z][a-z0-9-]{1,40}"), "us-central1"),
}
"""Of what becomes part of an address."""
_OPERATION = re.compile(r"/v1beta/(projects/.+)/operations/([^/]+)")


def stored_at(storage: str, place: str) -> str:
    """The address of an object of Google's storage; *place* is `gs://BUCKET/OBJECT`."""
    return f"{storage}/{quote(place.removeprefix('gs://'))}"


def file_in(value: str, usual: str, what: str, storage: str, own: str) -> dict[str, str]:
    """What stands in a request for the file *value*: base64, or an address from which Google takes it.

    :param usual: its type, unless it says another one, as `data:...` or by its name.
    :param what: the argument, for an error.
    :param storage: the address of Google's storage.
    :param own: the address of the Gemini API, whose films it takes by their addresses; empty at Vertex.
    :raises MediaRequestError: for any other address, from which Google fetches nothing.
    """
    if not own and is_below(value, storage):
        path = unquote(urlsplit(value).path[len(urlsplit(storage).path) :])
        return {"gcsUri": f"gs:/{path}", "mimeType": guess_type(path)[0] or usual}
    is_own_film = bool(own) and usual.startswith("video/")
    if is_own_film and is_below(value, own):
        return {"uri": value}
    if is_address(value):
        other = f" or {storage}/BUCKET/OBJECT" if not own else " or a film of this account's" * is_own_film
        raise MediaRequestError(
            f"{what} must be base64{other}, as Google fetches nothing from the web; got {shown(value)}"
        )
    head, _, content = value.rpartition(",")
    content_type = head.removeprefix("data:").partition(";")[0] or usual
    names = ("encodedVideo", "encoding") if is_own_film else ("bytesBase64Encoded", "mimeType")
    return dict(zip(names, (content, content_type), strict=True))


class Vertex:
    """Where an account of Vertex is, by what it is known, and how it wants what the Gemini API is asked.

    :param extra: of the connection: `project`, `location`, and `google_cloud_conn_id` of a Google Cloud
        connection. Without that the connection's password is an access token.
    :param conn_id: the connection's id, for errors.
    :raises MediaRequestError: naming what is missing or wrong, and what it looks like.
    """

    def __init__(self, extra: Mapping[str, Any], conn_id: str) -> None:
        self._where = f"connection {conn_id!r}"
        for word, (form, like) in _FORMS.items():
            given = extra.get(word)
            if not (isinstance(given, str) and form.fullmatch(given)):
                raise MediaRequestError(
                    f"{self._where}: vertex needs a {word} in extra, such as {like!r}, got {shown(given)}"
                )
        self.location: str = extra["location"]
        self.path = f"projects/{extra['project']}/locations/{self.location}"
        self._google = extra.get("google_cloud_conn_id") or None

    @classmethod
    def of(cls, extra: Mapping[str, Any], conn_id: str) -> Vertex | None:
        """What *extra* says; None where it does not say `vertex`."""
        wanted = str(extra.get("vertex") or "").lower()
        if wanted == "true":
            return cls(extra, conn_id)
        if wanted not in ("", "false", "none"):
            raise MediaRequestError(
                f"connection {conn_id!r}: vertex in extra must be true or false, got {shown(wanted)}"
            )
        if extra.get("google_cloud_conn_id"):
            raise MediaRequestError(
                f"connection {conn_id!r}: google_cloud_conn_id in extra is for Vertex: say "
                '{"vertex": true} beside it, or remove it'
            )
        return None

    @property
    def address(self) -> str:
        """Of the API in this location ([O] google_veo.md)."""
        where = "" if self.location == "global" else f"{self.location}-"
        return f"https://{where}aiplatform.googleapis.com"

    def request(self, request: Request) -> Request:
        """As the Gemini API takes a *request*, so Vertex: below the project, and a look is a POST ([O])."""
        looked_at = _OPERATION.fullmatch(unquote(request.path))
        if looked_at:
            name = f"{looked_at[1]}/operations/{looked_at[2]}"
            path = f"/v1beta1/{quote(looked_at[1])}:fetchPredictOperation"
            return replace(request, method="POST", path=path, json={"operationName": name})
        below = f"{self.path}/publishers" if request.paid else "publishers"
        return replace(request, path=request.path.replace("/v1beta/", f"/v1beta1/{below}/google/", 1))

    @property
    def must_ask(self) -> bool:
        """Whether `token` would ask Google for one now."""
        return self._google is not None and not self._credentials.valid

    def token(self) -> str | None:
        """An access token that lives; None where the password is one. Blocking, if it `must_ask`.

        :raises MediaAuthError: if Google gives none.
        """
        if self._google is None:
            return None
        if self.must_ask:
            try:
                self._credentials.refresh(resolve_name("google.auth.transport.requests:Request")())
            except Exception as error:  # noqa: BLE001  # each kind of credentials has errors of its own
                raise MediaAuthError(
                    f"{self._where}: Google gives no access token: {shown(str(error), 200)}",
                    provider="google_media",
                ) from None
            mask_secret(self._credentials.token)
        return str(self._credentials.token)

    @cached_property
    def _credentials(self) -> Any:
        try:
            hook = resolve_name("airflow.providers.google.common.hooks.base_google:GoogleBaseHook")
        except ImportError:
            raise MediaRequestError(
                f"{self._where}: google_cloud_conn_id in extra needs the package "
                "apache-airflow-providers-google, which is not installed here"
            ) from None
        return hook(gcp_conn_id=self._google).get_credentials()
