"""Does now and then what has to be done in the catalog when its time has come (`lifecycle.upkeep`).

Only where the configuration names an admin of a cluster: a proxy that merely follows may not, and need not.
Several proxies of one catalog may all do it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tenant_proxy.obs.log import get_logger

if TYPE_CHECKING:
    from tenant_proxy.config.schema import Config

log = get_logger("control")

#: at least, and at most, between two times
_PAUSE_MIN_S: Final = 1.0
_PAUSE_MAX_S: Final = 30.0


class Caretaker:
    def __init__(self, config: Config, proxy: str) -> None:
        self._config = config
        self._proxy = proxy
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something has changed, of which webhooks may want to be told."""
        self._woken.set()

    def reload(self, config: Config) -> None:
        self._config = config

    async def run(self) -> None:
        while True:
            pause = _PAUSE_MAX_S
            if any(cluster.admin.user is not None for cluster in self._config.clusters):
                try:
                    pause = await self._once()
                except Exception as problem:
                    log.warning("upkeep of the catalog failed", reason=str(problem) or type(problem).__name__)
            await asyncio.sleep(_PAUSE_MIN_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause - _PAUSE_MIN_S, 0)):
                    await self._woken.wait()
            self._woken.clear()

    async def _once(self) -> float:
        """How long until it is worth the while again."""
        # needed here alone, and by no proxy that only follows
        from tenant_proxy.lifecycle.context import Context
        from tenant_proxy.lifecycle.upkeep import next_time, upkeep

        async with await Context.open(self._config, f"proxy {self._proxy}", connections=2) as context:
            for done in await upkeep(context):
                log.info("upkeep of the catalog", done=done)
            due = await next_time(context)
        if due is None:
            return _PAUSE_MAX_S
        return min(max((due - datetime.now(UTC)).total_seconds(), _PAUSE_MIN_S), _PAUSE_MAX_S)
