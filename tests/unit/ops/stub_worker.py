"""A worker without a data plane: speaks the hub protocol and accepts connections.

A client gets one line, the worker's slot, pid and configuration generation.  It may then
send lines of JSON {"target": …, "method": …, "params": {…}}: each is a call that the
worker makes over the hub, answered by a line {"result": …} or {"error": …}; that is how
tests look into the processes.

What it should do wrong is said by STUB_* variables of the environment:

    STUB_EXIT=n       exits with this status before it is ready
    STUB_SLOW=s       says only after s seconds that it is ready
    STUB_HANG=1       never says that it is ready
    STUB_DEAF=1       ignores drain and SIGTERM
    STUB_REFUSE=text  answers reload with this error when log.level is "error"
"""

import argparse
import asyncio
import json
import mmap
import os
import signal
import socket
import struct
from typing import Any

from tenant_proxy import hub, shm
from tenant_proxy.config.transport import from_transport

DEAF = bool(os.environ.get("STUB_DEAF"))


class StubWorker:
    def __init__(self, client: hub.HubClient) -> None:
        self.hub = client
        self.servers: list[asyncio.Server] = []
        self.clients: set[asyncio.Task[None]] = set()
        self.draining = False
        self.queries = 0
        self.finished = asyncio.Event()
        for method in ("reload", "drain", "snapshot", "take_budget", "read_budget", "mail", "read_mail"):
            client.on(method, getattr(self, f"on_{method}"))

    async def run(self) -> None:
        boot = await self.hub.call("supervisor", "bootstrap")
        self.config = from_transport(boot["config"])
        self.slot: int = boot["slot"]
        self.generation: int = boot["config_generation"]
        self.mailboxes = boot["mailboxes"]
        self.shared = mmap.mmap(boot["shm_fd"], shm.SIZE_BYTES)
        if code := os.environ.get("STUB_EXIT"):
            raise SystemExit(int(code))
        if DEAF:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        for item in boot["listeners"]:
            # a duplicate that stays open: that nobody can connect any more must not depend on us
            sock = socket.socket(fileno=os.dup(item["fd"]))
            start = asyncio.start_unix_server if item["kind"] == "unix" else asyncio.start_server
            self.servers.append(await start(self.on_client, sock=sock))
        await asyncio.sleep(float(os.environ.get("STUB_SLOW", "0")))
        if not os.environ.get("STUB_HANG"):
            await self.hub.call("supervisor", "ready", {"slot": self.slot})
        ends = [asyncio.create_task(self.hub.closed()), asyncio.create_task(self.finished.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    async def on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.clients.add(task)
        writer.write(f"{self.slot} {os.getpid()} {self.generation}\n".encode())
        while line := await reader.readline():
            self.queries += 1
            try:
                answer = {"result": await self.hub.call(**json.loads(line))}
            except hub.HubError as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()
        self.clients.discard(task)

    def on_reload(self, params: dict[str, Any]) -> dict[str, Any]:
        config = from_transport(params["config"])
        if (text := os.environ.get("STUB_REFUSE")) and config.log.level == "error":
            raise hub.HubError(text)
        self.config, self.generation = config, params["generation"]
        return {}

    def on_drain(self, params: dict[str, Any]) -> dict[str, Any]:
        if not DEAF:
            self.draining = True
            for server in self.servers:
                server.close()
            self.finishing = asyncio.create_task(self.finish(params["timeout_s"]))
        return {}

    async def finish(self, timeout_s: float) -> None:
        """Until all clients have hung up, or the time is over."""
        if self.clients:
            await asyncio.wait(self.clients, timeout=timeout_s)
        self.finished.set()

    def on_snapshot(self, params: dict[str, Any]) -> dict[str, Any]:
        counters = {"clients_open": len(self.clients), "draining": self.draining}
        tenants = [{"tenant": "acme", "queries": self.queries, "clients": len(self.clients)}]
        known: dict[str, Any] = {"counters": counters, "tenants": tenants}
        return {what: known.get(what, []) for what in params["what"]}

    def on_take_budget(self, params: dict[str, Any]) -> dict[str, Any]:
        struct.pack_into("i", self.shared, shm.offset(self.slot, params["tenant"]), params["n"])
        return {}

    def on_read_budget(self, params: dict[str, Any]) -> list[int]:
        offsets = [shm.offset(slot, params["tenant"]) for slot in range(2)]
        return [struct.unpack_from("i", self.shared, offset)[0] for offset in offsets]

    def on_mail(self, params: dict[str, Any]) -> dict[str, Any]:
        _, tx = self.mailboxes[params["to"]]
        os.write(tx, params["text"].encode())
        return {}

    def on_read_mail(self, params: dict[str, Any]) -> str:
        rx, _ = self.mailboxes[self.slot]
        return os.read(rx, 1000).decode()


async def work(hub_fd: int) -> None:
    await StubWorker(await hub.HubClient.connect(hub_fd)).run()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hub-fd", type=int, required=True)
    asyncio.run(work(parser.parse_args().hub_fd))
