"""Fixtures: the API on a port, over a catalog and a cluster of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from tenant_proxy.api.app import create_app
from tenant_proxy.api.client import Client
from tenant_proxy.lifecycle.verbs import Verbs


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Service:
    port: int
    verbs: Verbs
    #: role -> secret
    tokens: dict[str, str] = field(default_factory=dict)
    #: closed at the end
    clients: list[Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, role: str = "admin", **options: Any) -> Client:
        made = Client(self.url, self.tokens[role], **options)
        self.clients.append(made)
        return made

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = "admin",
        raw: bytes | None = None,
        **headers: str,
    ) -> Reply:
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {self.tokens.get(token, token)}"
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")

        def send() -> Reply:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request(method, path, data, sent)
                response = connection.getresponse()
                found = {key.lower(): value for key, value in response.getheaders()}
                return Reply(response.status, found, response.read().decode(errors="replace"))
            finally:
                connection.close()

        return await asyncio.to_thread(send)


@pytest.fixture
async def serve_api(new_context, tmp_path) -> AsyncIterator[Any]:
    """Call with changes of the configuration for a Service."""
    running: list[tuple[uvicorn.Server, asyncio.Task[None], Any]] = []
    services: list[Service] = []

    async def start(**changes: Any) -> Service:
        changes = {
            "secret": {"value": "of tests"},
            "lifecycle": {"directory": str(tmp_path / "kept")},
            **changes,
        }
        changes["api"] = {"failures_per_minute": 0, **changes.get("api", {})}
        context = await new_context(**changes)
        app = create_app(context)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", http="h11", log_config=None))
        task = asyncio.create_task(server.serve([listener]))
        running.append((server, task, app))
        verbs = Verbs(context)
        service = Service(listener.getsockname()[1], verbs)
        for role in ("admin", "auditor", "reader"):
            service.tokens[role] = (await verbs.token_create(role, role)).secret
        services.append(service)
        return service

    yield start
    for service in services:
        for client in service.clients:
            await client.close()
    for server, task, app in running:
        server.should_exit = True
        await task
        await app.state.api.stop()


@pytest.fixture
async def api(serve_api) -> Service:
    return await serve_api()
