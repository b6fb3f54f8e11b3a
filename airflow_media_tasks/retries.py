"""`MediaRetryPolicy`: what Airflow does after each kind of failure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Context, RetryDecision, RetryPolicy
from typing_extensions import Self

from airflow_media_tasks.submissions.submission import HOPELESS
from airflow_media_tasks.task import MediaTaskError, SubmissionOutcomeUnknown


PARTIAL_FAILURE = "partial_failure"
"""Code of a batch of which nothing that may yet succeed has failed."""
LONGEST_DELAY = 300.0
"""Seconds that a retry waits because the provider said so, at most."""


class MediaRetryPolicy(RetryPolicy):
    """Default of our operators: a retry only where it can help, and as late as the provider asked.

    Authentication, funds, moderation and bad requests fail at once, and so do a submission whose outcome a
    person has to decide, and a batch in which nothing else has failed. Where the provider said how long to
    wait, the retry waits that long, but not longer than `LONGEST_DELAY`. Everything else, the provider's
    faults and timeouts among it, is left to the task's own `retries` and `retry_delay`; a retry adopts what
    was submitted and pays for nothing again.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  # Airflow's signature
        max_tries: int,  # noqa: ARG002  # as above
        context: Context | None = None,  # noqa: ARG002  # as above
    ) -> RetryDecision:
        """By the class of *exception*."""
        if isinstance(exception, (*HOPELESS, SubmissionOutcomeUnknown)):
            return RetryDecision.fail(f"{type(exception).__name__}: the same request would fail again")
        if isinstance(exception, MediaTaskError) and exception.code == PARTIAL_FAILURE:
            return RetryDecision.fail("no other try makes more of this batch")
        wait = exception.retry_after if isinstance(exception, MediaTaskError) else None
        if wait is not None and wait > 0:
            return RetryDecision.retry(timedelta(seconds=min(wait, LONGEST_DELAY)), "the provider said when")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:  # noqa: ARG003  # Airflow's signature
        """A policy as good as the one that was serialized."""
        return cls()
