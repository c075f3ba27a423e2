"""The same work for many tenants: so many at once, some first, and an end when too much goes wrong."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.tools import Database

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


@dataclass(frozen=True, slots=True)
class Member:
    """A tenant, and where it lives."""

    tenant: str
    database: Database
    estate: Estate
    #: of those that go first
    canary: bool = False
    #: its number in the catalog
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    parallel: int = 8
    #: share of those tried that may fail before nobody else is begun; 0: the first failure ends it
    stop_at: float = 0.0
    #: how often a tenant is tried again that waited too long for a lock, or met a deadlock
    retries: int = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    tenant: str
    #: done, failed
    state: str
    #: why it failed
    error: str = ""
    took_ms: int = 0
    #: how often it was tried again
    retries: int = 0


@dataclass(slots=True)
class Report:
    outcomes: list[Outcome] = field(default_factory=list)
    #: those that nobody came to
    left: list[str] = field(default_factory=list)
    #: why it ended before all were done; "" if it did not
    stopped: str = ""

    def of(self, state: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.state == state]


class Worker:
    """One of those who work at once, with connections of its own, which it keeps."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._connections: dict[Database, Connection] = {}

    async def connection(self, database: Database) -> Connection:
        known = self._connections.get(database)
        if known is None or known.is_closed():
            known = await self._stack.enter_async_context(database.connected("tenant-proxy migrate"))
            self._connections[database] = known
        return known


Work = Callable[[Worker, Member], Awaitable[None]]
#: told of what came of each, and how many there are to do
OnDone = Callable[[Outcome, int], None]

#: failures are not counted against less than this many tries
_TRIES: Final = 20
_BACKOFF_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0

#: a lock that was not to be had in time, a deadlock, a serialization failure
_AGAIN: Final = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)


async def over(
    members: Sequence[Member],
    work: Work,
    options: Options,
    on_done: OnDone = lambda outcome, total: None,
) -> Report:
    """Does `work` for each; canaries first, and nobody else until all of them are done well."""
    report = Report()
    for group in ([one for one in members if one.canary], [one for one in members if not one.canary]):
        if report.stopped:
            report.left += [one.tenant for one in group]
        elif group:
            canaries = group[0].canary
            await _group(group, work, options, report, lambda one: on_done(one, len(members)))
            if canaries and report.of("failed"):
                report.stopped = "a canary failed"
    return report


async def _group(
    members: Sequence[Member],
    work: Work,
    options: Options,
    report: Report,
    on_done: Callable[[Outcome], None],
) -> None:
    waiting = deque(members)

    async def one_after_another() -> None:
        async with _worker() as worker:
            while waiting and not report.stopped:
                outcome = await _once(worker, waiting.popleft(), work, options)
                report.outcomes.append(outcome)
                failed = len(report.of("failed")) if outcome.state == "failed" else 0
                if failed > options.stop_at * max(len(report.outcomes), _TRIES):
                    report.stopped = f"{failed} of {len(report.outcomes)} failed"
                on_done(outcome)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(options.parallel, len(members))):
            group.create_task(one_after_another())
    report.left += [one.tenant for one in waiting]


@asynccontextmanager
async def _worker() -> AsyncIterator[Worker]:
    async with AsyncExitStack() as stack:
        yield Worker(stack)


async def _once(worker: Worker, member: Member, work: Work, options: Options) -> Outcome:
    began = time.monotonic()

    def outcome(state: str, retries: int, error: str = "") -> Outcome:
        return Outcome(member.tenant, state, error, round((time.monotonic() - began) * 1000), retries)

    for retry in range(options.retries + 1):
        try:
            await work(worker, member)
            return outcome("done", retry)
        except _AGAIN as error:
            if retry == options.retries:
                return outcome("failed", retry, f"{error} (tried {retry + 1} times)")
            pause = min(_BACKOFF_MAX_S, _BACKOFF_S * 2**retry)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, WorkFailed) as error:
            return outcome("failed", retry, _text(error))
    raise AssertionError("the last try returns")


class WorkFailed(Exception):
    """The work for one tenant failed; others go on."""


def _text(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError):
        detail = f" ({error.detail})" if error.detail else ""
        return f"{error}{detail}"
    return str(error) or "it takes too long"
