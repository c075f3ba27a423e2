"""Follows the catalog: what it says of tenants and logins reaches the workers within a second of a change.

    start, lost connection    both views are read whole, and what differs is told
    a notice                  the rows that it names are read again, those of a few milliseconds at once
    every RESYNC_S            as at the start: for notices that were lost, and rights that end by the clock

A notice names what has changed and nothing else, so one that is lost, comes twice or comes late does no
harm.  While the catalog is away nothing is told, and the proxy serves what it knows; it is kept in the
supervisor's memory and in no file, as it has the logins' verifiers in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from tenant_proxy.catalog import migrate
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.config.schema import Config
from tenant_proxy.control import catalog
from tenant_proxy.control.served_rows import login_row, tenant_row
from tenant_proxy.hub import HubClient, HubError
from tenant_proxy.obs.log import get_logger
from tenant_proxy.tenancy.records import Served
from tenant_proxy.tenancy.registry import Registry

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

log = get_logger("follow")

CHANNEL: Final = "tenant_proxy"
#: how long notices gather before the rows are read
GATHER_S: Final = 0.02
#: so many names at once are not worth asking for one by one
MAX_NAMES: Final = 500
RESYNC_S: Final = 30.0
#: pauses between tries to connect
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0
#: rows of one call to the workers, who do nothing else while they take them
CHUNK: Final = 200
#: … where they have no clients yet that would wait
FIRST_CHUNK: Final = 1000
SERVE_S: Final = 60.0
#: of what can't be used, so many are shown
MAX_PROBLEMS: Final = 1000

#: "tenants" or "logins"
Kind = str
Row = dict[str, Any]
_WORD = {"tenant": "tenants", "login": "logins"}


@dataclass(slots=True)
class FollowState:
    """What is shown of it."""

    connected: bool = False
    #: time.time() of the last time that all was known to be the same
    synced_at: float = 0.0
    tenants: int = 0
    logins: int = 0
    #: full reads, and names read again
    resyncs: int = 0
    notices: int = 0
    changes: int = 0
    #: from a notice to the last worker, of the last one
    last_lag_s: float = 0.0
    error: str = ""


class Follower:
    """The connection, and what was told.  `marks` are digests of the rows that the supervisor has already."""

    def __init__(self, hub: HubClient, config: Config, name: str, marks: dict[str, dict[str, str]]) -> None:
        self._hub = hub
        self._config = config
        self._name = name
        self._marks: dict[Kind, dict[str, str]] = {"tenants": marks["tenants"], "logins": marks["logins"]}
        self.state = FollowState(tenants=len(marks["tenants"]), logins=len(marks["logins"]))
        #: (kind, name) -> why the catalog's can't be used
        self.problems: dict[tuple[str, str], str] = {}
        #: what is to be done as its tables are of another version
        self.outdated = ""
        #: the file's and the catalog's, once that was read
        self.registry: Registry | None = None
        self._names: dict[Kind, set[str]] = {"tenants": set(), "logins": set()}
        self._everything = False
        self._noticed_at = 0.0
        #: told of each notice
        self.noticed: Callable[[], None] = lambda: None
        self._woken = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        #: set when all was read for the first time, by this process or one before it
        self.synced = asyncio.Event()
        if self._marks["tenants"]:
            self.synced.set()

    def reload(self, config: Config) -> None:
        """Another configuration may have room for what could not be used, or clash with what could."""
        self._config = config
        self.registry = None
        self._everything = True
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            try:
                await self._follow()
            except asyncpg.InternalClientError:
                # what it says itself is no help
                self._lost("the connection to the catalog was lost")
            except catalog.FAILURES as error:
                self._lost(str(error) or type(error).__name__)
            except HubError as error:
                self._lost(f"the supervisor did not take it: {error}")
            except Exception as error:  # whatever it is, what follows is worth another try
                log.exception("following the catalog failed")
                self._lost(type(error).__name__)
            if time.monotonic() - began > LONGEST_PAUSE_S:
                pause = FIRST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_S, 2 * pause)

    def _lost(self, why: str) -> None:
        if self.state.connected or self.state.error != why:
            log.error("the catalog can't be followed; what is known of it goes on", error=why)
        self.state.connected = False
        self.state.error = why

    async def _follow(self) -> None:
        connection = await catalog.connect(self._config, f"tenant_proxy {self._name}")
        try:
            await self._look_at_version(connection)
            await connection.add_listener(CHANNEL, self._on_notice)
            connection.add_termination_listener(lambda _: self._woken.set())
            self._everything = True
            while not connection.is_closed():
                await self._catch_up(connection)
                try:
                    async with asyncio.timeout(RESYNC_S):
                        await self._woken.wait()
                except TimeoutError:
                    self._everything = True
                await asyncio.sleep(GATHER_S)
            raise ConnectionError("the connection to the catalog was lost")
        finally:
            connection.terminate()

    async def _look_at_version(self, connection: Connection) -> None:
        """Another version is followed as long as its views can be read, and who operates it is told."""
        outdated = ""
        try:
            await migrate.check(connection)
        except Failure as failure:
            outdated = f"{failure.message}; {failure.hint}"
            if await migrate.is_missing(connection):
                raise ValueError(outdated) from None
        except asyncpg.InsufficientPrivilegeError:
            pass  # a login that was given the views alone
        if outdated and outdated != self.outdated:
            log.warning("the catalog is of another version", problem=outdated)
        self.outdated = outdated

    def _on_notice(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        word, _, name = str(payload).partition(" ")
        kind = _WORD.get(word)
        if kind is None:
            return
        if not self._woken.is_set():
            self._noticed_at = time.monotonic()
        self.state.notices += 1
        names = self._names[kind]
        if len(names) < MAX_NAMES:
            names.add(name)
        else:
            self._everything = True
        self._woken.set()
        self.noticed()

    # --- reading ------------------------------------------------------------------

    async def _catch_up(self, connection: Connection) -> None:
        self._woken.clear()
        names = {kind: sorted(some) for kind, some in self._names.items()}
        for some in self._names.values():
            some.clear()
        everything, self._everything = self._everything, False
        noticed_at, self._noticed_at = self._noticed_at, 0.0
        async with connection.transaction(isolation="repeatable_read", readonly=True), _Beside() as beside:
            tenants = await self._read(connection, "tenants", None if everything else names["tenants"])
            if everything and not self._marks["tenants"] and not self._marks["logins"]:
                # at the first start the workers can take them while logins are read
                beside.start(self._tell(tenants, {}, {"tenants": [], "logins": []}))
            logins = await self._read(connection, "logins", None if everything else names["logins"])
        gone: dict[Kind, list[str]] = {
            "tenants": self._gone("tenants", tenants, None if everything else names["tenants"]),
            "logins": self._gone("logins", logins, None if everything else names["logins"]),
        }
        changed = (beside.result or 0) + await self._tell(tenants, logins, gone)
        self.state.changes += changed
        self.state.resyncs += everything
        self.state.tenants, self.state.logins = len(self._marks["tenants"]), len(self._marks["logins"])
        self.state.synced_at = time.time()
        if noticed_at:
            self.state.last_lag_s = time.monotonic() - noticed_at
        if not self.state.connected or self.state.error:
            log.info("the catalog is followed", tenants=self.state.tenants, logins=self.state.logins)
        self.state.connected, self.state.error = True, ""
        self.synced.set()
        if self.registry is None and everything:
            # beside what comes next, which has not to wait for it
            self.registry = Registry.build(self._config)
            self.problems.clear()
            work = self._look_for_problems(self.registry, tenants, logins)
            self._looking = asyncio.create_task(work, name="problems")

    async def _look_for_problems(
        self, registry: Registry, tenants: dict[str, Row], logins: dict[str, Row]
    ) -> None:
        """Of all there is, when the workers have it; what changes meanwhile is looked at when it is told."""
        for kind, rows in (("tenants", tenants), ("logins", logins)):
            for some in _chunks(rows, CHUNK):
                if self.registry is not registry:
                    return  # another configuration has come
                part = [rows[name] for name in some if self._marks[kind].get(name) == _mark(rows[name])]
                served = Served(tenants=part) if kind == "tenants" else Served(logins=part)
                self._find_problems(replace(served, whole=False), ())
                await asyncio.sleep(0)

    async def _read(self, connection: Connection, kind: Kind, names: list[str] | None) -> dict[str, Row]:
        if names is None:
            records = await connection.fetch(f"SELECT * FROM served_{kind}")
        elif names:
            records = await connection.fetch(f"SELECT * FROM served_{kind} WHERE name = ANY ($1)", names)
        else:
            return {}
        if kind == "tenants":
            return {record["name"]: tenant_row(dict(record)) for record in records}
        secret = self._config.secret.reveal() if self._config.secret is not None else None
        return {record["name"]: login_row(dict(record), secret) for record in records}

    def _gone(self, kind: Kind, rows: dict[str, Row], names: list[str] | None) -> list[str]:
        known = self._marks[kind]
        return [
            name for name in (list(known) if names is None else names) if name in known and name not in rows
        ]

    # --- telling ------------------------------------------------------------------

    async def _tell(
        self, tenants: dict[str, Row], logins: dict[str, Row], gone: dict[Kind, list[str]]
    ) -> int:
        """What differs, in parts: first who goes, so that what they leave can be another's."""
        marks: dict[Kind, dict[str, str]] = {"tenants": {}, "logins": {}}
        for kind, rows in (("tenants", tenants), ("logins", logins)):
            known = self._marks[kind]
            for name, row in rows.items():
                mark = _mark(row)
                if known.get(name) != mark:
                    marks[kind][name] = mark
        count = sum(map(len, (*marks.values(), *gone.values())))
        if 0 < count <= CHUNK:
            # at once, so that nobody meets half of it: a tenant renamed, its logins still with the old name
            all_rows = {
                "tenants": [tenants[name] for name in marks["tenants"]],
                "logins": [logins[name] for name in marks["logins"]],
            }
            await self._tell_part(all_rows, marks, gone)
            return count
        parts: list[tuple[Kind, list[str], list[str]]] = []
        size = CHUNK if self.synced.is_set() else FIRST_CHUNK
        for kind in ("logins", "tenants"):
            parts += [(kind, [], some) for some in _chunks(gone[kind], size)]
        for kind in ("tenants", "logins"):
            parts += [(kind, some, []) for some in _chunks(marks[kind], size)]
        for kind, new, old in parts:
            source = tenants if kind == "tenants" else logins
            await self._tell_part(
                {kind: [source[name] for name in new]}, {kind: {n: marks[kind][n] for n in new}}, {kind: old}
            )
        return count

    async def _tell_part(
        self, rows: dict[Kind, list[Row]], marks: dict[Kind, dict[str, str]], gone: dict[Kind, list[str]]
    ) -> None:
        served: dict[str, Any] = {}
        for kind in _WORD.values():
            served |= {kind: rows.get(kind, []), f"gone_{kind}": gone.get(kind, [])}
        params = served | {"marks": {kind: marks.get(kind, {}) for kind in _WORD.values()}}
        await self._hub.call("supervisor", "serve", params, SERVE_S)
        told = []
        for word, kind in _WORD.items():
            self._marks[kind].update(params["marks"][kind])
            for name in served[f"gone_{kind}"]:
                self._marks[kind].pop(name, None)
            told += [(word, name) for name in (*params["marks"][kind], *served[f"gone_{kind}"])]
        self._find_problems(Served(**served, whole=False), told)

    def _find_problems(self, served: Served, told: Iterable[tuple[str, str]]) -> None:
        """The workers leave out what they can't use; here it is said."""
        if self.registry is None:
            return
        known = {key: self.problems.pop(key, "") for key in told}
        for word, name, why in self.registry.serve(served).problems:
            if len(self.problems) < MAX_PROBLEMS:
                self.problems[word, name] = why
            if known.get((word, name)) != why:
                log.error("what the catalog has can't be used", kind=word, name=name, problem=why)

    def tenant_names(self) -> list[str]:
        return list(self._marks["tenants"])

    def shown(self) -> dict[str, Any]:
        """For SHOW CATALOG and the metrics."""
        state = self.state
        return {
            "connected": state.connected,
            "synced": self.synced.is_set(),
            "since_sync_s": time.time() - state.synced_at if state.synced_at else None,
            "tenants": state.tenants,
            "logins": state.logins,
            "unusable": len(self.problems),
            "resyncs": state.resyncs,
            "notices": state.notices,
            "changes": state.changes,
            "last_lag_s": state.last_lag_s,
            "error": state.error,
            "problems": [
                *([["version", "", self.outdated]] if self.outdated else []),
                *([word, name, why] for (word, name), why in self.problems.items()),
            ],
        }


class _Beside:
    """One piece of work beside a block: it has ended when the block has, and its failure is the block's."""

    def __init__(self) -> None:
        self._task: asyncio.Task[int] | None = None
        self.result: int | None = None

    async def __aenter__(self) -> _Beside:
        return self

    def start(self, work: Coroutine[Any, Any, int]) -> None:
        self._task = asyncio.create_task(work)

    async def __aexit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self._task is None:
            return
        if failed is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            return
        self.result = await self._task


def _mark(row: Row) -> str:
    """A digest of a row."""
    text = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=12).hexdigest()


def _chunks(names: Iterable[str], size: int) -> Iterable[list[str]]:
    some = list(names)
    return (some[at : at + size] for at in range(0, len(some), size))
