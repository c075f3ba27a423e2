"""Clients that may stay no longer: of tenants suspended or removed, by logins expired, removed or changed.

What they lost holds for new logins at once.  Clients of a suspended tenant and of an expired login have the
tenant's time of grace; one whose right was taken away goes now.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable, Set
from typing import TYPE_CHECKING

from tenant_proxy import errors
from tenant_proxy.errors import ProxyError
from tenant_proxy.model import MOVED, MOVING
from tenant_proxy.obs.log import get_logger
from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.session import PoolRecord

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("leaving")


class Leaving:
    """Of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        #: ("tenant" or "login", its name) -> when its clients end
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        #: (when, login), the next first; also of logins that have another date by now
        self._expiries: list[tuple[float, str]] = []

    def look(
        self,
        tenants: Iterable[str] | None = None,
        logins: Set[str] | None = None,
        unlocked: Set[str] = frozenset(),
    ) -> None:
        """After a change of these tenants and logins; None: of all.  `unlocked`: tenants whose clients were
        let in with other locked settings.
        """
        registry = self._worker.state.registry
        if logins is None:
            self._expiries = []
        for login in registry.logins.values() if logins is None else map(registry.logins.get, logins):
            if login is not None and login.expires_at is not None:
                heapq.heappush(self._expiries, (login.expires_at, login.name))
        names = None if tenants is None else set(tenants)
        used: set[str] = set()
        for record in self._worker.pools:
            if record.is_group:
                continue
            if names is None or record.tenant.name in names:
                used.add(record.tenant.name)
            for login_name in list(record.logins if logins is None else record.logins & logins):
                self._look_at_login(record, login_name)
        for name in used:
            self._look_at_tenant(name)
            if name in unlocked:
                self._end_tenant(name, errors.locked_otherwise(name))
        self._worker.engine.poke()

    def sweep(self) -> None:
        """A few times a second: logins whose time has come."""
        now = time.time()
        while self._expiries and self._expiries[0][0] <= now:
            _, name = heapq.heappop(self._expiries)
            login = self._worker.state.registry.logins.get(name)
            if login is None or login.expires_at is None or login.expires_at > now:
                continue
            self._worker.logins.forget_some(set(), {name})
            for record in self._worker.pools:
                if name in record.logins:
                    self._look_at_login(record, name)

    # --- tenants ------------------------------------------------------------------

    def _look_at_tenant(self, name: str) -> None:
        tenant = self._worker.state.registry.tenants.get(name)
        if tenant is None:
            self._cancel("tenant", name)
            self._end_tenant(name, errors.tenant_removed(name))
        elif tenant.suspended in (None, MOVING):
            self._cancel("tenant", name)
        elif tenant.suspended == MOVED:
            self._end_holders(name)
        else:
            error = errors.suspended(name, tenant.suspended)
            self._later("tenant", name, tenant.grace_s, lambda: self._end_tenant(name, error))

    def _end_tenant(self, name: str, error: ProxyError) -> None:
        self._end(self._clients_of(name), error)

    def _end_holders(self, name: str) -> None:
        """Those of a tenant's clients that have a server."""
        ids = set(self._clients_of(name))
        holding = [row[6] for row in self._worker.engine.server_rows() if row[6] in ids]
        self._end(holding, errors.moved_away(name))

    def _clients_of(self, name: str) -> list[int]:
        return [
            client
            for record in self._worker.pools
            if record.tenant.name == name and not record.is_group
            for client in self._worker.engine.client_ids(record.id)
        ]

    # --- logins ---------------------------------------------------------------------

    def _look_at_login(self, record: PoolRecord, name: str) -> None:
        login = self._worker.state.registry.logins.get(name)
        tenant = record.tenant.name
        why = ""
        if login is None:
            why = "was removed"
        elif tenant not in login.tenants:
            why = f'may not use tenant "{tenant}" any more'
        elif record.server_user not in login.server_users or login.roles.get(tenant) != record.role:
            why = "has other rights now"
        if why:
            record.logins.discard(name)
            self._end_login(record, name, errors.login_ended(name, why))
        elif login is not None and login.expires_at is not None and login.expires_at <= time.time():
            error = errors.login_ended(name, "has expired")
            self._later(
                f"login in {record.id}",
                name,
                record.tenant.grace_s,
                lambda: self._end_expired(record, name, error),
            )
        else:
            self._cancel(f"login in {record.id}", name)

    def _end_expired(self, record: PoolRecord, name: str, error: ProxyError) -> None:
        record.logins.discard(name)
        self._end_login(record, name, error)

    def _end_login(self, record: PoolRecord, name: str, error: ProxyError) -> None:
        engine = self._worker.engine
        ids = []
        for client in engine.client_ids(record.id):
            session = engine.session(client)
            if session is not None and session.user == name:
                ids.append(client)
        self._end(ids, error)

    # --- ends -------------------------------------------------------------------------

    def _end(self, clients: list[int], error: ProxyError) -> None:
        worker = self._worker
        if not clients:
            return
        log.info("clients end", clients=len(clients), reason=error.reason, error=error.message)
        ids = set(clients)
        # closing a connection does not stop what runs on it
        running = [row[2] for row in worker.engine.server_rows() if row[6] in ids]
        last = error.to_message()
        for client in clients:
            worker.engine.client_end(client, Reason.RETIRED, last)
        worker.spawn(worker.cancels.stop_statements(running))
        worker.engine.poke()

    def _later(self, kind: str, name: str, after_s: float, work: Callable[[], None]) -> None:
        """Runs `work` once, `after_s` from when it was first asked for.

        The entry outlives it, until the reason is gone: nobody is given a time of grace again.
        """
        if (kind, name) not in self._timers:
            self._timers[kind, name] = asyncio.get_running_loop().call_later(after_s, work)

    def _cancel(self, kind: str, name: str) -> None:
        timer = self._timers.pop((kind, name), None)
        if timer is not None:
            timer.cancel()
