"""The control process: what is not the data plane but must be answered for all workers together.

    python -m tenant_proxy.control --hub-fd N

Today that is HTTP for the SRE (/metrics, /healthz, /readyz).  It may die and be
restarted without any client of the data plane noticing.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from typing import Any

from tenant_proxy import hub
from tenant_proxy.config.transport import from_transport
from tenant_proxy.obs import log as obs_log
from tenant_proxy.obs.log import get_logger

log = get_logger("control")


async def serve(hub_fd: int) -> int:
    client = await hub.HubClient.connect(hub_fd)
    boot = await client.call("supervisor", "bootstrap")
    config = from_transport(boot["config"])
    obs_log.configure(config.log.level, config.log.format)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the rest says no more than our own lines
    # What HTTP needs is half of this process's memory: imported only where it is served.
    from tenant_proxy.control.http import Server
    from tenant_proxy.control.state import ControlState

    state = ControlState(client, config, boot["ledger"])

    def on_reload(params: dict[str, Any]) -> dict[str, Any]:
        new = from_transport(params["config"])
        obs_log.configure(new.log.level, new.log.format)
        state.reload(new)
        return {}

    client.on("reload", on_reload)
    server = Server(state, [socket.socket(fileno=fd) for fd in boot["http_fds"]])
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    serving = asyncio.create_task(server.serve())
    await client.call("supervisor", "ready")
    closed = asyncio.create_task(client.closed())
    await asyncio.wait([serving, closed], return_when=asyncio.FIRST_COMPLETED)
    closed.cancel()
    server.stop()
    await serving
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
