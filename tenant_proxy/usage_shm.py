"""The memory in which workers count what tenants use; it outlives each of them.

A memfd that the supervisor makes: a row of `Usage` (pool/pool.pxd) for each worker slot, an entry for each
tenant at the place that the shared counters have for it (`served.Indexes`), and one more row, of all
workers together, with the time at which a tenant's next statement is due (relay/pacing.pyx).  Only the
worker of a slot writes its row and the one that follows it goes on where it stopped; so the counts only
grow as long as the supervisor lives, and whoever reads them may die and read them again.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tenant_proxy.shm import MAX_SLOTS, MAX_TENANTS

ENTRY_BYTES = 64
ROW_BYTES = MAX_TENANTS * ENTRY_BYTES
PACE_BYTES = MAX_TENANTS * 8
#: behind the workers' rows
PACE_AT = MAX_SLOTS * ROW_BYTES
SIZE_BYTES = PACE_AT + PACE_BYTES
HOUR_S = 3600

_ENTRY = struct.Struct("=8Q")
_CLIENTS_AT = 5 * 8
_NOBODY = bytes(8)


class Used(NamedTuple):
    """Sums over all workers; `peak_clients` is that of the running hour, the rest only grows."""

    transactions: int = 0
    statements: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    backend_us: int = 0
    peak_clients: int = 0


class UsageMemory:
    """The supervisor's handle; pages are taken only when a worker writes them."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("tenant_proxy_usage")
        os.ftruncate(self.fd, SIZE_BYTES)

    def forget_clients(self, slot: int, places: Iterable[int]) -> None:
        """The clients of a dead worker are gone; what they have used stays."""
        if slot < MAX_SLOTS:
            for place in places:
                at = slot * ROW_BYTES + place * ENTRY_BYTES + _CLIENTS_AT
                if os.pread(self.fd, 8, at) not in (_NOBODY, b""):
                    os.pwrite(self.fd, _NOBODY, at)

    def close(self) -> None:
        os.close(self.fd)


def worker_row(fd: int, slot: int) -> mmap.mmap:
    """A worker's own row, to write."""
    return mmap.mmap(fd, ROW_BYTES, offset=slot * ROW_BYTES)


def pace_row(fd: int) -> mmap.mmap:
    return mmap.mmap(fd, PACE_BYTES, offset=PACE_AT)


class UsageReader:
    """What the control process reads."""

    def __init__(self, fd: int, workers: int) -> None:
        self._rows = [
            mmap.mmap(fd, ROW_BYTES, prot=mmap.PROT_READ, offset=slot * ROW_BYTES)
            for slot in range(min(workers, MAX_SLOTS))
        ]

    def read(self, places: Mapping[str, int], now_s: float) -> dict[str, Used]:
        """By tenant, of those that have used anything."""
        hour = int(now_s) // HOUR_S
        found: dict[str, Used] = {}
        for name, place in places.items():
            total = [0] * 6
            for row in self._rows:
                *counts, clients, peak, peak_hour = _ENTRY.unpack_from(row, place * ENTRY_BYTES)
                counts.append(peak if peak_hour == hour else clients)
                total = [one + other for one, other in zip(total, counts, strict=True)]
            if any(total):
                found[name] = Used(*total)
        return found
