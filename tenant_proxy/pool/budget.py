"""Limits that hold over all workers: open backends per tenant and cluster, clients per tenant and login.

Counters are in memory that the workers share (tenant_proxy.shm): each writes its own row and reads
all of them.  A place is taken by adding to the own counter first and then looking at the sum, so two
workers that want the last place may both be refused it, but never both get it.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tenant_proxy.shm import COUNTER_BYTES, MAX_SLOTS, ROW_BYTES, SIZE_BYTES, offset
from tenant_proxy.tenancy.registry import TenantInfo, group_name

if TYPE_CHECKING:
    from tenant_proxy.relay.engine import Engine

_INT = struct.Struct("=i")

#: of each tenant with shared backends: times that its code may have changed, shared backends that run for
#: it, and backends of its own on which its code may be changing (relay.lanes)
CODE_COUNTERS = ("code", "sharing", "coding")
#: of each tenant: clients that keep a backend between transactions
PINS = "pins"
#: … that wait for a backend
WAITS = "waits"
#: … with shared backends: of these so many run for it
TURNS = "turns"
#: of each cluster: shared backends that tenants with pools at a worker have reserved
RESERVED = "reserved"
#: of each schema: times that its definitions have changed
DEFINED = "defined"
#: when a worker last had its turn, in seconds of the machine's clock; 0: it is gone, or not there yet
AWAKE = "awake"
#: who has not had one for so long is stuck, or stopped
ASLEEP_S = 2
#: counters that only grow: what is compared with an earlier sum
GROWING = (CODE_COUNTERS[0], DEFINED)


class Budget:
    """One worker's share of the limits."""

    def __init__(self, fd: int, slot: int, workers: int, indexes: dict[str, int]) -> None:
        self._map = mmap.mmap(fd, SIZE_BYTES)
        self._slot = slot
        self._rows = min(workers, MAX_SLOTS)
        self.indexes = indexes

    def share(self, engine: Engine) -> None:
        """Shows the engine the counters, for those that it takes places for itself."""
        engine.entry_share(self._map, ROW_BYTES // COUNTER_BYTES, self._slot, self._rows)

    def take(self, tenant: TenantInfo, *, ear: bool = False) -> bool:
        """A place for one more backend, of the tenant and of its cluster; False if there is none.

        One that listens for others (`ear`) is of the cluster alone.  What tenants of other workers have
        reserved is left to them.
        """
        cluster = tenant.cluster
        kept = self._kept(cluster.name)
        if not self._take("cluster:" + cluster.name, cluster.max_backends - kept):
            return False
        most = tenant.pool.max - kept if tenant.name == group_name(cluster.name) else tenant.pool.max
        if not ear and not self._take("tenant:" + tenant.name, most):
            self._add("cluster:" + cluster.name, -1)
            return False
        return True

    def reserve(self, cluster: str, count: int) -> None:
        """So many shared backends of the cluster are reserved by tenants of this worker."""
        self._set(f"{RESERVED}:{cluster}", count)

    def unopened(self, cluster: str) -> int:
        """Of those that this worker has not opened; less than 0: it has so many more."""
        return self._unopened(self._slot, cluster)

    def _unopened(self, row: int, cluster: str) -> int:
        return self._at(row, f"{RESERVED}:{cluster}") - self._at(row, "tenant:" + group_name(cluster))

    def _kept(self, cluster: str) -> int:
        # for other workers; who has not had what is reserved here comes as the others do
        if self.unopened(cluster) > 0:
            return 0
        rows = (row for row in range(self._rows) if row != self._slot)
        return sum(max(0, self._unopened(row, cluster)) for row in rows)

    def give_back(self, tenant: TenantInfo, *, ear: bool = False) -> None:
        """Returns what one `take` took."""
        self._add("cluster:" + tenant.cluster.name, -1)
        if not ear:
            self._add("tenant:" + tenant.name, -1)

    def take_client(self, limits: Mapping[str, int]) -> str | None:
        """A place for one more client under each of these names; 0 is no limit.

        Returns None, or the name whose limit is reached; then nothing is taken.
        """
        taken: list[str] = []
        for name, limit in limits.items():
            if limit and not self._take(name, limit):
                for one in taken:
                    self._add(one, -1)
                return name
            if not limit:
                self._add(name, 1)
            taken.append(name)
        return None

    def give_back_client(self, names: Iterable[str]) -> None:
        """Returns what one `take_client` took."""
        for name in names:
            self._add(name, -1)

    def beat(self, *, awake: bool) -> None:
        """Called a few times a second: tells others that this worker is there, and whether it takes any."""
        self._set(AWAKE, max(1, int(time.monotonic())) if awake else -1)

    def is_there(self, slot: int) -> bool:
        """Whether that worker may have clients."""
        return self._at(slot, AWAKE) != 0

    def is_awake(self, slot: int) -> bool:
        """Whether a connection that is passed to that worker will be looked at."""
        last = self._at(slot, AWAKE)
        return last > 0 and time.monotonic() - last < ASLEEP_S + 1

    @property
    def memory(self) -> memoryview:
        """All rows, as int32."""
        return memoryview(self._map).cast("i")

    def index(self, name: str) -> int:
        """The place of a counter in a row, -1 if it has none."""
        return self.indexes.get(name, -1)

    def used(self, name: str) -> int:
        """Backends of all workers under this name ("tenant:acme", "cluster:main")."""
        return sum(self._at(row, name) for row in range(self._rows))

    def _at(self, row: int, name: str) -> int:
        index = self.indexes.get(name)
        return 0 if index is None else int(_INT.unpack_from(self._map, offset(row, index))[0])

    def _take(self, name: str, limit: int) -> bool:
        self._add(name, 1)
        if self.used(name) > limit:
            self._add(name, -1)
            return False
        return True

    def _set(self, name: str, value: int) -> None:
        index = self.indexes.get(name)
        if index is not None:
            _INT.pack_into(self._map, offset(self._slot, index), value)

    def _add(self, name: str, n: int) -> None:
        index = self.indexes.get(name)
        if index is not None:
            at = offset(self._slot, index)
            _INT.pack_into(self._map, at, _INT.unpack_from(self._map, at)[0] + n)
