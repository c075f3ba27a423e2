"""A worker without a data plane: speaks the hub protocol and accepts connections.

Each client gets one line, the worker's slot, pid and configuration generation, and is
kept open.  What it should do wrong is said by STUB_* variables of the environment:

    STUB_EXIT=n            exits with this status before it is ready
    STUB_HANG=1            never says that it is ready
    STUB_DEAF=1            ignores drain and SIGTERM
    STUB_REFUSE=text       answers reload with an error when log.level is "debug"
"""

import argparse
import asyncio
import mmap
import os
import signal
import socket
import struct
from typing import Any

from tenant_proxy import hub, shm
from tenant_proxy.config.transport import from_transport


class StubWorker:
    def __init__(self, client: hub.HubClient) -> None:
        self.hub = client
        self.listeners: list[socket.socket] = []
        self.clients: list[socket.socket] = []
        self.generation = 0
        self.slot = -1
        self.draining = False
        self.done = asyncio.Event()

    async def run(self) -> None:
        self.hub.on("reload", self.on_reload)
        self.hub.on("drain", self.on_drain)
        self.hub.on("snapshot", self.on_snapshot)
        self.hub.on("take_budget", self.on_take_budget)
        self.hub.on("read_budget", self.on_read_budget)
        self.hub.on("mail", self.on_mail)
        self.hub.on("read_mail", self.on_read_mail)
        boot = await self.hub.call("supervisor", "bootstrap")
        self.config = from_transport(boot["config"])
        self.slot = boot["slot"]
        self.generation = boot["config_generation"]
        self.mailboxes = boot["mailboxes"]
        self.shared = mmap.mmap(boot["shm_fd"], shm.SIZE_BYTES)
        if code := os.environ.get("STUB_EXIT"):
            raise SystemExit(int(code))
        loop = asyncio.get_running_loop()
        if os.environ.get("STUB_DEAF"):
            loop.add_signal_handler(signal.SIGTERM, lambda: None)
        for item in boot["listeners"]:
            sock = socket.socket(fileno=item["fd"])
            self.listeners.append(sock)
            loop.add_reader(sock, self.on_accept, sock)
        if not os.environ.get("STUB_HANG"):
            await self.hub.call("supervisor", "ready", {"slot": self.slot})
        await asyncio.wait(
            [asyncio.create_task(self.hub.closed()), asyncio.create_task(self.done.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )

    def on_accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return  # another worker took it
        client.sendall(f"{self.slot} {os.getpid()} {self.generation}\n".encode())
        self.clients.append(client)

    def on_reload(self, params: dict[str, Any]) -> dict[str, Any]:
        config = from_transport(params["config"])
        if (text := os.environ.get("STUB_REFUSE")) and config.log.level == "debug":
            raise hub.HubError(text)
        self.config, self.generation = config, params["generation"]
        return {}

    async def on_drain(self, params: dict[str, Any]) -> dict[str, Any]:
        if os.environ.get("STUB_DEAF"):
            return {}
        self.draining = True
        for sock in self.listeners:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        task = asyncio.create_task(self.finish(params["timeout_s"]))
        task.add_done_callback(lambda _: self.done.set())
        return {}

    async def finish(self, timeout_s: float) -> None:
        """Until all clients have hung up, or the time is over."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                for client in self.clients:
                    client.setblocking(False)
                    await loop.sock_recv(client, 1)
        except TimeoutError:
            pass

    def on_snapshot(self, params: dict[str, Any]) -> dict[str, Any]:
        return {
            what: {"clients_open": len(self.clients), "draining": self.draining} if what == "counters" else []
            for what in params["what"]
        }

    def on_take_budget(self, params: dict[str, Any]) -> dict[str, Any]:
        struct.pack_into("i", self.shared, shm.offset(self.slot, params["tenant"]), params["n"])
        return {}

    def on_read_budget(self, params: dict[str, Any]) -> list[int]:
        return [
            struct.unpack_from("i", self.shared, shm.offset(slot, params["tenant"]))[0] for slot in range(2)
        ]

    def on_mail(self, params: dict[str, Any]) -> dict[str, Any]:
        _, tx = self.mailboxes[params["to"]]
        os.write(tx, params["text"].encode())
        return {}

    def on_read_mail(self, params: dict[str, Any]) -> str:
        rx, _ = self.mailboxes[self.slot]
        return os.read(rx, 1000).decode()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hub-fd", type=int, required=True)
    hub.die_with_parent()
    await StubWorker(await hub.HubClient.connect(parser.parse_args().hub_fd)).run()


if __name__ == "__main__":
    asyncio.run(main())
