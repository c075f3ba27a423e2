"""Sums of the workers' counters that never go backwards.

A Prometheus counter that falls is taken for a restart, and all it had counted is
counted again.  Sums over workers fall for reasons of their own: a worker dies
with its counts, a tenant moves between a label of its own and "other".  The
ledger keeps `base`, what is not in any living worker's counters any more, and

    total = base + the last counters of each living incarnation.

An incarnation is one start of one worker: its counters only grow.  Where one
falls nevertheless (a tenant left the row that was summed under "other"), the
difference moves to `base`.

`base` changes rarely, so it can be kept outside (by the supervisor) and the
control process, which scrapes, may die as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

#: a counter: name of the series and values of its labels
Key = tuple[str, ...]


class Ledger:
    def __init__(self) -> None:
        self._base: dict[Key, int] = {}
        self._last: dict[int, dict[Key, int]] = {}
        #: `base` has changed since `dump`
        self.dirty = False

    def update(self, incarnation: int, counters: dict[Key, int]) -> None:
        """What a living worker counts now; takes `counters` over."""
        for key, before in self._last.get(incarnation, {}).items():
            now = counters.get(key, 0)
            if now < before:
                self._add_base(key, before - now)
        self._last[incarnation] = counters

    def retire(self, living: Iterable[int]) -> None:
        """Incarnations that are not `living` are over; what they had counted stays."""
        for incarnation in self._last.keys() - set(living):
            for key, value in self._last.pop(incarnation).items():
                self._add_base(key, value)

    def forget(self, matches: Callable[[Key], bool]) -> None:
        """Drops counters whose series ends (a tenant that is gone)."""
        for counters in (self._base, *self._last.values()):
            for key in [k for k in counters if matches(k)]:
                del counters[key]
        self.dirty = True

    def totals(self) -> dict[Key, int]:
        totals = dict(self._base)
        for counters in self._last.values():
            for key, value in counters.items():
                totals[key] = totals.get(key, 0) + value
        return totals

    def dump(self) -> list[Any]:
        """JSON-able; `load` of it in a new process goes on where this one was."""
        self.dirty = False
        return [[*key, value] for key, value in self._base.items()]

    def load(self, rows: list[Any]) -> None:
        self._base = {tuple(row[:-1]): row[-1] for row in rows}

    def _add_base(self, key: Key, value: int) -> None:
        if value:
            self._base[key] = self._base.get(key, 0) + value
            self.dirty = True


#: label of all tenants that have none of their own
OTHER = "other"


class TenantLabels:
    """Which tenants have series of their own: the first `limit` that are active, the busiest first.

    Who is in stays in, else its counters would end and another's appear at each
    turn of the ranking.  A place is free again when the tenant is gone for good.
    A tenant that is really named "other" has no place: it is summed with the rest.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._admitted: dict[str, None] = {}
        #: somebody came in or left since `dump`
        self.dirty = False

    def admit(self, activity: dict[str, int]) -> None:
        """Gives free places to tenants that do something, those with most of it first."""
        free = self.limit - len(self._admitted)
        if free <= 0:
            return
        waiting = [
            (-amount, tenant)
            for tenant, amount in activity.items()
            if amount > 0 and tenant and tenant != OTHER and tenant not in self._admitted
        ]
        for _, tenant in sorted(waiting)[:free]:
            self._admitted[tenant] = None
            self.dirty = True

    def of(self, tenant: str | None) -> str:
        """The label for a tenant; "" for what belongs to none (a login that failed)."""
        if not tenant:
            return ""
        return tenant if tenant in self._admitted else OTHER

    def release(self, there: Callable[[str], bool]) -> list[str]:
        """Takes the places of tenants that are not `there` any more; returns their names."""
        gone = [tenant for tenant in self._admitted if not there(tenant)]
        for tenant in gone:
            del self._admitted[tenant]
            self.dirty = True
        return gone

    def dump(self) -> list[str]:
        self.dirty = False
        return list(self._admitted)

    def load(self, tenants: list[str]) -> None:
        self._admitted = dict.fromkeys(tenants)

    def __len__(self) -> int:
        return len(self._admitted)


class Words:
    """Bounds the values of a label that is open in principle: the first `limit` per series, then OTHER."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, dict[str, None]] = {}
        self.dirty = False

    def of(self, series: str, word: str) -> str:
        known = self._known.setdefault(series, {})
        if word not in known:
            if len(known) >= self._limit:
                return OTHER
            known[word] = None
            self.dirty = True
        return word

    def dump(self) -> dict[str, list[str]]:
        self.dirty = False
        return {series: list(known) for series, known in self._known.items()}

    def load(self, kept: dict[str, list[str]]) -> None:
        self._known = {series: dict.fromkeys(words) for series, words in kept.items()}
