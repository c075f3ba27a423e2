"""Once a minute: what tenants store is measured, workers are told who has too much, usage is written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tenant_proxy.config.schema import Config
from tenant_proxy.control import catalog
from tenant_proxy.control.catalog import FAILURES
from tenant_proxy.control.follow import Follower
from tenant_proxy.control.meter import LAST_S, PERIOD_S, Meter
from tenant_proxy.control.storage import Storage, save
from tenant_proxy.hub import HubClient, HubError
from tenant_proxy.obs.log import get_logger
from tenant_proxy.tenancy.records import TenantInfo
from tenant_proxy.tenancy.registry import Registry
from tenant_proxy.usage_shm import UsageReader

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

log = get_logger("accounts")

#: before anything is measured: others have to start meanwhile
FIRST_S: Final = 1.0


class Accounts:
    """What is measured and counted, with a catalog or without."""

    def __init__(
        self, hub: HubClient, config: Config, boot: dict[str, Any], proxy: str, follower: Follower | None
    ) -> None:
        self._hub = hub
        self._config = config
        self._follower = follower
        self._own_tenants: list[TenantInfo] | None = None
        self._storage = Storage()
        self._full: list[str] | None = None
        self._reader = UsageReader(boot["usage_fd"], config.workers)
        #: statements of each tenant when it was measured
        self._statements: dict[str, int] = {}
        self.meter: Meter | None = None
        if config.catalog.dsn is not None:
            self.meter = Meter(
                hub, self._reader, self._connect, proxy=proxy, boot=boot["boot"], kept=boot["usage"]
            )

    def reload(self, config: Config) -> None:
        self._config = config
        self._own_tenants = None
        self._full = None

    async def run(self) -> None:
        """Until cancelled; the meter reads on the minute, the measuring comes before it."""
        measuring = asyncio.create_task(self._measure_forever())
        try:
            if self.meter is not None:
                await self.meter.run()
            await measuring
        finally:
            measuring.cancel()

    async def finish(self) -> None:
        """The proxy stops, and its workers have: what they counted is written."""
        if self.meter is not None:
            await self.meter.write(LAST_S)

    async def _measure_forever(self) -> None:
        await asyncio.sleep(FIRST_S)
        while True:
            try:
                await self.measure()
            except (*FAILURES, HubError) as error:
                log.error("storage was not measured", error=str(error) or type(error).__name__)
            except Exception:  # whatever it is, the next minute is worth another try
                log.exception("measuring storage failed")
            await asyncio.sleep(PERIOD_S)

    async def measure(self) -> None:
        tenants = self._tenants()
        places = await self._hub.call("supervisor", "places")
        used = self._reader.read(places, 0)
        statements = {name: one.statements for name, one in used.items()}
        found = await self._storage.measure(
            tenants, lambda name: statements.get(name, 0) != self._statements.get(name, 0)
        )
        self._statements |= {name: statements.get(name, 0) for name in found}
        full = self._storage.full(tenants)
        if full != self._full:
            await self._hub.call("supervisor", "full", {"tenants": full})
            for name in sorted(set(full) - set(self._full or ())):
                log.warning("a tenant has used up its storage", tenant=name, bytes=self._storage.bytes[name])
            self._full = full
        if self.meter is not None:
            self.meter.storage = {name: size for name, size in self._storage.bytes.items() if size}
            own = {tenant.name for tenant in self._config.tenants}
            sizes = {name: size for name, size in found.items() if name not in own}
            if sizes:
                await save(self._connect, sizes)

    def _tenants(self) -> list[TenantInfo]:
        follower = self._follower
        if follower is not None and follower.registry is not None:
            return list(follower.registry.tenants.values())
        if self._own_tenants is None:
            self._own_tenants = list(Registry.build(self._config).tenants.values())
        return self._own_tenants

    async def _connect(self) -> Connection:
        return await catalog.connect(self._config, "tenant_proxy usage", statement_cache_size=0)
