"""Clients that keep a backend between transactions, as it has session state of theirs: since when, why."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

#: of one whose settings could not be read from its backend
UNREAD: Final = "settings"


@dataclass(frozen=True, slots=True)
class Pin:
    tenant: str
    reason: str
    #: Unix time
    since: float


class Pins:
    """Of a worker.  The engine says when a client is pinned, and which ones still are."""

    def __init__(self) -> None:
        self._pins: dict[int, Pin] = {}
        #: (tenant, reason) -> times
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, client: int, tenant: str, reason: str) -> None:
        self._pins[client] = Pin(tenant, reason, time.time())
        self.counts[tenant, reason] += 1

    def drop(self, client: int) -> None:
        self._pins.pop(client, None)

    def keep(self, clients: set[int]) -> dict[int, Pin]:
        """Forgets all but these, which are pinned now (DISCARD ALL ends a pin, and says nothing)."""
        self._pins = {client: pin for client, pin in self._pins.items() if client in clients}
        return self._pins
