"""What the guard costs, and what hostile statements cost others.

The costs are taken in this process: a lookup that hits, and judgements of statements that were not seen
before.  Hold-ups are seen by a client of another tenant that asks without a pause while somebody sends
statements that are made to be slow.  These are refused at the end of their judgement, so that what is
seen is the proxy and not the server.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as MultiprocessingConnection
from typing import NamedTuple, Self

from loadtests import procfs
from loadtests.postgres import TENANTS, Postgres
from loadtests.targets import Target
from loadtests.wire import Connection, Endpoint, WireError
from loadtests.work import Effort, Findings, MeasureError, Scenario
from tenant_proxy.config.schema import Policy
from tenant_proxy.guard.cache import VerdictCache
from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.model import Action

POINT_QUERY = "SELECT abalance FROM pgbench_accounts WHERE aid = $1"

#: 200 bytes
HIT = (
    "SELECT o.id, o.customer_id, o.placed_at, c.name, c.email FROM orders AS o "
    "JOIN customers AS c ON c.id = o.customer_id WHERE o.id = 12345 AND o.state = 'open' "
    "ORDER BY o.placed_at DESC, o.id LIMIT 1000"
)

#: a SELECT of a kilobyte, as an ORM writes it
ORM = "SELECT {columns} FROM {tables} WHERE {conditions} ORDER BY {order} LIMIT 21".format(
    columns=", ".join(
        f'"shop_{table}"."{column}"'
        for table in ("order", "customer", "address")
        for column in ("id", "created_at", "updated_at", "name", "state", "owner_id", "remark", "version")
    ),
    tables=(
        '"shop_order" INNER JOIN "shop_customer" ON ("shop_order"."customer_id" = "shop_customer"."id") '
        'LEFT OUTER JOIN "shop_address" ON ("shop_customer"."address_id" = "shop_address"."id")'
    ),
    conditions=(
        '("shop_order"."state" IN ($1, $2, $3) AND "shop_customer"."name" LIKE $4 AND '
        '"shop_order"."created_at" >= $5)'
    ),
    order='"shop_order"."created_at" DESC, "shop_order"."id" ASC',
)

#: what an attacker sends: of a table of another tenant's, so that it is refused, by a name not seen before
HOSTILE: dict[str, Callable[[str], str]] = {
    "4 KB of columns": lambda t: "SELECT " + "a," * 2000 + f"a FROM {t}",
    "4 KB of additions": lambda t: "SELECT " + "a+" * 1900 + f"a FROM {t}",
    "a body of 4 KB": lambda t: "DO $$ BEGIN " + "a := b; " * 490 + f"DELETE FROM {t}; END $$",
    "4 KB of comments": lambda t: f"SELECT 1 FROM {t} " + "/*" * 1000 + "*/" * 1000,
    "a row for 500 columns": lambda t: f"UPDATE {t} SET (" + "a," * 500 + "a) = (" + "1," * 500 + "1)",
    "16 KB of columns": lambda t: "SELECT " + "a," * 8000 + f"a FROM {t}",
    "10,000 parameters": lambda t: (
        f"SELECT * FROM {t} WHERE id IN (" + ", ".join(f"${n}" for n in range(1, 10_001)) + ")"
    ),
    "10,000 parentheses": lambda t: "SELECT " + "(" * 10_000 + "1" + ")" * 10_000 + f" FROM {t}",
    "10,000 CASEs": lambda t: "SELECT " + "CASE WHEN a THEN " * 10_000 + "1" + " END" * 10_000 + f" FROM {t}",
    "5,000 statements": lambda t: "SELECT 1;" * 5000 + f"SELECT 1 FROM {t}",
    "a body of 200 KB": lambda t: "DO $$ BEGIN " + "PERFORM f(1); " * 15_000 + f"DELETE FROM {t}; END $$",
    "100,000 rows": lambda t: f"INSERT INTO {t} VALUES " + ", ".join(["(1, 'abc', 2.5)"] * 100_000),
    "1 MB of columns": lambda t: "SELECT " + "a," * 500_000 + f"a FROM {t}",
    "8 MB of text": lambda t: "SELECT '" + "x" * 8_000_000 + f"' FROM {t}",
    "8 MB of numbers": lambda t: "SELECT " + "1," * 4_000_000 + f"1 FROM {t}",
}


@dataclass(frozen=True, slots=True)
class _OfTheProxy(Scenario):
    def unable(self, target: Target) -> str | None:
        return None if target.name == "proxy" else "it has no guard"


@dataclass(frozen=True, slots=True)
class Costs(_OfTheProxy):
    """Lookups and judgements by themselves."""

    def command(self, effort: Effort) -> str:
        return f"lookup of {len(HIT)} bytes; judgement of a point query and of {len(ORM)} bytes"

    def warm_up(self, target: Target, effort: Effort) -> None: ...

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        scope = GuardScope.build(id=1, tenant="acme", schema="acme", login="acme", policy=Policy())
        guard, cache = Guard(), VerdictCache(1000)
        verdict = guard.judge_at_once(scope, HIT)
        if verdict is None or verdict.action is not Action.ALLOW:
            raise MeasureError("the statement to be looked up is not allowed")
        text = HIT.encode()
        cache.store(1, text, int(verdict.effects), verdict.exact)
        repeats = 200 if effort.quick else 5000

        def judge(sql: str) -> None:
            if guard.judge_at_once(scope, sql) is None:
                raise MeasureError("not judged at once")

        return Findings(
            {
                "hit_ns": _median_ns(lambda: cache.find(1, text), repeats, inner=100),
                "miss_point_us": _median_ns(lambda: judge(POINT_QUERY), repeats) / 1000,
                "miss_orm_us": _median_ns(lambda: judge(ORM), repeats) / 1000,
            },
            {},
        )


def _median_ns(act: Callable[[], object], repeats: int, inner: int = 1) -> float:
    """Of one call, by the clock: what disturbs some calls does not move the median."""
    act()
    times = []
    for _ in range(repeats):
        before = time.perf_counter_ns()
        for _ in range(inner):
            act()
        times.append((time.perf_counter_ns() - before) / inner)
    return statistics.median(times)


@dataclass(frozen=True, slots=True)
class HoldUp(_OfTheProxy):
    """A client's round trips beside hostile statements of another tenant.

    What the kernel lets wait for a processor is not the proxy's to answer for, and longer than what is looked
    for: the time that worker, server and client were ready to run and did not is taken off (schedstat).  What
    a statement holds up, it holds up each time it comes: of each, the median of the longest counts.
    """

    def command(self, effort: Effort) -> str:
        return f"SELECT 1 without a pause, beside {self._times(effort)} × ({', '.join(HOSTILE)})"

    def _times(self, effort: Effort) -> int:
        return 1 if effort.quick else 5

    def warm_up(self, target: Target, effort: Effort) -> None:
        self._send(target.endpoint(TENANTS[0]), HOSTILE["100,000 rows"]("beta.t"))

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        attacker, witness = (target.endpoint(name) for name in TENANTS)
        #: of each statement, when it was sent and when that was over
        spans: dict[str, list[tuple[float, float]]] = {name: [] for name in HOSTILE}
        answers: list[float] = []
        if target.pid is None:
            raise MeasureError("there is no process to measure")
        with _Witness(witness) as asking:
            # who answers it is who is busiest with it
            asking.watch([_busiest(root, min(1.0, effort.seconds)) for root in (target.pid, postgres.pid)])
            begun = time.perf_counter()
            time.sleep(min(2.0, effort.seconds))
            alone_until = time.perf_counter()
            for number in range(self._times(effort)):
                for name, text in HOSTILE.items():
                    sql = text(f"beta.t{number}")
                    before = time.perf_counter()
                    self._send(attacker, sql)
                    after = time.perf_counter()
                    answers.append((after - before) * 1e6)
                    time.sleep(0.05)
                    spans[name].append((before, time.perf_counter()))
            trips = asking.trips()
        alone = _within(trips, begun, alone_until)
        if not alone:
            raise MeasureError("the witness got no answer")
        beside = [[_within(trips, *span) for span in spans[name]] for name in HOSTILE]
        normal = statistics.median(trip.own_us for trip in alone)
        return Findings(
            {
                "normal_us": statistics.median(trip.clock_us for trip in alone),
                "normal_max_us": max(trip.clock_us for trip in alone),
                "holdup_us": _longest(beside, lambda trip: trip.own_us) - normal,
                "holdup_clock_us": _longest(beside, lambda trip: trip.clock_us),
                "answer_us": max(answers),
            },
            {},
        )

    def _send(self, endpoint: Endpoint, sql: str) -> None:
        with Connection(endpoint, timeout_s=60) as client:
            try:
                client.drain_query(sql)
            except WireError:
                return
        raise MeasureError(f"not refused: {sql[:40]} …")


class Trip(NamedTuple):
    """A round trip: when it began and ended, and how long processors were waited for meanwhile."""

    begin: float
    end: float
    waited_us: float

    @property
    def clock_us(self) -> float:
        return (self.end - self.begin) * 1e6

    @property
    def own_us(self) -> float:
        """Those who wait at the same time are all counted, so it can be too little, never too much."""
        return max(0.0, self.clock_us - self.waited_us)


def _within(trips: list[Trip], since: float, until: float) -> list[Trip]:
    """The round trips that were under way then."""
    return [trip for trip in trips if since <= trip.end and trip.begin <= until]


def _longest(beside: list[list[list[Trip]]], length: Callable[[Trip], float]) -> float:
    """Of the medians of each statement's longest."""
    return max(statistics.median(max(map(length, trips), default=0.0) for trips in of) for of in beside)


def _busiest(root: int, seconds: float) -> int:
    """The process of a tree that uses most CPU in this time."""
    before = procfs.cpu_by_process(root)
    time.sleep(seconds)
    return procfs.busiest(before, procfs.cpu_by_process(root))


class _Witness:
    """Asks without a pause, in a process of its own: making megabytes of SQL here does not hold it up."""

    def __init__(self, endpoint: Endpoint) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_ask, args=(endpoint, theirs), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        # it has logged in
        self._ours.recv()
        return self

    def watch(self, pids: list[int]) -> None:
        """From now on its own waits for a processor and theirs do not count."""
        self._ours.send(pids)

    def trips(self) -> list[Trip]:
        """Ends it."""
        self._ours.send(None)
        found: list[Trip] = self._ours.recv()
        return found

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join()


def _ask(endpoint: Endpoint, parent: MultiprocessingConnection[list[Trip] | None, list[int] | None]) -> None:
    buffer = bytearray(4096)
    trips: list[Trip] = []
    watched: list[int] = []
    with Connection(endpoint) as client, contextlib.suppress(EOFError):
        client.drain_query("SELECT 1", buffer)
        parent.send(None)
        while True:
            if parent.poll():
                pids = parent.recv()
                if pids is None:
                    break
                watched = [*pids, os.getpid()]
            waited = sum(map(procfs.run_delay_us, watched))
            before = time.perf_counter()
            client.drain_query("SELECT 1", buffer)
            after = time.perf_counter()
            trips.append(Trip(before, after, sum(map(procfs.run_delay_us, watched)) - waited))
        parent.send(trips)


@dataclass(frozen=True, slots=True)
class Shapes(_OfTheProxy):
    """Statements none of which was seen before."""

    def fresh(self) -> bool:
        return True

    def _count(self, effort: Effort) -> int:
        return 5_000 if effort.quick else 100_000

    def command(self, effort: Effort) -> str:
        return f"{self._count(effort):,} × SELECT 1 AS a… , each with a name of its own"

    def warm_up(self, target: Target, effort: Effort) -> None:
        with Connection(target.endpoint(TENANTS[0])) as client:
            client.drain_query("SELECT 1")

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        if target.pid is None:
            raise MeasureError("there is no process to measure")
        before = procfs.tree_memory(target.pid)
        count = self._count(effort)
        used = procfs.tree_cpu(target.pid).cpu_s
        buffer = bytearray(4096)
        with Connection(target.endpoint(TENANTS[0])) as client:
            for number in range(count):
                client.drain_query(f"SELECT 1 AS a{number}", buffer)
        after = procfs.tree_memory(target.pid)
        return Findings(
            {
                "shapes_bytes": float(after.growing_bytes - before.growing_bytes),
                "cpu_us": (procfs.tree_cpu(target.pid).cpu_s - used) * 1e6 / count,
            },
            {},
        )
