"""Backends that one worker has and another needs: the budget is one for all workers.

A worker that may open no more asks the others.  They give up an idle backend of the cluster, if there is one.
Else, where backends that tenants share are asked for, a worker gives up one of its own, as soon as it is at
rest, if it has more for each of its tenants in need than the other would have with it, or if tenants of
the other have reserved it.  So all tenants get alike, whichever worker they are at, and none waits for good
beside a busy neighbour.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.session import PoolRecord

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

#: a worker that has given up a backend asks for no other for so long
HOLD_S: Final = 0.05


class Peers:
    """The other workers, as far as backends go."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        #: cluster -> workers that a backend is closed for
        self._promised: dict[str, deque[int]] = {}

    def ask(self, pool: PoolRecord) -> None:
        """A pool may open no more backends."""
        total, wanting = self._worker.engine.group_needs(pool.id) if pool.is_group else (0, 0)
        wish = {
            "cluster": pool.tenant.cluster.name,
            "slot": self._worker.slot,
            "total": total,
            "wanting": wanting,
            "unopened": self._worker.budget.unopened(pool.tenant.cluster.name) if pool.is_group else 0,
        }
        self._worker.mailbox.broadcast_release(json.dumps(wish).encode())

    def on_wish(self, data: bytes) -> None:
        """Another worker has no budget left on a cluster."""
        wish = json.loads(data)
        cluster, slot = wish["cluster"], int(wish["slot"])
        engine = self._worker.engine
        group = self._worker.pools.group_of(cluster)
        unopened = self._worker.budget.unopened(cluster)
        pools = [
            one
            for one in self._worker.pools.of_cluster(cluster)
            # what is reserved here is not given up
            if unopened < 0 or group is None or one != group.id
        ]
        if engine.evict_idle(pools) or self._worker.ears.release(cluster):
            self._worker.mailbox.send_released(slot, cluster)
        elif group is not None and wish["wanting"]:
            total, wanting = engine.group_needs(group.id)
            reserved = wish["unopened"] > 0 > unopened
            if reserved or (unopened < 0 and is_due(total, wanting, wish["total"], wish["wanting"])):
                self._promised.setdefault(cluster, deque()).append(slot)
                engine.group_yield(group.id)
        engine.poke()

    def on_gone(self, pool: PoolRecord, reason: int) -> None:
        """A backend was closed, and its place given back."""
        promised = self._promised.get(pool.tenant.cluster.name)
        if reason == Reason.YIELDED and promised:
            pool.backoff.retry_at = max(pool.backoff.retry_at, time.monotonic() + HOLD_S)
            self._worker.mailbox.send_released(promised.popleft(), pool.tenant.cluster.name)

    def on_released(self, cluster: str) -> None:
        """A backend that this worker has asked for is its to open."""
        for pool in self._worker.pools.of_cluster(cluster):
            record = self._worker.pools.get(pool)
            if record is not None:
                self._worker.dialer.look_now(record)
        self._worker.engine.poke()


def is_due(total: int, wanting: int, other_total: int, other_wanting: int) -> bool:
    """Whether a worker with `total` backends for `wanting` tenants owes another one of them."""
    if total == 0:
        return False
    return other_total == 0 or total * other_wanting > (other_total + 1) * max(1, wanting)
