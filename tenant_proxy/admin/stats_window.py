"""Totals of SHOW STATS over all workers, and averages since an earlier look.

Nothing is sampled in the background: each SHOW STATS is a sample, and averages
are over the time since the newest sample that is old enough to tell something,
or since the start.  The column `avg_period_s` says how long that was.
"""

from __future__ import annotations

from typing import Any

from tenant_proxy.obs.ledger import Key, Ledger

#: PgBouncer's columns: counts, bytes, and times in microseconds
TOTALS = (
    "total_server_assignment_count",
    "total_xact_count",
    "total_query_count",
    "total_received",
    "total_sent",
    "total_xact_time",
    "total_query_time",
    "total_wait_time",
    "total_client_parse_count",
    "total_server_parse_count",
    "total_bind_count",
)
AVERAGES = (
    "avg_server_assignment_count",
    "avg_xact_count",
    "avg_query_count",
    "avg_recv",
    "avg_sent",
    "avg_xact_time",
    "avg_query_time",
    "avg_wait_time",
    "avg_client_parse_count",
    "avg_server_parse_count",
    "avg_bind_count",
)
WINDOW_COLUMN = "avg_period_s"
#: averages of times are per event: of which count
_PER_EVENT = {
    "total_xact_time": "total_xact_count",
    "total_query_time": "total_query_count",
    "total_wait_time": "total_server_assignment_count",
}
#: shorter windows would show noise; older samples are not needed
MIN_WINDOW_S = 15.0
MAX_WINDOW_S = 120.0

Totals = dict[str, dict[str, int]]


class StatsWindow:
    """`started_s` and the times given later are of one monotonic clock."""

    def __init__(self, started_s: float) -> None:
        self._ledger = Ledger()
        self._samples: list[tuple[float, Totals]] = [(started_s, {})]

    def observe(
        self, now_s: float, answers: list[dict[str, Any]], living: set[int], *, together: bool = False
    ) -> list[dict[str, Any]]:
        """Rows by database from the workers' answers to snapshot stats; one row of all if `together`."""
        self._ledger.retire(living | {answer["incarnation"] for answer in answers})
        for answer in answers:
            counters: dict[Key, int] = {}
            for row in answer["result"].get("stats") or ():
                database = row.get("tenant") or row.get("database") or ""
                for name in TOTALS:
                    counters[database, name] = counters.get((database, name), 0) + row.get(name, 0)
            self._ledger.update(answer["incarnation"], counters)
        totals: Totals = {}
        for (database, name), value in self._ledger.totals().items():
            totals.setdefault(database, dict.fromkeys(TOTALS, 0))[name] = value
        before_s, before = self._baseline(now_s)
        self._samples.append((now_s, totals))
        period_s = max(now_s - before_s, 0.001)
        if together:
            return [_row("", _sum(totals), _sum(before), period_s)]
        return [_row(name, totals[name], before.get(name, {}), period_s) for name in sorted(totals)]

    def _baseline(self, now_s: float) -> tuple[float, Totals]:
        old_enough = [sample for sample in self._samples if now_s - sample[0] >= MIN_WINDOW_S]
        baseline = old_enough[-1] if old_enough else self._samples[0]
        # the one used stays: it serves until the next is old enough
        self._samples = [s for s in self._samples if s is baseline or now_s - s[0] < MAX_WINDOW_S]
        self._samples = [s for s in self._samples if s[0] >= baseline[0]]
        return baseline


def _sum(totals: Totals) -> dict[str, int]:
    result = dict.fromkeys(TOTALS, 0)
    for row in totals.values():
        for name, value in row.items():
            result[name] += value
    return result


def _row(database: str, now: dict[str, int], before: dict[str, int], period_s: float) -> dict[str, Any]:
    row: dict[str, Any] = {"database": database, WINDOW_COLUMN: round(period_s), **now}
    grown = {name: now[name] - before.get(name, 0) for name in TOTALS}
    for total, average in zip(TOTALS, AVERAGES, strict=True):
        events = _PER_EVENT.get(total)
        if events is None:
            row[average] = round(grown[total] / period_s)
        else:
            row[average] = grown[total] // grown[events] if grown[events] else 0
    return row
