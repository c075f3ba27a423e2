"""What a command of the admin console works with, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tenant_proxy.admin import refusals
from tenant_proxy.config.schema import Config
from tenant_proxy.hub import HubClient, HubError
from tenant_proxy.tenancy.registry import Registry

#: a worker that has not answered by then is left out, with a notice
TIMEOUT_S = 5.0

# type OIDs (pg_type.dat); PgBouncer uses these four
TEXT = 25
INT4 = 23
INT8 = 20
NUMERIC = 1700

Row = dict[str, Any]
#: name, type OID, and how the value comes out of a row (by its name if left out)
Column = tuple[str, int] | tuple[str, int, Callable[[Row], Any]]


@dataclass(slots=True)
class AdminResult:
    """One statement's answer; `tag` is "" for an empty query."""

    columns: list[tuple[str, int]] = field(default_factory=list)
    rows: list[list[str | None]] = field(default_factory=list)
    tag: str = "SHOW"
    notices: list[str] = field(default_factory=list)
    #: the answer to the next statement of the same query text
    then: AdminResult | None = None


@dataclass(frozen=True, slots=True)
class AdminContext:
    """`login` is the authenticated user; who is not `is_admin` may only look."""

    hub: HubClient
    config: Config
    #: tenants and logins of the file and of the catalog
    registry: Registry
    login: str
    is_admin: bool

    async def call(
        self, target: str, method: str, params: dict[str, Any] | None = None, timeout_s: float = TIMEOUT_S
    ) -> Any:
        try:
            return await self.hub.call(target, method, params, timeout_s)
        except HubError as error:
            raise refusals.unavailable(str(error)) from None

    async def snapshot(self, *what: str) -> Snapshot:
        answers = await self.call("workers", "snapshot", {"what": list(what)})
        return Snapshot(answers, self.config.workers)


def global_id(number: int, worker: int, workers: int) -> int:
    """One number for a connection, whose own is only unique in its worker."""
    return number * workers + worker


def local_id(number: int, workers: int) -> tuple[int, int]:
    """The worker's number and the worker, of a `global_id`."""
    return divmod(number, workers)


class Snapshot:
    """The workers' answers together."""

    def __init__(self, answers: list[dict[str, Any]], workers: int) -> None:
        self._answers = answers
        self._workers = workers
        missing = sorted(set(range(workers)) - {answer["worker"] for answer in answers})
        self.notices = [f"worker {slot} did not answer, what it has is missing" for slot in missing]

    def rows(self, what: str) -> list[Row]:
        """All workers' rows of one kind, each with its `worker`, and a `global_id` if it has an id."""
        rows = []
        for answer in self._answers:
            worker = answer["worker"]
            for row in answer["result"].get(what) or ():
                known = {**row, "worker": worker}
                if "id" in row:
                    known["global_id"] = global_id(row["id"], worker, self._workers)
                rows.append(known)
        return rows

    def parts(self, what: str) -> list[Row]:
        """What each worker said that is no list of rows."""
        return [answer["result"].get(what) or {} for answer in self._answers]

    def counters(self) -> dict[int, Row]:
        """Worker's slot -> its counters."""
        return {answer["worker"]: answer["result"].get("counters") or {} for answer in self._answers}


def table(columns: Iterable[Column], rows: Iterable[Row], notices: Iterable[str] = ()) -> AdminResult:
    specs: list[tuple[str, int, Callable[[Row], Any]]] = []
    for column in columns:
        name, oid = column[0], column[1]
        getter = column[2] if len(column) == 3 else _by_name(name)
        specs.append((name, oid, getter))
    return AdminResult(
        columns=[(name, oid) for name, oid, _ in specs],
        rows=[[to_text(getter(row)) for _, _, getter in specs] for row in rows],
        notices=list(notices),
    )


def _by_name(name: str) -> Callable[[Row], Any]:
    return lambda row: row.get(name)


def constant(value: Any) -> Callable[[Row], Any]:
    return lambda row: value


def to_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)


def timestamp(time_us: int | None) -> str | None:
    """As PgBouncer writes it, in UTC; `time_us` is microseconds of Unix time."""
    if not time_us:
        return None
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def database_of(row: Row) -> str:
    """PgBouncer's "database" is the entry that a client connects to; ours is the tenant.

    What clients put into the connection string as the database may be anything,
    so that it could neither be joined with SHOW DATABASES nor be unique per pool.
    """
    return row.get("tenant") or row.get("database") or ""


def summed(
    rows: Iterable[Row], key: Callable[[Row], tuple[str, ...]], maxima: frozenset[str] = frozenset()
) -> list[Row]:
    """Rows of several workers about the same thing as one: integers are added, except `maxima`."""
    groups: dict[tuple[str, ...], Row] = {}
    for row in rows:
        group = groups.get(key(row))
        if group is None:
            groups[key(row)] = dict(row)
            continue
        for name, value in row.items():
            if isinstance(value, bool) or not isinstance(value, int):
                continue
            before = group.get(name) or 0
            group[name] = max(before, value) if name in maxima else before + value
    return [groups[name] for name in sorted(groups)]
