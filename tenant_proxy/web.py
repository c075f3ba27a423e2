"""The HTTP server of the control process and of the API."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

#: how long a connection may take to send a request, and how long where half of them do nothing else
ASKS_S: Final = 10.0
CROWDED_S: Final = 1.0


class Patient(uvicorn.Server):
    """With an end to its patience: uvicorn waits for a request for ever, and takes so many connections."""

    #: set when it is to stop; None before it serves
    stopped: asyncio.Event | None = None
    #: connections that are sending a request, or nothing, and since when
    _asking: dict[Any, float] | None = None

    async def main_loop(self) -> None:
        """Looks after itself once a second, not ten times: most of what an idle proxy costs."""
        self.stopped = asyncio.Event()
        tick = 0
        while not await self.on_tick(tick):
            # counted in tenths of a second
            tick = (tick + 10) % 864_000
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), 1)
            self._drop_slow(time.monotonic())

    def _drop_slow(self, now: float) -> None:
        before = self._asking or {}
        self._asking = {one: before.get(one, now) for one in self.server_state.connections if is_asking(one)}
        most = (self.config.limit_concurrency or len(self._asking)) // 2
        patience_s = ASKS_S if len(self._asking) <= most else CROWDED_S
        for one, since in self._asking.items():
            if now - since >= patience_s:
                one.transport.close()


class Server(Patient):
    """One of several things that a process does: signals are the process's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled by the process, not by uvicorn."""
        yield

    def stop(self) -> None:
        self.should_exit = True
        if self.stopped is not None:
            self.stopped.set()


def is_asking(connection: Any) -> bool:
    """Whether a connection owes something: a request's head, or the rest of its body.

    Between two requests uvicorn has a time-out of its own.
    """
    cycle = connection.cycle
    if cycle is None or cycle.response_complete:
        return connection.timeout_keep_alive_task is None
    return bool(cycle.more_body)


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
