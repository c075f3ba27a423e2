"""Writes what tenants use into the catalog: each minute what has come since, and everything once.

The workers count in memory that outlives them (tenant_proxy.usage_shm).  Here the counts are read, and what
they have grown by waits in a queue, by the hour, until the catalog has taken it.  Each entry of the queue
is one transaction with a number (proxy, boot, sequence), and the table usage_added refuses a number that it
has had: so an entry whose transaction's end was not seen is simply sent again.  What was read and what
waits is kept by the supervisor, before it is sent, for a control process that follows this one.

    killed or lost          what becomes of the counts
    a worker                in memory, and read as before; of bytes the last quarter of a second is lost
    the control process     the next one goes on with what the supervisor has
    the catalog             they wait, each hour's in an entry of its own
    the supervisor, stopped the last counts are read when the workers have ended
    the supervisor, killed  the memory is gone: what came since the last minute is lost
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from tenant_proxy.control.catalog import FAILURES
from tenant_proxy.hub import HubClient, HubError
from tenant_proxy.obs.log import get_logger
from tenant_proxy.usage_shm import HOUR_S, Used

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

log = get_logger("meter")

PERIOD_S: Final = 60.0
#: for the last time, when the proxy stops
LAST_S: Final = 5.0
#: entries that wait for a catalog that is away: a week
MAX_QUEUE: Final = 7 * 24

_ADD = """
INSERT INTO usage_added AS a (proxy, boot, sequence) VALUES ($1, $2, $3)
    ON CONFLICT (proxy, boot) DO UPDATE SET sequence = excluded.sequence, at = now()
 WHERE a.sequence < excluded.sequence
RETURNING true
"""

_COUNT = """
INSERT INTO usage AS u (tenant, tenant_id, hour, proxy, transactions, statements, bytes_in, bytes_out,
                        backend_us, peak_clients, storage_bytes)
SELECT n.tenant, coalesce(t.id, 0), $1, $2, n.transactions, n.statements, n.bytes_in, n.bytes_out,
       n.backend_us, n.peak_clients, n.storage_bytes
  FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::int[],
              $10::bigint[])
    AS n (tenant, transactions, statements, bytes_in, bytes_out, backend_us, peak_clients, storage_bytes)
  LEFT JOIN tenant t ON t.name = n.tenant AND t.state <> 'erased'
    ON CONFLICT (tenant, tenant_id, hour, proxy) DO UPDATE
   SET transactions = u.transactions + excluded.transactions,
       statements = u.statements + excluded.statements,
       bytes_in = u.bytes_in + excluded.bytes_in,
       bytes_out = u.bytes_out + excluded.bytes_out,
       backend_us = u.backend_us + excluded.backend_us,
       peak_clients = greatest(u.peak_clients, excluded.peak_clients),
       storage_bytes = greatest(u.storage_bytes, excluded.storage_bytes)
"""


class Reader(Protocol):
    def read(self, places: Mapping[str, int], now_s: float) -> dict[str, Used]: ...


@dataclass(slots=True)
class Entry:
    """What came in an hour and is not in the catalog yet; with a sequence it may be, and stays as it is."""

    hour: int
    sequence: int | None = None
    used: dict[str, list[int]] = field(default_factory=dict)

    def add(self, tenant: str, grown: list[int]) -> None:
        before = self.used.get(tenant)
        if before is None:
            self.used[tenant] = grown
            return
        counts = [one + other for one, other in zip(before[:-1], grown[:-1], strict=True)]
        self.used[tenant] = [*counts, max(before[-1], grown[-1])]


class Meter:
    """`kept` is what an earlier control process gave the supervisor to keep."""

    def __init__(
        self,
        hub: HubClient,
        reader: Reader,
        connect: Callable[[], Any],
        *,
        proxy: str,
        boot: str,
        kept: dict[str, Any] | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hub = hub
        self._reader = reader
        self._connect = connect
        self._proxy = proxy
        self._boot = boot
        self._clock = clock
        kept = kept or {"sequence": 0, "read": {}, "queue": [], "read_at": clock()}
        self._sequence: int = kept["sequence"]
        #: what each tenant had used when it was read last
        self._read: dict[str, list[int]] = kept["read"]
        self._read_at: float = kept["read_at"]
        self._queue = [Entry(**entry) for entry in kept["queue"]]
        #: tenant -> bytes, of the last measurement
        self.storage: dict[str, int] = {}
        self._lock = asyncio.Lock()
        self.written_at = 0.0
        self.error = ""

    async def run(self) -> None:
        """Until cancelled; on the minute, so that hours end where they end."""
        while True:
            await asyncio.sleep(PERIOD_S - self._clock() % PERIOD_S)
            await self.write()

    async def write(self, timeout_s: float = PERIOD_S) -> None:
        """Reads the counts, and writes what the catalog does not have."""
        try:
            async with self._lock, asyncio.timeout(timeout_s):
                await self._take()
                if self._queue:
                    await self._flush()
                self.written_at, self.error = self._clock(), ""
        except (*FAILURES, HubError) as error:
            why = str(error) or type(error).__name__
            if why != self.error:
                log.error("usage could not be written; it waits", error=why, hours=len(self._queue))
            self.error = why

    async def _take(self) -> None:
        places = await self._hub.call("supervisor", "places")
        now = self._clock()
        # what has just been counted belongs to the hour that most of the time since the last reading was in
        then = (self._read_at + now) / 2
        entry = self._entry(int(then) // HOUR_S)
        for tenant, used in self._reader.read(places, then).items():
            before = self._read.get(tenant) or [0] * len(used)
            grown = [now - was for now, was in zip(used[:-1], before, strict=False)]
            if any(grown) or used.peak_clients or tenant in self.storage:
                entry.add(tenant, [*grown, used.peak_clients])
            self._read[tenant] = list(used)
        for tenant in self.storage.keys() - entry.used.keys():
            entry.add(tenant, [0] * len(Used()))
        self._read_at = now

    def _entry(self, hour: int) -> Entry:
        last = self._queue[-1] if self._queue else None
        if last is None or last.hour != hour or last.sequence is not None:
            self._queue.append(Entry(hour))
            if len(self._queue) > MAX_QUEUE:
                oldest = self._queue.pop(0)
                log.error("usage is lost: the catalog has been away for too long", hour=_hour(oldest.hour))
        return self._queue[-1]

    async def _flush(self) -> None:
        connection = None
        try:
            while self._queue:
                if connection is None:
                    connection = await self._connect()
                entry = self._queue[0]
                if entry.sequence is None:
                    self._sequence += 1
                    entry.sequence = self._sequence
                # before it is sent, so that a successor knows of it
                await self._keep()
                await self._send(connection, entry)
                self._queue.pop(0)
            await self._keep()
        finally:
            if connection is not None:
                connection.terminate()

    async def _send(self, connection: Connection, entry: Entry) -> None:
        rows = [(tenant, *used, self.storage.get(tenant, 0)) for tenant, used in entry.used.items()]
        async with connection.transaction():
            if not await connection.fetchval(_ADD, self._proxy, self._boot, entry.sequence):
                return  # it is there already
            if rows:
                columns = [list(column) for column in zip(*rows, strict=True)]
                await connection.execute(_COUNT, _hour(entry.hour), self._proxy, *columns)

    async def _keep(self) -> None:
        kept = {
            "sequence": self._sequence,
            "read": self._read,
            "read_at": self._read_at,
            "queue": [asdict(entry) for entry in self._queue],
        }
        await self._hub.call("supervisor", "keep_usage", {"kept": kept})


def _hour(number: int) -> datetime:
    return datetime.fromtimestamp(number * HOUR_S, UTC)
