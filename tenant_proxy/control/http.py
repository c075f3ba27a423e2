"""HTTP of the control process: /metrics, /healthz, /readyz.

The sockets are bound by the supervisor, so a taken port is told at the start and
a restart of this process loses no scrape.
"""

from __future__ import annotations

import socket

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

import tenant_proxy
from tenant_proxy import web
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


class Server:
    """Serves on sockets that listen already."""

    def __init__(self, state: ControlState, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._server = web.Server(
            web.config_of(
                create_app(state),
                connections=MAX_CONNECTIONS,
                keep_alive_s=KEEP_ALIVE_S,
                grace_s=STOP_GRACE_S,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            )
        )

    async def serve(self) -> None:
        """Until `stop`."""
        await self._server.serve(self._sockets)

    def stop(self) -> None:
        self._server.stop()
