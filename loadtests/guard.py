"""What the guard costs, and what hostile statements cost others.

The costs are taken in this process: a lookup that hits, and judgements of statements that were not seen
before.  Hold-ups are seen by a client of another tenant that asks without a pause while somebody sends
statements that are made to be slow.  These are refused at the end of their judgement, so that what is
seen is the proxy and not the server.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as MultiprocessingConnection
from typing import Self

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

#: what an attacker sends; {end} names another tenant's table, so that it is refused
HOSTILE: dict[str, Callable[[], str]] = {
    "4 KB of columns": lambda: "SELECT " + "a," * 2000 + "a FROM beta.t",
    "4 KB of additions": lambda: "SELECT " + "a+" * 1900 + "a FROM beta.t",
    "a body of 4 KB": lambda: "DO $$ BEGIN " + "a := b; " * 490 + "DELETE FROM beta.t; END $$",
    "4 KB of comments": lambda: "SELECT 1 FROM beta.t " + "/*" * 1000 + "*/" * 1000,
    "a row for 500 columns": lambda: "UPDATE beta.t SET (" + "a," * 500 + "a) = (" + "1," * 500 + "1)",
    "16 KB of columns": lambda: "SELECT " + "a," * 8000 + "a FROM beta.t",
    "10,000 parameters": lambda: (
        "SELECT * FROM beta.t WHERE id IN (" + ", ".join(f"${n}" for n in range(1, 10_001)) + ")"
    ),
    "10,000 parentheses": lambda: "SELECT " + "(" * 10_000 + "1" + ")" * 10_000,
    "10,000 CASEs": lambda: "SELECT " + "CASE WHEN a THEN " * 10_000 + "1" + " END" * 10_000,
    "5,000 statements": lambda: "SELECT 1;" * 5000 + "SELECT 1 FROM beta.t",
    "a body of 200 KB": lambda: "DO $$ BEGIN " + "PERFORM f(1); " * 15_000 + "DELETE FROM beta.t; END $$",
    "100,000 rows": lambda: "INSERT INTO beta.t VALUES " + ", ".join(["(1, 'abc', 2.5)"] * 100_000),
    "1 MB of columns": lambda: "SELECT " + "a," * 500_000 + "a FROM beta.t",
    "8 MB of text": lambda: "SELECT '" + "x" * 8_000_000 + "' FROM beta.t",
    "8 MB of numbers": lambda: "SELECT " + "1," * 4_000_000 + "1 FROM beta.t",
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
    """A client's round trips beside hostile statements of another tenant."""

    def command(self, effort: Effort) -> str:
        return f"SELECT 1 without a pause, beside {', '.join(HOSTILE)}"

    def warm_up(self, target: Target, effort: Effort) -> None:
        self._send(target.endpoint(TENANTS[0]), HOSTILE["100,000 rows"]())

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        attacker, witness = (target.endpoint(name) for name in TENANTS)
        #: of each statement, when it was sent and when that was over
        spans: list[tuple[float, float]] = []
        answers: list[float] = []
        with _Witness(witness) as asking:
            begun = time.perf_counter()
            time.sleep(min(2.0, effort.seconds))
            alone_until = time.perf_counter()
            for text in HOSTILE.values():
                sql = text()
                before = time.perf_counter()
                self._send(attacker, sql)
                after = time.perf_counter()
                answers.append((after - before) * 1e6)
                time.sleep(0.05)
                spans.append((before, time.perf_counter()))
            trips = asking.trips()
        alone = _within(trips, begun, alone_until)
        if not alone:
            raise MeasureError("the witness got no answer")
        longest = [max(_within(trips, *span), default=0.0) for span in spans]
        normal = statistics.median(alone)
        return Findings(
            {
                "normal_us": normal,
                "normal_max_us": max(alone),
                "holdup_us": max(longest) - normal,
                "answer_us": max(answers),
            },
            {"longest": [[n, us] for n, us in enumerate(longest)]},
        )

    def _send(self, endpoint: Endpoint, sql: str) -> None:
        with Connection(endpoint, timeout_s=60) as client:
            try:
                client.drain_query(sql)
            except WireError:
                return
        raise MeasureError(f"not refused: {sql[:40]} …")


#: when a round trip ended, and the µs that it took
Trip = tuple[float, float]


def _within(trips: list[Trip], since: float, until: float) -> list[float]:
    """Of the round trips that were under way then."""
    return [us for end, us in trips if since <= end and end - us / 1e6 <= until]


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

    def trips(self) -> list[Trip]:
        """Ends it."""
        self._ours.send(None)
        found: list[Trip] = self._ours.recv()
        return found

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join()


def _ask(endpoint: Endpoint, parent: MultiprocessingConnection[list[Trip] | None, None]) -> None:
    buffer = bytearray(4096)
    trips: list[Trip] = []
    with Connection(endpoint) as client, contextlib.suppress(EOFError):
        client.drain_query("SELECT 1", buffer)
        parent.send(None)
        while not parent.poll():
            before = time.perf_counter()
            client.drain_query("SELECT 1", buffer)
            after = time.perf_counter()
            trips.append((after, (after - before) * 1e6))
        parent.recv()
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
