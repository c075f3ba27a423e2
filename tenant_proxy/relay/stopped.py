"""Tenants whose clients begin nothing for a while: by the operator's PAUSE, or as they are being moved.

A client that has a server keeps it until its transaction ends, or for as long as it is pinned; idle servers
are closed, so that on the cluster only what is still at work is left.  What clients begin meanwhile waits
where it would need a server, as long as it might wait for one (pool.queue_timeout_s), and logins wait too
(`relay.moving`).  Where the tenant is on another cluster when it goes on, what waits runs there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tenant_proxy.model import ALL, IN_MOVE

if TYPE_CHECKING:
    from tenant_proxy.relay.session import PoolRecord
    from tenant_proxy.tenancy.records import TenantInfo
    from tenant_proxy.worker import Worker


class Stopped:
    """Of one worker."""

    def __init__(self, worker: Worker, paused: Iterable[str]) -> None:
        self._worker = worker
        self._paused = frozenset(paused)

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
        if stopped != record.stopped:
            record.stopped = stopped
            engine.pool_stop(record.id, stopped)
            if stopped:
                engine.expire_servers(record.id)
