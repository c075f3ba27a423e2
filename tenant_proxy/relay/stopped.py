"""Tenants whose clients begin nothing for a while: by the operator's PAUSE, or as they are being moved.

A client that has a server keeps it until its transaction ends, or for as long as it is pinned; idle servers
are closed, so that on the cluster only what is still at work is left.  What clients begin meanwhile waits
where it would need a server, as long as it might wait for one (pool.queue_timeout_s), and logins wait too
(`relay.moving`).  Where the tenant is on another cluster when it goes on, what waits runs there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from tenant_proxy.model import ALL, IN_MOVE

if TYPE_CHECKING:
    from tenant_proxy.relay.session import PoolRecord
    from tenant_proxy.tenancy.records import TenantInfo
    from tenant_proxy.worker import Worker


#: for which clients wait at most until those that listen are listened for where the tenant is now
LISTENS_S: Final = 3.0
_POLL_S: Final = 0.01


class Stopped:
    """Of one worker."""

    def __init__(self, worker: Worker, paused: Iterable[str]) -> None:
        self._worker = worker
        self._paused = frozenset(paused)
        #: pools whose listeners are waited for
        self._listening: set[int] = set()

    def __contains__(self, tenant: TenantInfo) -> bool:
        if tenant.suspended in IN_MOVE:
            return True
        return bool(self._paused) and (tenant.name in self._paused or ALL in self._paused)

    def pause(self, tenants: Iterable[str]) -> None:
        """These, and no others."""
        self._paused = frozenset(tenants)
        worker = self._worker
        for record in worker.pools:
            if (record.tenant in self) != record.stopped:
                # a packet that was let in before is looked at again
                worker.logins.forget_some({record.tenant.name}, set())
                self.apply(record)
        worker.engine.poke()

    def apply(self, record: PoolRecord) -> None:
        """Of a pool, after a change of its tenant."""
        if record.is_group:
            return
        stopped, engine = record.tenant in self, self._worker.engine
        if stopped == record.stopped:
            return
        if stopped or not self._worker.ears.follow(record):
            record.stopped = stopped
            engine.pool_stop(record.id, stopped)
            if stopped:
                engine.expire_servers(record.id)
        elif record.id not in self._listening:
            self._listening.add(record.id)
            self._worker.spawn(self._go_on(record))

    async def _go_on(self, record: PoolRecord) -> None:
        """Nobody notifies before it is heard by those who listen."""
        ears, deadline = self._worker.ears, time.monotonic() + LISTENS_S
        while not ears.hears(record) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        self._listening.discard(record.id)
        if record.tenant not in self and record.stopped:
            ears.give_up(record)
            record.stopped = False
            self._worker.engine.pool_stop(record.id, False)
            self._worker.engine.poke()
