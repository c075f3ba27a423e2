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
from tenant_proxy.settings_policy import client_encoding_codec
from tenant_proxy.shims import VERSION

log = get_logger("facts")

#: a cluster without them is asked again by a server that is opened later than this
RETRY_S: Final = 60.0

#: With an encoding of one byte a character the server folds letters by its locale: a Turkish one makes an i
#: of the capital with a dot, so that a name is one that its text does not show.  The numbers of the letters
#: that become ASCII, behind the encoding's name; NULL if there are none.
FOLDING: Final = """CASE WHEN pg_catalog.pg_encoding_max_length((
    SELECT d.encoding FROM pg_catalog.pg_database AS d
    WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())) OPERATOR(pg_catalog.=) 1
THEN (SELECT pg_catalog.concat(pg_catalog.getdatabaseencoding(), ' ',
        pg_catalog.string_agg(s.n::pg_catalog.text, ' '::pg_catalog.text))
    FROM pg_catalog.generate_series(128, 255) AS s(n)
    WHERE pg_catalog.ascii((pg_catalog.parse_ident(pg_catalog.chr(s.n)))[1]) OPERATOR(pg_catalog.<) 128
    HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0) END"""

#: Whoever's server is asked, its client's settings must not keep it from answering for all.  In transactions
#: that are serializable and deferrable, for one, a question waits for others to end
_FIRST: Final = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; "

#: asked one after the other: the first says whether the second can be asked
QUESTIONS: Final = (
    f"{_FIRST}SELECT pg_catalog.to_regprocedure('tp_catalog.version()') IS NOT NULL, {FOLDING}",
    f"{_FIRST}SELECT tp_catalog.version()",
)

#: errors that are answers, as the server may not look there, or it went away in between; others are none
ANSWERS: Final = frozenset({"42501", "42883", "3F000"})

Key = tuple[str, int, str]


@dataclass(slots=True)
class Fact:
    #: what tp_catalog.version() has answered; "" where there is none
    version: str
    #: of unquoted names, what the server may fold to ASCII letters
    folding: str
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

    def folding(self, cluster: Cluster) -> str:
        """The letters outside ASCII that unquoted names in the cluster's database may not have."""
        fact = self._facts.get(key_of(cluster))
        return "" if fact is None else fact.folding

    def learn(self, cluster: Cluster, version: str, folding: str) -> bool:
        """Takes the answers; true if they are news."""
        before, folded = self.installed(cluster), self.folding(cluster)
        fact = Fact(version, _letters(folding), time.monotonic())
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
        return now != before or fact.folding != folded

    def doubt(self) -> None:
        """A reload: what is known holds until the next server is asked."""
        for fact in self._facts.values():
            fact.stale = True

    def forget(self, cluster: Cluster) -> None:
        """Nothing is judged before the next server has been asked."""
        self._facts.pop(key_of(cluster), None)


def _letters(folding: str) -> str:
    """Of an answer to FOLDING; where the encoding says nothing of characters, those of all that are known."""
    encoding, _, numbers = folding.partition(" ")
    codec = client_encoding_codec(encoding)
    codecs = ("latin-1", "iso8859-3", "iso8859-9") if codec in (None, "utf-8", "ascii") else (codec,)
    found = bytes(map(int, numbers.split()))
    return "".join(sorted({letter for one in codecs for letter in found.decode(one, "ignore")}))


def key_of(cluster: Cluster) -> Key:
    return cluster.host, cluster.port, cluster.database
