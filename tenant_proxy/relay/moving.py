"""Logins of a tenant that is stopped, as it is being moved or paused: they wait rather than be refused.

Who comes meanwhile meets a login that takes longer.  It takes no longer than a login may, and then it is
refused as by any suspended tenant.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tenant_proxy.errors import ProxyError

if TYPE_CHECKING:
    from tenant_proxy.relay.login import Attempt
    from tenant_proxy.tenancy.records import TenantInfo
    from tenant_proxy.worker import Worker

#: of a worker, at once; more are refused
MAX_WAITING: Final = 1000
#: so long before a login's time is over it is refused, so that its client hears why
SPARE_S: Final = 2.0
_POLL_S: Final = 0.1


class Moving:
    """`enter` is what comes behind authentication, once more; `refuse` what becomes of a ProxyError."""

    def __init__(
        self,
        worker: Worker,
        attempts: dict[int, Attempt],
        enter: Callable[[int, Attempt, bytes], None],
        refuse: Callable[[int, ProxyError], None],
    ) -> None:
        self._worker = worker
        self._attempts = attempts
        self._enter = enter
        self._refuse = refuse
        self.waiting = 0

    def may_wait(self, attempt: Attempt, tenant: TenantInfo) -> bool:
        return tenant in self._worker.stopped and not attempt.waited and self.waiting < MAX_WAITING

    async def wait(self, client: int, attempt: Attempt, reply: bytes, name: str) -> None:
        """Until the tenant is no longer stopped, the login's time is over, or its client is gone."""
        attempt.waited = True
        deadline = attempt.started + self._worker.state.config.timeouts.login_s - SPARE_S
        self.waiting += 1
        try:
            while self._attempts.get(client) is attempt and time.monotonic() < deadline:
                tenant = self._worker.state.registry.tenants.get(name)
                if tenant is None or tenant not in self._worker.stopped:
                    break
                await asyncio.sleep(_POLL_S)
        finally:
            self.waiting -= 1
        # behind what takes the hold off the client
        asyncio.get_running_loop().call_soon(self._go_on, client, attempt, reply)

    def _go_on(self, client: int, attempt: Attempt, reply: bytes) -> None:
        if self._attempts.get(client) is not attempt:
            return
        try:
            self._enter(client, attempt, reply)
        except ProxyError as error:
            self._refuse(client, error)
        except Exception:
            self._worker.on_bug(client)
        self._worker.engine.poke()
