"""HTTP of the control process: /metrics, /healthz, /readyz.

The sockets are bound by the supervisor, so a taken port is told at the start and
a restart of this process loses no scrape.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

import tenant_proxy
from tenant_proxy.control.state import ControlState
from tenant_proxy.hub import HubError

#: connections at once; those beyond get 503
MAX_CONNECTIONS = 100
#: an idle connection is closed; a bit more than Prometheus' usual interval of 15 s, so that it is kept
KEEP_ALIVE_S = 20
#: requests that run when a stop is asked for may take this long
STOP_GRACE_S = 2
MAX_HEADER_BYTES = 16 * 1024


def create_app(state: ControlState) -> FastAPI:
    app = FastAPI(
        title="tenant_proxy",
        version=tenant_proxy.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        try:
            body, content_type = await state.metrics(request.headers.get("accept", ""))
        except HubError as error:
            return Response(f"{error}\n", status_code=503, media_type="text/plain")
        return Response(body, headers={"content-type": content_type})

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """This process is alive; says nothing of the others, so that nobody restarts all for one."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Whether a balancer should send clients here."""
        readiness = await state.readiness()
        return JSONResponse(readiness.as_dict(), status_code=200 if readiness.ready else 503)

    return app


class _Uvicorn(uvicorn.Server):
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


class Server:
    """Serves on sockets that listen already."""

    def __init__(self, state: ControlState, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                create_app(state),
                lifespan="off",
                ws="none",
                http="h11",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_GRACE_S,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            )
        )

    async def serve(self) -> None:
        """Until `stop`."""
        await self._uvicorn.serve(self._sockets)

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        if self._uvicorn.stopped is not None:
            self._uvicorn.stopped.set()
