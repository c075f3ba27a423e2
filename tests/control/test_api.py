"""The REST API in the control process."""

from __future__ import annotations

import asyncio
import time

from tenant_proxy.config.schema import Config
from tenant_proxy.control import api

IMPORTED_S = 0.6
CLUSTER = {"name": "main", "host": "127.0.0.1", "database": "app"}


async def test_the_process_answers_while_the_api_is_imported(monkeypatch):
    """On a machine with much to do that takes seconds, and the supervisor took it for gone."""
    imported = asyncio.Event()

    class App:
        CONNECTIONS = 1

        @staticmethod
        async def serve(context: object, address: str, port: int, *, signals: bool) -> None:
            imported.set()
            await asyncio.Event().wait()

    class Context:
        async def __aenter__(self) -> Context:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    async def opened(config: Config, *, connections: int) -> Context:
        return Context()

    def slowly() -> tuple[object, object]:
        time.sleep(IMPORTED_S)
        return App, opened

    monkeypatch.setattr(api, "_import", slowly)
    serving = asyncio.create_task(api.serve(Config.model_validate({"clusters": [CLUSTER]})))
    longest, last = 0.0, time.monotonic()
    while not imported.is_set():
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    serving.cancel()
    assert longest < IMPORTED_S / 2
