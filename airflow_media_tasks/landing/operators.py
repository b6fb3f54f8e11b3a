"""What the operators that leave files have in common: where these go, and who is told of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context

from airflow_media_tasks.landing import provenance
from airflow_media_tasks.landing.destinations import Destination
from airflow_media_tasks.material.inputs import needs_note
from airflow_media_tasks.submissions.records import Entries, Place
from airflow_media_tasks.task import MediaTaskError


if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import PlainXComArg


class LandsMedia(BaseOperator):
    """An operator whose task leaves files: it tells the declared outlets and OpenLineage of them.

    An error of ours it leaves in XCom, too.
    """

    _documents: Sequence[Mapping[str, Any]] = ()

    if TYPE_CHECKING:

        @property
        def output(self) -> PlainXComArg:
            """What `x.output["url"]` is taken from; Airflow's own type knows no keys."""

    def place_of(
        self, context: Context, path: str, conn_id: str | None = None, request: int | str | None = None
    ) -> Destination:
        """Where this task instance's files go. Raises MediaRequestError if nothing can be written there.

        :param request: what names the request of a batch whose files they are.
        """
        place = Place.of(context)
        number: int | str = max(place.map_index, 0)
        if request is not None:
            number = request if place.map_index < 0 else f"{place.map_index}-{request}"
        return Destination(path, {**place.named(), "map_index": number}, conn_id)

    @property
    def is_heard(self) -> bool:
        """Whether anybody is told of what was made: an outlet, or OpenLineage."""
        return bool(self.outlets) or provenance.has_lineage()

    def tell_of(self, context: Context, documents: Sequence[Mapping[str, Any]]) -> None:
        """Puts the provenance of what was made on the events of the task's outlets."""
        self._documents = documents
        provenance.emit(context, self.outlets, documents)

    def landed(self, context: Context, documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """`path` and `paths` of what *documents* tell of, which are XComs of their own, too.

        What could not be handed to a provider otherwise is noted down as ours.
        """
        files = [file for document in documents for file in document["files"]]
        self.note_landed(Entries(context), files)
        paths = [file["path"] for file in files]
        found = {"path": paths[0], "paths": paths}
        for name, value in found.items():
            context["ti"].xcom_push(key=name, value=value)
        return found

    def note_landed(self, entries: Entries, files: Sequence[Mapping[str, Any]]) -> None:
        """Notes down which of *files* are ours, where another task could not hand them over otherwise."""
        try:
            for file in files:
                if "path" in file and needs_note(file["path"]):
                    entries.note_landed(file["path"], file["sha256"])
        except MediaTaskError as error:
            # They are there, and paid for.
            self.log.warning("another task may hand over what has landed only if it is told so: %s", error)

    def get_openlineage_facets_on_complete(self, ti: Any) -> Any:  # noqa: ARG002  # OpenLineage's signature
        """The landed files as outputs, and who made them; asked by Airflow's OpenLineage provider, if any."""
        return provenance.lineage(self._documents) if self._documents else None

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """As of `BaseOperator`: what a template becomes may not be what an argument takes."""
        with self.errors_shown(context):
            super().render_template_fields(context, jinja_env)

    @contextlib.contextmanager
    def errors_shown(self, context: Context) -> Iterator[None]:
        """Leaves an error in XCom as a dict, where a page can tell what it was."""
        try:
            yield
        except MediaTaskError as error:
            try:
                context["ti"].xcom_push(key="media_error", value=error.to_dict())
            except Exception:  # whatever keeps us from telling it, the error itself counts
                self.log.warning("the error could not be written to XCom", exc_info=True)
            raise
