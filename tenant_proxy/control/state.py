"""What the control process knows, asked of the others when it is needed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import tenant_proxy
from tenant_proxy.config.schema import Config
from tenant_proxy.control.follow import Follower
from tenant_proxy.hub import HubClient, HubError
from tenant_proxy.obs.metrics import Aggregate

#: a worker that has not answered by then keeps its last numbers; scrapes give up after 10 s by default
SCRAPE_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Readiness:
    ready: bool
    #: why not; empty when ready
    reasons: tuple[str, ...]
    workers_ready: int
    workers: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "ready": self.ready,
            "reasons": list(self.reasons),
            "workers_ready": self.workers_ready,
            "workers": self.workers,
        }


class ControlState:
    """`ledger` is what an earlier incarnation of this process gave the supervisor to keep; `follower` is None
    where there is no catalog."""

    def __init__(
        self, hub: HubClient, config: Config, ledger: dict[str, Any] | None, follower: Follower | None = None
    ) -> None:
        self._hub = hub
        self._config = config
        self.follower = follower
        self._metrics = Aggregate(tenant_proxy.__version__, config.metrics.max_tenants)
        self._metrics.load(ledger)
        self._scraping = asyncio.Lock()

    def reload(self, config: Config) -> None:
        self._config = config
        self._metrics.labels.limit = config.metrics.max_tenants

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """/metrics of all workers together, and its content type; HubError without the supervisor."""
        # One at a time: the sums must see the workers' counters in order.
        async with self._scraping:
            status = await self._hub.call("supervisor", "status", timeout_s=SCRAPE_TIMEOUT_S)
            answers = await self._hub.call(
                "workers", "snapshot", {"what": ["counters", "tenants", "pools", "pins"]}, SCRAPE_TIMEOUT_S
            )
            names = [tenant.name for tenant in self._config.tenants]
            if self.follower is not None:
                names += self.follower.tenant_names()
            self._metrics.feed(status, answers, names)
            if self.follower is not None:
                self._metrics.feed_catalog(self.follower.shown())
            if self._metrics.dirty:
                await self._hub.call("supervisor", "keep_ledger", {"ledger": self._metrics.dump()})
            return self._metrics.render(accept)

    async def readiness(self) -> Readiness:
        try:
            status = await self._hub.call("supervisor", "status", timeout_s=SCRAPE_TIMEOUT_S)
        except HubError as error:
            return Readiness(False, (str(error),), 0, 0)
        ready = sum(worker["phase"] == "ready" for worker in status["workers"])
        reasons = []
        if status["stopping"]:
            reasons.append("the proxy is shutting down")
        if not ready:
            reasons.append("no worker is ready")
        if self.follower is not None and not self.follower.synced.is_set():
            reasons.append("the catalog has not been read yet")
        return Readiness(not reasons, tuple(reasons), ready, len(status["workers"]))
