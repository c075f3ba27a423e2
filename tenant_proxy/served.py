"""The supervisor's copy of the catalog's part: what workers that start are given, and how far each one is.

The control process tells of differences alone (`control.follow`); so does this to the workers, and gives
all of it to one that has missed something.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tenant_proxy.config.schema import Config, Isolation
from tenant_proxy.obs.log import get_logger
from tenant_proxy.pool.budget import AWAKE, CODE_COUNTERS, DEFINED, GROWING, PINS, RESERVED, TURNS, WAITS
from tenant_proxy.shm import MAX_TENANTS
from tenant_proxy.tenancy.records import code_name
from tenant_proxy.tenancy.registry import group_name

log = get_logger("supervisor")

Row = dict[str, Any]


class ServedStore:
    """Tenants and logins of the catalog, as rows that `tenancy.records` reads."""

    def __init__(self) -> None:
        self.tenants: dict[str, Row] = {}
        self.logins: dict[str, Row] = {}
        #: grows with each change
        self.revision = 0
        #: worker's name -> the revision that it has
        self._given: dict[str, int] = {}
        #: workers that take changes although they are not ready yet
        self._hearing: set[str] = set()
        #: opaque: what the follower wants to know of each row after a restart
        self.marks: dict[str, dict[str, str]] = {"tenants": {}, "logins": {}}

    def apply(self, params: dict[str, Any]) -> None:
        """Takes a difference: rows that are new or other, names that are gone, and marks of the rows."""
        for kind, rows in (("tenants", self.tenants), ("logins", self.logins)):
            for row in params[kind]:
                rows[row["name"]] = row
            self.marks[kind].update(params["marks"][kind])
            for name in params[f"gone_{kind}"]:
                rows.pop(name, None)
                self.marks[kind].pop(name, None)
        self.revision += 1

    def whole(self) -> dict[str, Any]:
        """All of it, as a worker takes it."""
        return {"tenants": list(self.tenants.values()), "logins": list(self.logins.values()), "whole": True}

    def difference(self, params: dict[str, Any]) -> dict[str, Any]:
        """What `apply` has just taken, as a worker takes it."""
        names = ("tenants", "logins", "gone_tenants", "gone_logins")
        return {name: params[name] for name in names} | {"whole": False}

    def note(self, worker: str, revision: int | None = None) -> None:
        """A worker has this revision; without one, it starts with the newest."""
        self._given[worker] = self.revision if revision is None else revision
        if revision is None:
            self._hearing.discard(worker)

    def begin(self, worker: str) -> int:
        """A worker hears of changes from now on, and is given what there is; returns the revision."""
        self._hearing.add(worker)
        self._given[worker] = self.revision
        return self.revision

    def hears(self, worker: str) -> bool:
        return worker in self._hearing

    def has(self, worker: str) -> int:
        return self._given.get(worker, -1)


class Indexes:
    """Places of the shared counters, by what is counted: kept for good, so that a change moves nobody's
    count."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self._full = False

    def of_config(self, config: Config) -> None:
        names = [f"cluster:{cluster.name}" for cluster in config.clusters]
        for cluster in config.clusters:
            if cluster.service.user:
                names += [f"tenant:{group_name(cluster.name)}", f"{RESERVED}:{cluster.name}"]
        names += ["clients", AWAKE]
        for tenant in config.tenants:
            isolation = tenant.isolation or config.isolation
            code = code_name(tenant.cluster or config.clusters[0].name, tenant.schema_ or tenant.name)
            names += _of_tenant(tenant.name, code, isolation)
        names += [f"clients of user:{user.name}" for user in config.users]
        self._add(names)

    def of_tenants(self) -> dict[str, int]:
        """The places of tenants, by their names; groups of shared backends are none."""
        start = "tenant:"
        return {
            name.removeprefix(start): place
            for name, place in self.places.items()
            if name.startswith(start) and not name.startswith(f"{start}*")
        }

    def of_growing(self) -> list[int]:
        """The places of counters that the death of a worker must not make less."""
        starts = tuple(f"{what}:" for what in GROWING)
        return [place for name, place in self.places.items() if name.startswith(starts)]

    def of_served(self, tenants: Iterable[Row], logins: Iterable[Row], config: Config) -> dict[str, int]:
        """Returns the places that are new."""
        names: list[str] = []
        for tenant in tenants:
            isolation = tenant.get("isolation") or config.isolation
            cluster = tenant.get("cluster") or config.clusters[0].name
            code = code_name(cluster, tenant.get("schema") or tenant["name"])
            names += _of_tenant(tenant["name"], code, isolation)
        names += [f"clients of user:{login['name']}" for login in logins]
        return self._add(names)

    def _add(self, names: Iterable[str]) -> dict[str, int]:
        new: dict[str, int] = {}
        for name in names:
            if name in self.places:
                continue
            if len(self.places) >= MAX_TENANTS:
                if not self._full:
                    log.error("no counters are left: limits of further tenants and logins do not hold")
                self._full = True
                break
            new[name] = self.places[name] = len(self.places)
        return new


def _of_tenant(name: str, code: str, isolation: Isolation | str) -> list[str]:
    names = [f"tenant:{name}", f"clients of tenant:{name}", f"{PINS}:{name}", f"{WAITS}:{name}"]
    names.append(f"{DEFINED}:{code}")
    if isolation == Isolation.SHARED:
        names += [f"{TURNS}:{name}", *(f"{what}:{code}" for what in CODE_COUNTERS)]
    return names
