"""pg_terminate_backend() and pg_cancel_backend() of clients, by the process ids that they were greeted with.

The functions are the proxy's own (shims/data/functions.sql): whom the server is to end or stop, which it does
not know as sessions, it tells the proxy in a notice.  That anybody can have said; so what is asked for
concerns clients of the same role of the same tenant alone, which PostgreSQL lets the role end as well.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from tenant_proxy import errors
from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.session import PoolRecord
from tenant_proxy.wire import messages

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

TERMINATE: Final = "pg_terminate_backend"
CANCEL: Final = "pg_cancel_backend"

#: what the notices and errors of the functions are marked with
_MARK: Final = b"\0stp_catalog\0"

#: signals that are delivered at once in a while, before their statement is answered; more wait for its end
AT_ONCE: Final = 50
WHILE_S: Final = 0.1
#: process ids that wait for it; more are forgotten
MAX_ASKED: Final = 1_000

#: tenant, role, and which of the two functions
Key = tuple[str, str, str]


def _marked(body: bytes) -> dict[str, str] | None:
    """The fields of an error or notice of the functions."""
    if _MARK not in body:
        return None
    fields = messages.error_fields(body)
    return fields if fields.get("s") == "tp_catalog" and fields.get("t") in (TERMINATE, CANCEL) else None


def ends_session(body: bytes) -> bool:
    """Whether an error is that of a client that has ended its own session."""
    fields = _marked(body)
    return fields is not None and fields.get("C") == "57P01"


class Signals:
    """Those of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._asked: dict[Key, set[int]] = defaultdict(set)
        self._at_once = 0
        self._waits = False

    def on_notice(self, client: int, pool: PoolRecord, body: bytes) -> bool:
        """Whether a notice was meant for the proxy; `client` is whose statement it comes from."""
        fields = _marked(body)
        if fields is None:
            return False
        pid, key = fields.get("c", ""), (pool.tenant.name, _role(pool), fields["t"])
        if not pid.isdigit() or len(self._asked[key]) >= MAX_ASKED:
            return True
        self._at_once += 1
        if self._at_once > AT_ONCE or self._worker.engine.client_pid(client) == int(pid):
            # not the one whose answer is being read
            self._asked[key].add(int(pid))
        else:
            self._deliver_or_pass_on(key, {int(pid)})
        if not self._waits:
            self._waits = True
            loop = asyncio.get_running_loop()
            loop.call_later(WHILE_S if not self._asked[key] else 0, self._deliver_all)
        return True

    def _deliver_all(self) -> None:
        taken, self._asked = self._asked, defaultdict(set)
        self._at_once, self._waits = 0, False
        for key, pids in taken.items():
            if pids:
                self._deliver_or_pass_on(key, pids)
        self._worker.engine.poke()

    def _deliver_or_pass_on(self, key: Key, pids: set[int]) -> None:
        left = pids - self._deliver(key, pids)
        if left:
            self._worker.mailbox.broadcast_signal("\0".join((*key, *map(str, left))).encode())

    def on_handed_over(self, packet: bytes) -> None:
        """What another worker was told, and whose clients it does not have."""
        tenant, role, function, *pids = packet.decode().split("\0")
        self._deliver((tenant, role, function), {int(pid) for pid in pids})

    def _deliver(self, key: Key, pids: set[int]) -> set[int]:
        tenant, role, function = key
        worker = self._worker
        found: set[int] = set()
        for pool in worker.pools:
            if pool.tenant.name != tenant or _role(pool) != role or pool.is_ear or pool.is_group:
                continue
            for pid, client in worker.engine.clients_of(pool.id, pids).items():
                found.add(pid)
                if function == TERMINATE:
                    worker.engine.client_end(client, Reason.KILLED, errors.shutting_down().to_message())
                else:
                    worker.cancels.of_client(client)
        return found


def _role(pool: PoolRecord) -> str:
    return pool.role or pool.server_user
