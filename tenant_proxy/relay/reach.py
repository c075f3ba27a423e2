"""Whether a cluster's server can be reached, which all pools of a worker find out together.

A server that is down is down for every pool: one of them tries, the others wait for the outcome.  So a
thousand tenants' pools make one attempt at a time, and all go on as soon as one gets through.
"""

from __future__ import annotations

import random
import time
from typing import TypeVar

T = TypeVar("T")

#: The pause between two attempts grows to this at most (retry_max_s may be less): an attempt costs next to
#: nothing, and every second that a server is back unnoticed is an outage.
MOST_S = 1.0


class Backoff:
    """Pauses that double with each failure, until one succeeds."""

    __slots__ = ("failed_at", "failures", "retry_at")

    def __init__(self) -> None:
        self.failures = 0
        #: by time.monotonic(): when the last failure became known, and when the next attempt may be made
        self.failed_at = 0.0
        self.retry_at = 0.0

    def wait_s(self) -> float:
        """How long nobody may try."""
        return max(0.0, self.retry_at - time.monotonic())

    def failed(self, started: float, least_s: float, most_s: float) -> bool:
        """An attempt that began at `started` failed.

        False for one that had begun before the last failure was known: it tells nothing new.
        """
        if started < self.failed_at:
            return False
        self.failed_at = time.monotonic()
        pause = min(most_s, least_s * 2 ** min(self.failures, 16))
        self.retry_at = self.failed_at + pause * random.uniform(0.75, 1.25)
        self.failures += 1
        return True

    def succeeded(self) -> None:
        self.failures = 0
        self.retry_at = 0.0


class Reach:
    """What is known of one host and port."""

    __slots__ = ("_been_there", "_began", "_place", "backoff", "detail", "trying")

    def __init__(self) -> None:
        self.backoff = Backoff()
        #: an attempt is being made, after the last one has failed
        self.trying = False
        #: what the last failure was
        self.detail = ""
        #: when the first of the last failures became known
        self._began = 0.0
        self._place = 0
        self._been_there = False

    @property
    def is_down(self) -> bool:
        return self.backoff.failures > 0

    def may_be_back(self, grace_s: float) -> bool:
        """It has been there until less than `grace_s` ago: it may just be starting anew."""
        return self._been_there and time.monotonic() - self._began < grace_s

    def pick(self, addresses: list[T]) -> T:
        """Of a host's addresses the one that worked last, or the next after one that did not."""
        return addresses[self._place % len(addresses)]

    def failed(self, started: float, detail: str, least_s: float, most_s: float) -> float:
        """An attempt that began at `started` failed; returns the pause before the next."""
        self.detail = detail
        self.trying = False
        was_down = self.is_down
        if self.backoff.failed(started, least_s, min(most_s, MOST_S)):
            self._place += 1
            if not was_down:
                self._began = self.backoff.failed_at
        return self.backoff.wait_s()

    def reached(self) -> bool:
        """The server has answered; True if it had not before."""
        was_down = self.is_down
        self._been_there = True
        self.trying = False
        self.backoff.succeeded()
        return was_down
