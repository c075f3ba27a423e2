"""What tenant_proxy must reach against PgBouncer, and whether a run's figures show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loadtests.results import BASE, DISTURBED_PCT, Results
from loadtests.stats import Spread

SUBJECT = "proxy"


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on one figure of the proxy: on itself, or on its ratio to PgBouncer's."""

    scenario: str
    metric: str
    bound: Literal["at most", "at least"]
    limit: float
    relative: bool
    text: str


GOALS = (
    *(
        Goal(name, "cpu_us", "at most", 1.0, True, f"CPU per transaction, pgbench -S, 16 clients, {what}")
        for name, what in (("select-simple-16", "simple"), ("select-prepared-16", "prepared"))
    ),
    *(
        Goal(name, "mb_s", "at least", 0.95, True, f"throughput of {what}")
        for name, what in (
            ("result-wide", "large results, wide rows"),
            ("result-narrow", "large results, narrow rows"),
            ("copy-out", "COPY TO STDOUT"),
            ("copy-in", "COPY FROM STDIN"),
        )
    ),
    Goal("connect-16", "per_cpu_s", "at least", 1.0, True, "connect-query-disconnect per CPU second"),
    Goal("tenants-1000", "tps", "at least", 20, True, "1,000 tenants on 50 backends, transactions"),
    Goal("tenants-1000", "p99_us", "at most", 0.1, True, "1,000 tenants on 50 backends, p99"),
    Goal(
        "tenants-memory",
        "server_bytes",
        "at most",
        1_500_000_000,
        False,
        "server's private memory, 1,000 tenants of 20 tables on 50 backends, bytes",
    ),
    Goal("tenants-clients", "idle_bytes", "at most", 2048, False, "memory of each of 10,000 clients, bytes"),
    Goal(
        "tenants-clients",
        "reload_us",
        "at most",
        1_000_000,
        False,
        "10,000 clients: from a reload to its effect, µs",
    ),
    Goal("tenants-50", "to_dedicated_pct", "at least", 90, False, "50 tenants: shared ÷ dedicated, %"),
    Goal(
        "tenants-noisy", "beside_pct", "at most", 150, False, "quiet tenants' p99 beside a flood ÷ alone, %"
    ),
    Goal("guard-costs", "hit_ns", "at most", 500, False, "guard: a hit for 200 bytes, ns"),
    Goal("guard-costs", "miss_point_us", "at most", 50, False, "guard: a miss, point query, µs"),
    Goal("guard-costs", "miss_orm_us", "at most", 150, False, "guard: a miss, an ORM's SELECT of 1 kB, µs"),
    Goal(
        "guard-hold-up",
        "holdup_us",
        "at most",
        5000,
        False,
        "guard: longest hold-up of another tenant's round trip by hostile statements, µs",
    ),
    Goal(
        "guard-shapes",
        "shapes_bytes",
        "at most",
        96 * 1024 * 1024,
        False,
        "guard: memory of 100,000 different statements, bytes (the cache's bound is 64 MiB of keys)",
    ),
    *(
        Goal(f"catalogs-{tool}", "p50_us", "at most", 1.0, True, f"time of {what} among 1,000 schemas")
        for tool, what in (
            ("psql-list", r"psql's \d"),
            ("psql-table", r"psql's \d of a table"),
            ("django", "Django's introspection"),
        )
    ),
    Goal("idle", "idle_bytes", "at most", 2048, False, "memory of each idle client, bytes"),
    Goal(
        "growth",
        "growth_bytes",
        "at most",
        1024 * 1024,
        False,
        "growth over a million transactions, bytes (up to one a transaction is the allocator's noise)",
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal and what was measured; `found` is None if it was not."""

    goal: Goal
    found: Spread | None
    why: str = ""
    #: of a run whose figures mean nothing
    quick: bool = False
    #: others used much of the machine meanwhile
    disturbed: bool = False

    @property
    def met(self) -> bool | None:
        """None: not measured, or not well enough to be judged."""
        if self.found is None or self.quick:
            return None
        if self.goal.bound == "at most":
            return self.found.median <= self.goal.limit
        return self.found.median >= self.goal.limit

    def word(self) -> str:
        if self.found is None:
            return "not measured"
        if self.quick:
            return "not judged: --quick"
        word = "met" if self.met else "MISSED"
        return f"{word} (disturbed)" if self.disturbed else word

    def figure(self) -> str:
        """The median and, in brackets, the lowest and highest."""
        if self.found is None:
            return self.why
        one = "{:,.0f}" if not self.goal.relative else "{:.2f} ×"
        shown = one.format(self.found.median)
        if self.found.count < 2:
            return shown
        return f"{shown} ({one.format(self.found.low)} – {one.format(self.found.high)})"

    def bound(self) -> str:
        limit = f"{self.goal.limit:.2f} × PgBouncer" if self.goal.relative else f"{self.goal.limit:,.0f}"
        return f"{self.goal.bound} {limit}"


def judge(results: Results, goals: Sequence[Goal] = GOALS) -> list[Outcome]:
    """Every goal's outcome in a run."""
    return [_judge(results, goal) for goal in goals]


def _judge(results: Results, goal: Goal) -> Outcome:
    scenario = results.scenario(goal.scenario)
    if scenario is None:
        return Outcome(goal, None, f"{goal.scenario} was not run")
    for name in (SUBJECT, *([BASE] if goal.relative else [])):
        if not scenario.values(name, goal.metric):
            why = scenario.failed.get(name) or scenario.skipped.get(name) or "no figure"
            return Outcome(goal, None, f"{name}: {why}".splitlines()[0])
    if goal.relative:
        found = scenario.ratio(SUBJECT, goal.metric)
    else:
        found = scenario.spread(SUBJECT, goal.metric)
    disturbed = scenario.disturbance_pct() > DISTURBED_PCT
    return Outcome(goal, found, quick=results.quick, disturbed=disturbed)
