"""The memory that all workers share: counters of open backends, one row a worker slot.

An array of int32, `counter[slot][tenant]`, in a memfd that the supervisor makes
and every worker maps.  Only the worker of a slot writes its row, all read all
rows; so when a worker dies the supervisor, and nobody else, gives its share
back by zeroing its row.  What counts events, not things held, stays in the row
and is gone on with by the worker that follows.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

MAX_TENANTS = 262_144
MAX_SLOTS = 64
COUNTER_BYTES = 4
ROW_BYTES = MAX_TENANTS * COUNTER_BYTES
SIZE_BYTES = ROW_BYTES * MAX_SLOTS


def offset(slot: int, tenant: int) -> int:
    """Where the counter of a tenant's index in a worker's row is, in bytes."""
    return slot * ROW_BYTES + tenant * COUNTER_BYTES


class SharedCounters:
    """The supervisor's handle; pages are taken only when a worker writes them."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("tenant_proxy_counters")
        os.ftruncate(self.fd, SIZE_BYTES)
        self._map = mmap.mmap(self.fd, SIZE_BYTES)

    def clear_row(self, slot: int, keep: Iterable[int] = ()) -> None:
        """Returns all that a dead worker held; call it only when its process is gone.

        The counters of `keep` are not touched: were a sum that grows with each event to become less, and
        grow again, it would look to other workers as if nothing had happened since they read it.
        """
        if slot >= MAX_SLOTS:
            return
        row = offset(slot, 0)
        start = row
        for place in (*sorted(keep), MAX_TENANTS):
            end = row + place * COUNTER_BYTES
            self._map[start:end] = bytes(end - start)
            start = end + COUNTER_BYTES

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)
