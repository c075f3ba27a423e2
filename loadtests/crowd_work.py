"""What is measured of very many tenants on few backends.

PgBouncer has a pool a login and closes backends to open others; tenant_proxy shares them.  The client is one
process of ours, which takes a fifth to a third of the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from loadtests import pgbench, procfs
from loadtests.crowd import (
    TABLES,
    Clients,
    Crowd,
    CrowdDedicated,
    CrowdDirect,
    CrowdPgBouncer,
    CrowdProxy,
    CrowdTarget,
    CrowdWorkers,
    names,
    point_query,
    private_bytes,
    table_query,
)
from loadtests.pgbench import Job
from loadtests.postgres import Postgres
from loadtests.stats import percentile
from loadtests.targets import Target
from loadtests.wire import Connection, WireError
from loadtests.work import CpuMeter, Effort, Findings, MeasureError, Scenario

BACKENDS: Final = 50
IN_FLIGHT: Final = 64
#: pools, backends and caches fill before anything counts
WARM_UP_S: Final = 2.0
#: … what backends read of the catalogs: 20,000 tables by a home each
MANY_WARM_UP_S: Final = 15.0
FLOOD_CLIENTS: Final = 100
#: changes of the configuration, one after the other
RELOADS: Final = 5
FOLLOW_S: Final = 30.0
#: between two statements of a quiet tenant
QUIET_PAUSE_S: Final = 0.1

KINDS: Final[dict[str, type[CrowdTarget]]] = {"pgbouncer": CrowdPgBouncer, "proxy": CrowdProxy}
#: … and what the server's own scheduling makes of a flood
FLOODED: Final[dict[str, type[CrowdTarget]]] = {**KINDS, "direct": CrowdDirect}


@dataclass(frozen=True, slots=True)
class _Crowded(Scenario):
    tenants: int

    def unable(self, target: Target) -> str | None:
        return None if target.name in KINDS else "it has no pools that tenants could share"

    def warm_up(self, target: Target, effort: Effort) -> None:
        """None: each round has a start of its own."""

    def _count(self, effort: Effort) -> int:
        return min(self.tenants, 40) if effort.quick else self.tenants

    @contextmanager
    def _started(self, kind: type[CrowdTarget], postgres: Postgres, effort: Effort) -> Iterator[CrowdTarget]:
        count = self._count(effort)
        crowd = Crowd(postgres)
        crowd.provide(count)
        target = kind(crowd, count, BACKENDS)
        target.start()
        try:
            yield target
        finally:
            target.stop()


def _rates(
    target: CrowdTarget, clients: Clients, effort: Effort, warm_up_s: float = WARM_UP_S
) -> dict[str, float]:
    clients.run(min(warm_up_s, 2 * effort.seconds), IN_FLIGHT, point_query)
    meter = CpuMeter(target)
    found, took = clients.run(effort.seconds, IN_FLIGHT, point_query)
    used = meter.used() or 0.0
    found.sort()
    return {
        "tps": len(found) / took,
        "p50_us": percentile(found, 0.5),
        "p99_us": percentile(found, 0.99),
        "cpu_us": used * 1e6 / len(found),
    }


@dataclass(frozen=True, slots=True)
class Crowded(_Crowded):
    """All tenants at once, each with one client."""

    def command(self, effort: Effort) -> str:
        return (
            f"{self._count(effort)} tenants with a login and a client each, {BACKENDS} backends, {IN_FLIGHT} "
            f"statements in flight: SELECT v FROM t<one of {TABLES}> WHERE k = 7"
        )

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        with self._started(KINDS[target.name], postgres, effort) as started:
            begin = time.monotonic()
            clients = Clients(started, names(self._count(effort)))
            logins_s = time.monotonic() - begin
            try:
                return Findings(_rates(started, clients, effort, MANY_WARM_UP_S) | {"logins_s": logins_s}, {})
            finally:
                clients.close()


@dataclass(frozen=True, slots=True)
class CrowdMemory(_Crowded):
    """Every table of every tenant is read, more than once."""

    def unable(self, target: Target) -> str | None:
        if target.name == "pgbouncer":
            return "its backends serve one login each, and are closed for the next"
        return _Crowded.unable(self, target)

    def command(self, effort: Effort) -> str:
        return f"each of {self._count(effort)} tenants reads each of its {TABLES} tables, about twice"

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        count = self._count(effort)
        with self._started(KINDS[target.name], postgres, effort) as started:
            clients = Clients(started, names(count))
            try:
                found, took = clients.run(0, IN_FLIGHT, table_query, count=2 * count * TABLES)
                return Findings({"tps": len(found) / took, "server_bytes": private_bytes(postgres)}, {})
            finally:
                clients.close()


@dataclass(frozen=True, slots=True)
class CrowdClients(_Crowded):
    """Very many clients of very many tenants over two workers, and changes of the configuration."""

    def unable(self, target: Target) -> str | None:
        return None if target.name == "proxy" else "what is measured is a change of the proxy's configuration"

    def command(self, effort: Effort) -> str:
        return (
            f"{effort.idle_clients} × (login, SELECT) of {self._count(effort)} tenants on {BACKENDS} "
            f"backends, 2 workers; then SIGHUP for a file with one tenant more, {RELOADS} times"
        )

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        count = self._count(effort)
        with self._started(CrowdWorkers, postgres, effort) as started:
            assert isinstance(started, CrowdWorkers)
            assert started.pid is not None
            started.crowd.provide(count + RELOADS)
            # whatever comes with the first clients of a tenant is not these clients' share
            first = Clients(started, names(count))
            first.run(0, IN_FLIGHT, point_query, count=count)
            before = procfs.tree_memory(started.pid)
            clients = Clients(started, names(count) * ((effort.idle_clients - count) // count))
            try:
                clients.run(0, IN_FLIGHT, point_query, count=len(clients.tenants))
                after = procfs.tree_memory(started.pid)
                waits = [_followed_us(started, count + n + 1) for n in range(RELOADS)]
                # all are still served
                clients.run(0, IN_FLIGHT, point_query, count=len(clients.tenants))
            finally:
                clients.close()
                first.close()
        return Findings(
            {
                "idle_bytes": (after.growing_bytes - before.growing_bytes) / len(clients.tenants),
                "final_bytes": float(after.total_bytes),
                "reload_us": max(waits),
            },
            {},
        )


def _followed_us(target: CrowdProxy, tenants: int) -> float:
    """From the signal to the first login of a tenant that has come with it."""
    endpoint = target.endpoint(names(tenants)[-1])
    begin = target.reload(tenants)
    while time.monotonic() < begin + FOLLOW_S:
        try:
            Connection(endpoint, timeout_s=5).close()
        except WireError:
            time.sleep(0.01)
        else:
            return (time.monotonic() - begin) * 1e6
    raise MeasureError("the change was not seen")


@dataclass(frozen=True, slots=True)
class Affinity(_Crowded):
    """As many tenants as there are backends, a client each: shared backends beside dedicated ones."""

    def command(self, effort: Effort) -> str:
        return f"{self._count(effort)} tenants, a client each that never pauses, {BACKENDS} backends"

    def _rates_of(self, kind: type[CrowdTarget], postgres: Postgres, effort: Effort) -> dict[str, float]:
        with self._started(kind, postgres, effort) as started:
            clients = Clients(started, names(self._count(effort)))
            try:
                return _rates(started, clients, effort)
            finally:
                clients.close()

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        shared = self._rates_of(KINDS[target.name], postgres, effort)
        if target.name != "proxy":
            return Findings(shared, {})
        dedicated = self._rates_of(CrowdDedicated, postgres, effort)
        return Findings(
            shared
            | {
                "dedicated_tps": dedicated["tps"],
                "dedicated_cpu_us": dedicated["cpu_us"],
                "to_dedicated_pct": 100 * shared["tps"] / dedicated["tps"],
            },
            {},
        )


@dataclass(frozen=True, slots=True)
class NoisyNeighbour(_Crowded):
    """Tenants that ask now and then, alone and beside one that floods."""

    def unable(self, target: Target) -> str | None:
        return None if target.name in FLOODED else "it has no pools that tenants could share"

    def command(self, effort: Effort) -> str:
        flood = " ".join(self._flood(effort).arguments())
        return (
            f"{self._count(effort)} tenants with a statement each {QUIET_PAUSE_S} s; then the same beside "
            f"one more tenant's {flood}"
        )

    def _flood(self, effort: Effort) -> Job:
        # longer than the quiet ones are watched, so that they are never without it
        return Job("select-only", "simple", FLOOD_CLIENTS, seconds=effort.seconds + 2, log=False)

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        with self._started(FLOODED[target.name], postgres, effort) as started:
            clients = Clients(started, names(self._count(effort)))
            try:
                clients.run(1, IN_FLIGHT, point_query)
                alone = sorted(clients.pace(effort.seconds, QUIET_PAUSE_S, point_query))
                flood = _Flood(self._flood(effort), started)
                flood.start()
                time.sleep(1)
                beside = sorted(clients.pace(effort.seconds, QUIET_PAUSE_S, point_query))
                flood.join()
            finally:
                clients.close()
        if not alone or not beside or not flood.tps:
            raise MeasureError("somebody was not served")
        return Findings(
            {
                "alone_p50_us": percentile(alone, 0.5),
                "alone_p99_us": percentile(alone, 0.99),
                "quiet_p50_us": percentile(beside, 0.5),
                "quiet_p99_us": percentile(beside, 0.99),
                "flood_tps": flood.tps,
                "beside_pct": 100 * percentile(beside, 0.99) / percentile(alone, 0.99),
            },
            {},
        )


class _Flood(threading.Thread):
    def __init__(self, job: Job, target: CrowdTarget) -> None:
        super().__init__(daemon=True)
        self._job, self._target = job, target
        self.tps = 0.0

    def run(self) -> None:
        [done] = pgbench.run([(self._job, self._target.flood())])
        self.tps = done.summary.processed / (self._job.seconds or 1)


CROWD_SCENARIOS: Final[tuple[Scenario, ...]] = (
    Affinity("tenants-50", "crowd", "50 tenants, 50 backends", "transaction", 50),
    NoisyNeighbour("tenants-noisy", "crowd", "50 quiet tenants, one that floods", "transaction", 50),
    Crowded("tenants-1000", "crowd", "1,000 tenants, 50 backends", "transaction", 1000),
    CrowdClients("tenants-clients", "crowd", "10,000 clients, 1,000 tenants", "transaction", 1000),
    CrowdMemory("tenants-memory", "crowd", "1,000 tenants of 20 tables, all used", "transaction", 1000),
)
