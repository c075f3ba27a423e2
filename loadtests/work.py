"""How each kind of scenario is measured on one target: its `measure` is one round."""

from __future__ import annotations

import os
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from loadtests import pgbench, procfs
from loadtests.pgbench import Job, Transaction
from loadtests.postgres import TENANTS, Postgres
from loadtests.results import Sample
from loadtests.stats import percentile, slope, steady_window
from loadtests.targets import Target
from loadtests.wire import Connection, Endpoint, message

MB = 1_000_000


class MeasureError(Exception):
    """A round gave no figure that means anything."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of everything is done."""

    seconds: float = 5
    idle_clients: int = 10_000
    growth_transactions: int = 1_000_000
    bulk_bytes: int = 100 * MB
    #: a look whether it works; its figures mean nothing
    quick: bool = False

    def settle_s(self) -> float:
        """Logins and first plans are not counted."""
        return min(0.5, self.seconds / 10)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a measurement returns before it is labelled with target and round."""

    metrics: dict[str, float]
    series: dict[str, list[list[float]]]


class Noise:
    """CPU that others used while something was measured, in percent of the machine."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._system = procfs.system_cpu()
        self._ours = procfs.tree_cpu(os.getpid()).cpu_s

    def metrics(self) -> dict[str, float]:
        capacity = (time.monotonic() - self._at) * (os.cpu_count() or 1)
        system = procfs.system_cpu()
        foreign = system.busy_s - self._system.busy_s - (procfs.tree_cpu(os.getpid()).cpu_s - self._ours)
        return {
            "foreign_pct": 100 * max(0.0, foreign) / capacity,
            "steal_pct": 100 * (system.steal_s - self._system.steal_s) / capacity,
        }


class CpuMeter:
    """Reads the CPU seconds of a target's tree as it was at the start."""

    def __init__(self, target: Target) -> None:
        self._root = target.pid
        self._before = procfs.tree_cpu(self._root) if self._root else None

    def read(self) -> float:
        return procfs.cpu_of(self._before.pids) if self._before else 0.0

    def used(self) -> float | None:
        """CPU seconds since the start, None where nothing is in between.

        Raises MeasureError if a process of the tree has ended: a crash under load is no result.
        """
        if self._root is None or self._before is None:
            return None
        now = procfs.tree_cpu(self._root)
        gone = set(self._before.pids) - set(now.pids)
        if gone:
            raise MeasureError(f"{len(gone)} process(es) of the target ended during the round")
        return now.cpu_s - self._before.cpu_s


def latencies(transactions: list[Transaction], start: float, end: float) -> dict[str, float]:
    """p50 and p99 of what was completed between two times."""
    inside = sorted(t.latency_us for t in transactions if start <= t.done_at <= end)
    if not inside:
        raise MeasureError("no transaction was completed in the measured time")
    return {"p50_us": percentile(inside, 0.5), "p99_us": percentile(inside, 0.99)}


@dataclass(frozen=True, slots=True)
class Scenario(ABC):
    """One thing to measure."""

    name: str
    group: str
    title: str
    mode: str

    #: whether it needs a target that has served nobody yet (memory)
    def fresh(self) -> bool:
        return False

    def unable(self, target: Target) -> str | None:
        """Why this target can't do it, None if it can."""
        return None

    @abstractmethod
    def command(self, effort: Effort) -> str:
        """What is run, for the report."""

    @abstractmethod
    def warm_up(self, target: Target, effort: Effort) -> None:
        """Opens the pool and fills caches, once before the first round."""

    @abstractmethod
    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings: ...

    def round(self, target: Target, postgres: Postgres, effort: Effort, number: int) -> Sample:
        noise = Noise()
        found = self.measure(target, postgres, effort)
        return Sample(target.name, number, found.metrics | noise.metrics(), found.series)


@dataclass(frozen=True, slots=True)
class Pgbench(Scenario):
    """pgbench with one of its own scripts."""

    builtin: str
    protocol: str
    clients: int
    connect: bool = False
    tls: bool = False

    def unable(self, target: Target) -> str | None:
        if self.tls and target.pid is None:
            return "it is started without TLS"
        if self.protocol == "prepared" and self.mode == "transaction" and not target.prepares_in_transactions:
            return "this version has no prepared statements in transaction pooling (1.21 and later do)"
        return None

    def _job(self, seconds: float) -> Job:
        return Job(self.builtin, self.protocol, self.clients, seconds=seconds, connect=self.connect)

    def command(self, effort: Effort) -> str:
        settings = ["PGSSLMODE=require"] if self.tls else []
        return " ".join([*settings, *self._job(effort.seconds).arguments()])

    def endpoint(self, target: Target) -> Endpoint:
        """Where its clients connect."""
        return replace(target.endpoint(TENANTS[0]), tls=self.tls)

    def warm_up(self, target: Target, effort: Effort) -> None:
        pgbench.run([(self._job(1), self.endpoint(target))])

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        meter = CpuMeter(target)
        server = procfs.tree_cpu(postgres.pid)
        [run] = pgbench.run([(self._job(effort.seconds), self.endpoint(target))], meter.read)
        server_used = procfs.tree_cpu(postgres.pid).cpu_s - server.cpu_s
        meter.used()  # notices a crash
        if run.summary.failed:
            raise MeasureError(f"{run.summary.failed} transactions failed")
        done = [t.done_at for t in run.transactions]
        window = steady_window(run.readings, done, effort.settle_s())
        if window is None:
            raise MeasureError(f"too few transactions to measure: {len(done)}")
        timed = pgbench.cycles(run.transactions) if self.connect else run.transactions
        metrics = {
            "tps": window.events / window.seconds,
            **latencies(timed, window.start, window.end),
            "server_cpu_us": server_used * 1e6 / max(1, run.summary.processed),
        }
        if target.pid is not None:
            metrics["cpu_us"] = window.growth * 1e6 / window.events
            metrics["per_cpu_s"] = window.events / window.growth if window.growth else 0.0
        return Findings(metrics, {})


def copy_data(total_bytes: int, row_bytes: int) -> Iterator[bytes]:
    """About `total_bytes` of CopyData, a message for each row, as drivers send that write row by row."""
    one = message(b"d", b"x" * (row_bytes - 1) + b"\n")
    chunk = one * max(1, 65536 // len(one))
    for _ in range(max(1, total_bytes // len(chunk))):
        yield chunk


@dataclass(frozen=True, slots=True)
class Bulk(Scenario):
    """One connection that moves much data: statement after statement."""

    #: {rows} and {width} are filled in; "COPY … FROM STDIN" sends, all else receives
    sql: str
    row_bytes: int

    def _statement(self, effort: Effort) -> str:
        return self.sql.format(rows=max(1, effort.bulk_bytes // self.row_bytes), width=self.row_bytes)

    def _act(self, connection: Connection, effort: Effort, buffer: bytearray) -> int:
        if "FROM STDIN" in self.sql:
            return connection.copy_in(self._statement(effort), copy_data(effort.bulk_bytes, self.row_bytes))
        return connection.drain_query(self._statement(effort), buffer)

    def command(self, effort: Effort) -> str:
        return self._statement(effort)

    def warm_up(self, target: Target, effort: Effort) -> None:
        with Connection(target.endpoint(TENANTS[0])) as connection:
            self._act(connection, effort, bytearray(256 * 1024))

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        buffer = bytearray(256 * 1024)
        times: list[float] = []
        total = 0
        sizes: set[int] = set()
        with Connection(target.endpoint(TENANTS[0])) as connection:
            connection.drain_query("SELECT 1")  # the pool's backend is there before the clock starts
            meter = CpuMeter(target)
            begin = time.monotonic()
            while len(times) < 2 or time.monotonic() - begin < effort.seconds:
                before = time.monotonic()
                moved = self._act(connection, effort, buffer)
                times.append(time.monotonic() - before)
                sizes.add(moved)
                total += moved
            used = meter.used()
        if len(sizes) != 1:
            raise MeasureError(f"the same statement gave results of different sizes: {sorted(sizes)}")
        metrics = {
            "mb_s": total / MB / sum(times),
            "p50_us": statistics.median(times) * 1e6,
        }
        if used is not None:
            metrics["cpu_us_mb"] = used * 1e6 / (total / MB)
        return Findings(metrics, {})


@dataclass(frozen=True, slots=True)
class Idle(Scenario):
    """Clients that have logged in, have asked once, and then do nothing."""

    def fresh(self) -> bool:
        return True

    def unable(self, target: Target) -> str | None:
        return "PostgreSQL has a process for each client" if target.pid is None else None

    def command(self, effort: Effort) -> str:
        return f"{effort.idle_clients} × (login, SELECT 1), then nothing"

    def warm_up(self, target: Target, effort: Effort) -> None:
        # what is loaded and allocated with the first clients is not these clients' share
        for _ in range(30):
            with Connection(target.endpoint(TENANTS[0])) as connection:
                connection.drain_query("SELECT 1")

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        if target.pid is None:
            raise MeasureError("there is no process to measure")
        before = procfs.tree_memory(target.pid)
        meter = CpuMeter(target)
        count = effort.idle_clients
        with ExitStack() as stack:
            clients = []
            for _ in range(count):
                client = stack.enter_context(Connection(target.endpoint(TENANTS[0])))
                client.drain_query("SELECT 1", bytearray(4096))
                clients.append(client)
            logins_s = meter.used() or 0.0
            time.sleep(min(2.0, effort.seconds))
            after = procfs.tree_memory(target.pid)
            resting = CpuMeter(target)
            begin = time.monotonic()
            time.sleep(min(5.0, effort.seconds))
            idle_pct = 100 * (resting.used() or 0.0) / (time.monotonic() - begin)
            for client in (clients[0], clients[-1]):  # they are still served
                client.drain_query("SELECT 1")
        return Findings(
            {
                "idle_bytes": (after.growing_bytes - before.growing_bytes) / count,
                "empty_bytes": float(before.total_bytes),
                "login_cpu_us": logins_s * 1e6 / count,
                "idle_cpu_pct": idle_pct,
            },
            {},
        )


#: what a million transactions are made of: (protocol, -C, share)
GROWTH_MIX = (
    ("simple", False, 0.45),
    ("extended", False, 0.25),
    ("prepared", False, 0.25),
    ("simple", True, 0.05),
)
GROWTH_CLIENTS = 16


@dataclass(frozen=True, slots=True)
class Growth(Scenario):
    """Very many transactions, the memory watched."""

    def fresh(self) -> bool:
        return True

    def unable(self, target: Target) -> str | None:
        return "its backends are not what is watched" if target.pid is None else None

    def _jobs(self, effort: Effort) -> list[Job]:
        return [
            Job(
                "select-only",
                protocol,
                GROWTH_CLIENTS,
                transactions=max(1, round(effort.growth_transactions * share / GROWTH_CLIENTS)),
                connect=connect,
                log=False,
            )
            for protocol, connect, share in GROWTH_MIX
        ]

    def command(self, effort: Effort) -> str:
        return " ; ".join(" ".join(job.arguments()) for job in self._jobs(effort))

    def warm_up(self, target: Target, effort: Effort) -> None:
        """None: the first tenth of the transactions is not counted."""

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        root = target.pid
        if root is None:
            raise MeasureError("there is no process to measure")
        meter = CpuMeter(target)
        points: list[tuple[float, float]] = []
        done = 0
        for job in self._jobs(effort):
            # a reading of PSS walks the page tables, so not more often than it must be
            [run] = pgbench.run(
                [(job, target.endpoint(TENANTS[0]))],
                lambda: float(procfs.tree_memory(root).growing_bytes),
                every_s=0.2 if effort.quick else 1.0,
            )
            if run.summary.failed:
                raise MeasureError(f"{run.summary.failed} transactions failed")
            points += evenly(done, run.summary.processed, [r.value for r in run.readings])
            done += run.summary.processed
        used = meter.used() or 0.0
        late = [p for p in points if p[0] >= done / 10]
        if len(late) < 2:
            raise MeasureError("too short to see growth")
        edge = max(1, len(late) // 20)
        start = statistics.median(y for _, y in late[:edge])
        end = statistics.median(y for _, y in late[-edge:])
        return Findings(
            {
                "growth_bytes": end - start,
                "final_bytes": float(procfs.tree_memory(root).total_bytes),
                "slope_bytes": slope(late) * 1e6,
                "cpu_us": used * 1e6 / done,
            },
            {"memory": [[x, y] for x, y in points]},
        )


def evenly(done: int, processed: int, values: list[float]) -> list[tuple[float, float]]:
    """Spreads readings that were taken at equal times over the transactions done meanwhile."""
    step = processed / max(1, len(values) - 1)
    return [(done + n * step, value) for n, value in enumerate(values)]


FLOOD_CLIENTS = 32
EQUAL_CLIENTS = 16


@dataclass(frozen=True, slots=True)
class TwoTenants(Scenario):
    """One tenant's flood beside another's single client; then two equal ones."""

    def command(self, effort: Effort) -> str:
        quiet, flood = self._job(1, effort), self._job(FLOOD_CLIENTS, effort)
        equal = " ".join(self._job(EQUAL_CLIENTS, effort).arguments())
        one, other = " ".join(quiet.arguments()), " ".join(flood.arguments())
        return f"{one} ; {one} & {other} ; {equal} & {equal}"

    def _job(self, clients: int, effort: Effort) -> Job:
        return Job("select-only", "simple", clients, seconds=effort.seconds)

    def warm_up(self, target: Target, effort: Effort) -> None:
        jobs = [Job("select-only", "simple", FLOOD_CLIENTS, seconds=1)] * 2
        pgbench.run([(job, target.endpoint(name)) for job, name in zip(jobs, TENANTS, strict=True)])

    def measure(self, target: Target, postgres: Postgres, effort: Effort) -> Findings:
        busy, quiet = (target.endpoint(name) for name in TENANTS)
        meter = CpuMeter(target)
        settle = effort.settle_s()
        [alone] = pgbench.run([(self._job(1, effort), quiet)])
        together = pgbench.run([(self._job(1, effort), quiet), (self._job(FLOOD_CLIENTS, effort), busy)])
        equal = pgbench.run([(self._job(EQUAL_CLIENTS, effort), who) for who in (busy, quiet)])
        meter.used()
        first, last = overlap([run.transactions for run in together], settle)
        rates = [rate(run.transactions, *overlap([r.transactions for r in equal], settle)) for run in equal]
        beside = latencies(together[0].transactions, first, last)
        by_itself = latencies(alone.transactions, *overlap([alone.transactions], settle))
        return Findings(
            {
                "alone_p50_us": by_itself["p50_us"],
                "alone_p99_us": by_itself["p99_us"],
                "quiet_p50_us": beside["p50_us"],
                "quiet_p99_us": beside["p99_us"],
                "flood_tps": rate(together[1].transactions, first, last),
                "share": min(rates) / max(rates),
            },
            {},
        )


def overlap(logs: list[list[Transaction]], settle_s: float) -> tuple[float, float]:
    """The time in which all were at work, the first `settle_s` left out."""
    if not all(logs):
        raise MeasureError("a client completed nothing")
    start = max(log[0].done_at for log in logs) + settle_s
    end = min(log[-1].done_at for log in logs)
    if end <= start:
        raise MeasureError("the two tenants were not at work at the same time")
    return start, end


def rate(transactions: list[Transaction], start: float, end: float) -> float:
    """Transactions per second completed between two times."""
    return sum(start <= t.done_at <= end for t in transactions) / (end - start)
