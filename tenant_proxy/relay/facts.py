"""What the clusters have installed: whether tenants' catalogs can be shown to them alone (decision 10).

A server that has logged in is asked once for all of its cluster, before it is given to anybody: so where
it decides how statements are read (`policy.catalogs`) it is known before the first one is judged.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from tenant_proxy.config.schema import Cluster
from tenant_proxy.obs.log import get_logger
from tenant_proxy.shims import VERSION

log = get_logger("facts")

#: a cluster without them is asked again by a server that is opened later than this
RETRY_S: Final = 60.0

#: asked one after the other: the first says whether the second can be asked
QUESTIONS: Final = (
    "SELECT pg_catalog.to_regprocedure('tp_catalog.version()') IS NOT NULL",
    "SELECT tp_catalog.version()",
)

Key = tuple[str, int, str]


@dataclass(slots=True)
class Fact:
    #: what tp_catalog.version() has answered; "" where there is none
    version: str
    #: time.monotonic()
    asked: float
    #: a reload has come since
    stale: bool = False


class Facts:
    """Of all clusters of a worker."""

    def __init__(self) -> None:
        self._facts: dict[Key, Fact] = {}

    def installed(self, cluster: Cluster) -> bool | None:
        """Whether what hides other tenants is there in this version; None if it is not known."""
        fact = self._facts.get(key_of(cluster))
        return None if fact is None else fact.version == VERSION

    def is_wanted(self, cluster: Cluster) -> bool:
        """Whether the next server is to be asked."""
        fact = self._facts.get(key_of(cluster))
        if fact is None or fact.stale:
            return True
        return fact.version != VERSION and time.monotonic() - fact.asked > RETRY_S

    def learn(self, cluster: Cluster, version: str) -> bool:
        """Takes an answer; true if it is news."""
        before = self.installed(cluster)
        fact = Fact(version, time.monotonic())
        self._facts[key_of(cluster)] = fact
        now = version == VERSION
        if version and not now:
            log.warning(
                "what hides tenants in the catalogs is of another version, and not used",
                cluster=cluster.name,
                version=version,
                wanted=VERSION,
                mend=f"tenant-proxy catalog install --cluster {cluster.name}",
            )
        elif now != before:
            log.info("catalogs of tenants", cluster=cluster.name, installed=now)
        return now != before

    def doubt(self) -> None:
        """A reload: what is known holds until the next server is asked."""
        for fact in self._facts.values():
            fact.stale = True

    def forget(self, cluster: Cluster) -> None:
        """Nothing is judged before the next server has been asked."""
        self._facts.pop(key_of(cluster), None)


def key_of(cluster: Cluster) -> Key:
    return cluster.host, cluster.port, cluster.database
