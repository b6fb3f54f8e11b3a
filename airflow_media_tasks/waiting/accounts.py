"""Whether an account answers, as its status requests show it, and when it may be asked again."""

from __future__ import annotations

import logging
import math
import random

from airflow_media_tasks.task import (
    MediaAuthError,
    MediaConcurrencyError,
    MediaFundsError,
    MediaProviderError,
    MediaRateLimitError,
    MediaTaskError,
)
from airflow_media_tasks.waiting.watches import Watch
from airflow_media_tasks.wire.conversations import SENSELESS


log = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
"""Seconds between two questions to an account that does not answer, at most."""
LONGEST_RATE_LIMIT = 300.0
"""Seconds for which nothing is asked because a provider said so, at most."""
OUTAGE_AFTER = 3
"""Failed requests in a row after which the account, not a task, is taken to be the trouble."""
LIMITS = (MediaRateLimitError, MediaConcurrencyError)
ERRORS = (MediaAuthError, MediaFundsError, MediaProviderError, *LIMITS)
"""What a status request can end with because of the account, the network or the provider: 401, 402, 403, 429,
5xx, or no answer. Every other answer, also one of no sense, is about the task that was asked for."""


class Account:
    """One connection's account. All moments are seconds of the event loop's clock.

    When requests fail in a row because of the account, it is asked after pauses, longer each time; a rate
    limit pauses at once. An outage's pause ends with anything that shows it to be over; a rate limit ends by
    time alone. What a task alone is refused for pauses nobody.
    """

    def __init__(self, media_conn_id: str) -> None:
        self.media_conn_id = media_conn_id
        self.trouble: str | None = None
        """What the last request of those that failed in a row ended with, once they are an outage."""
        self.failed_at = -math.inf
        self.refused_since: float | None = None
        """Since when its key has been refused."""
        self._answered_at = -math.inf
        self._failures = 0
        self._pauses = 0
        self._paused_until = -math.inf
        self._limited_until = -math.inf

    @property
    def asked_from(self) -> float:
        """When it may be asked again."""
        return max(self._paused_until, self._limited_until)

    def is_own(self, watch: Watch, error: MediaTaskError) -> bool:
        """Whether *error* is about the task of *watch*, and not about the account that was asked.

        So is one that comes again although the account has answered for others in between.
        """
        if not isinstance(error, ERRORS) or error.code == SENSELESS:
            return True
        if isinstance(error, LIMITS):
            return False
        again = watch.failed_at is not None and self.answers_since(watch.failed_at)
        return again or watch.own_trouble_since is not None

    def answers_since(self, moment: float) -> bool:
        """Whether it has answered for any task since *moment*."""
        return self._answered_at > moment

    def failed(self, error: MediaTaskError, sent: float, now: float, waiting: int) -> None:
        """A request of *sent* has ended with *error*, which is the account's.

        :param waiting: how many tasks wait, for the log.
        """
        # Requests that were under way together fail together: that is one failure, not several in a row.
        another = sent > self.failed_at
        if another:
            self._failures += 1
            self.failed_at = now
        if not isinstance(error, MediaAuthError):
            self.refused_since = None
        elif self.refused_since is None:
            self.refused_since = now
        if self._failures < OUTAGE_AFTER and not isinstance(error, LIMITS):
            return
        if self.trouble is None:
            log.warning(
                "%s (%s): status requests fail, %d tasks keep waiting and nothing is lost: %s",
                self.media_conn_id,
                error.provider,
                waiting,
                error,
            )
        self.trouble = error.message
        self._pauses += another or not self._pauses
        pause = max(min(2.0 ** min(self._pauses, 10), LONGEST_PAUSE), error.retry_after or 0.0)
        pause *= random.uniform(1.0, 1.2)  # noqa: S311  # spreads requests, guards nothing
        if isinstance(error, LIMITS):
            self._limited_until = max(self._limited_until, now + min(pause, LONGEST_RATE_LIMIT))
        else:
            self._paused_until = max(self._paused_until, now + min(pause, LONGEST_PAUSE))

    def answered(self, sent: float) -> bool:
        """A request of *sent* was answered; whether that ends a trouble."""
        self._answered_at = max(self._answered_at, sent)
        # What was under way when the trouble began says nothing of its end.
        if sent <= self.failed_at:
            return False
        self._failures = self._pauses = 0
        self._paused_until = -math.inf
        self.refused_since = None
        ended = self.trouble is not None
        if ended:
            log.info("%s: status requests are answered again", self.media_conn_id)
            self.trouble = None
        return ended

    def accepted(self, submitted: float) -> None:
        """It has taken a task at *submitted*: if it failed before that, there is no need to wait longer."""
        if submitted > self.failed_at:
            self._paused_until = -math.inf
