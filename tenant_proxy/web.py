"""The HTTP server of the control process and of the API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """One of several things that a process does: signals are the process's."""

    #: set when it is to stop; None before it serves
    stopped: asyncio.Event | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled by the process, not by uvicorn."""
        yield

    async def main_loop(self) -> None:
        """Looks after itself once a second, not ten times: most of what an idle proxy costs."""
        self.stopped = asyncio.Event()
        tick = 0
        while not await self.on_tick(tick):
            # counted in tenths of a second
            tick = (tick + 10) % 864_000
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), 1)

    def stop(self) -> None:
        self.should_exit = True
        if self.stopped is not None:
            self.stopped.set()


def config_of(
    app: FastAPI, *, connections: int, keep_alive_s: int, grace_s: int, **more: Any
) -> uvicorn.Config:
    """Nothing but HTTP/1.1, and no log lines but the app's own; `more` is uvicorn's."""
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        http="h11",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=connections,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=grace_s,
        **more,
    )
