"""The control process: what is not the data plane but must be answered for all workers together.

    python -m tenant_proxy.control --hub-fd N

HTTP for the SRE (/metrics, /healthz, /readyz) and the catalog, which it follows.  It may die and be
restarted without any client of the data plane noticing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from tenant_proxy import hub
from tenant_proxy.config.schema import Config
from tenant_proxy.config.transport import from_transport
from tenant_proxy.control import api
from tenant_proxy.control.accounts import Accounts
from tenant_proxy.control.caretaker import Caretaker
from tenant_proxy.control.follow import Follower
from tenant_proxy.obs import log as obs_log
from tenant_proxy.obs.log import get_logger

if TYPE_CHECKING:
    from tenant_proxy.control.state import ControlState

log = get_logger("control")

#: by then what is there stays
GC_AFTER_S = 10.0


class Control:
    """What runs in it, and how it takes another configuration."""

    def __init__(self, client: hub.HubClient, boot: dict[str, Any]) -> None:
        self._client = client
        self._boot = boot
        self._config = from_transport(boot["config"])
        self._follower: Follower | None = None
        self._following: asyncio.Task[None] | None = None
        self._state: ControlState | None = None
        self._accounts: Accounts | None = None
        self._accounting: asyncio.Task[None] | None = None
        self._caretaker: Caretaker | None = None
        self._caretaking: asyncio.Task[None] | None = None
        self._api: asyncio.Task[None] | None = None
        obs_log.configure(self._config.log.level, self._config.log.format)
        client.on("reload", self._on_reload)
        client.on("catalog", self._on_catalog)

    async def run(self) -> None:
        # what is made of a catalog stays, and looking for garbage in it takes a third of the time
        gc.disable()
        self._follow()
        asyncio.get_running_loop().call_later(GC_AFTER_S, _collect_again)
        self._accounts = Accounts(
            self._client, self._config, self._boot, proxy_name(self._config), self._follower
        )
        self._accounting = asyncio.create_task(self._accounts.run())
        await self._client.call("supervisor", "ready")
        if self._config.api.enabled:
            self._api = asyncio.create_task(api.serve(self._config))
        if not self._boot["http_fds"]:
            stopped = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
            await _first(stopped.wait(), self._client.closed())
            await self._stop()
            return
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the rest says no more than our own lines
        # What HTTP needs is half of this process's memory: imported only where it is served.
        http, state = await asyncio.to_thread(_import_http)
        self._state = state.ControlState(self._client, self._config, self._boot["ledger"], self._follower)
        server = http.Server(self._state, [socket.socket(fileno=fd) for fd in self._boot["http_fds"]])
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
        serving = asyncio.create_task(server.serve())
        await _first(asyncio.shield(serving), self._client.closed())
        server.stop()
        await serving
        await self._stop()

    async def _stop(self) -> None:
        for task in (self._following, self._accounting, self._caretaking, self._api):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._accounts is not None and not self._client.is_closed:
            await self._accounts.finish()

    def _follow(self) -> None:
        """Begins to follow the catalog, if one is configured."""
        if self._config.catalog.dsn is None:
            return
        self._follower = Follower(self._client, self._config, proxy_name(self._config), self._boot["served"])
        self._following = asyncio.create_task(self._follower.run())
        self._caretaker = Caretaker(self._config, proxy_name(self._config))
        self._follower.noticed = self._caretaker.wake
        self._caretaking = asyncio.create_task(self._caretaker.run())

    def _on_reload(self, params: dict[str, Any]) -> dict[str, Any]:
        new = from_transport(params["config"])
        obs_log.configure(new.log.level, new.log.format)
        self._config = new
        if self._follower is not None:
            self._follower.reload(new)
        if self._caretaker is not None:
            self._caretaker.reload(new)
        if self._accounts is not None:
            self._accounts.reload(new)
        if self._state is not None:
            self._state.reload(new)
        return {}

    def _on_catalog(self, params: dict[str, Any]) -> dict[str, Any]:
        return self._follower.shown() if self._follower is not None else {}


def _collect_again() -> None:
    gc.freeze()
    gc.enable()


def proxy_name(config: Config) -> str:
    """What this proxy goes by among those of a catalog."""
    return config.catalog.proxy or f"{socket.gethostname()}:{config.listen.port}"


def _import_http() -> tuple[Any, Any]:
    from tenant_proxy.control import http, state

    return http, state


async def _first(*works: Awaitable[Any]) -> None:
    """Returns when one of them has ended; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def serve(hub_fd: int) -> int:
    client = await hub.HubClient.connect(hub_fd)
    control = Control(client, await client.call("supervisor", "bootstrap", timeout_s=30))
    await control.run()
    client.close()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="tenant_proxy.control")
    parser.add_argument("--hub-fd", type=int, required=True)
    arguments = parser.parse_args()
    hub.die_with_parent()
    try:
        return asyncio.run(serve(arguments.hub_fd))
    except hub.HubError as problem:
        log.error("the supervisor is gone", reason=problem)
        return 1


if __name__ == "__main__":
    sys.exit(main())
