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


class Reach:
    """What is known of one host and port."""

    __slots__ = ("_been_there", "_began", "_place", "_since", "detail", "failures", "retry_at", "trying")

    def __init__(self) -> None:
        self.failures = 0
        #: when the next attempt may be made (time.monotonic)
        self.retry_at = 0.0
        #: an attempt is being made, after the last one has failed
        self.trying = False
        #: what the last failure was
        self.detail = ""
        #: when the last failure became known, and the first of these
        self._since = self._began = 0.0
        self._place = 0
        self._been_there = False

    def wait_s(self) -> float:
        """How long nobody may try; 0 while somebody tries."""
        return max(0.0, self.retry_at - time.monotonic()) if self.failures else 0.0

    def may_be_back(self, grace_s: float) -> bool:
        """It has been there until less than `grace_s` ago: it may just be starting anew."""
        return self._been_there and time.monotonic() - self._began < grace_s

    def pick(self, addresses: list[T]) -> T:
        """Of a host's addresses the one that worked last, or the next after one that did not."""
        return addresses[self._place % len(addresses)]

    def failed(self, started: float, detail: str, least_s: float, most_s: float) -> float:
        """An attempt that began at `started` failed; returns the pause before the next.

        Those that had begun before the last failure was known tell nothing new, and count as that one.
        """
        self.detail = detail
        self.trying = False
        if started >= self._since:
            self._since = time.monotonic()
            if not self.failures:
                self._began = self._since
            pause = min(most_s, MOST_S, least_s * 2 ** min(self.failures, 16))
            self.retry_at = self._since + pause * random.uniform(0.75, 1.25)
            self.failures += 1
            self._place += 1
        return self.wait_s()

    def reached(self) -> bool:
        """The server has answered; True if it had not before."""
        was_down = self.failures > 0
        self._been_there = True
        self.failures = 0
        self.retry_at = 0.0
        self.trying = False
        return was_down
