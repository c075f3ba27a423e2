"""The application, and the server that it runs in."""

from __future__ import annotations

import json
import os
import socket
import warnings
from http import HTTPStatus
from importlib import resources
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic.warnings import UnsupportedFieldAttributeWarning
from starlette.exceptions import HTTPException

import tenant_proxy
from tenant_proxy import web
from tenant_proxy.api.callers import Callers
from tenant_proxy.api.examples import BODIES
from tenant_proxy.api.guarded import Api, Failures
from tenant_proxy.api.problems import problem
from tenant_proxy.api.routes import access, estates, plans, tenants, webhooks, work
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Record
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.obs.log import get_logger
from tenant_proxy.texts import describe

log = get_logger("api")

#: connections to the catalog
CONNECTIONS: Final = 8
MAX_REQUESTS: Final = 200
KEEP_ALIVE_S: Final = 20
STOP_GRACE_S: Final = 5

_CODES: Final = {404: "not_found", 405: "method_not_allowed", 400: "malformed"}


def create_app(context: Context) -> FastAPI:
    """Of an open context; Failure where the keys of JSON Web Tokens can't be read."""
    app = _described()
    config = context.config.api
    app.state.api = Api(context, Callers(context.store, config.jwt), Failures(config.failures_per_minute))

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> JSONResponse:
        return JSONResponse(openapi(app))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "malformed")
        text = f"{request.method} {HTTPStatus(error.status_code).phrase.lower()}"
        if code == "not_found":
            text = "there is nothing of this path"
        elif code == "method_not_allowed":
            text = f"this path does not take {request.method}"
        return problem(error.status_code, code, text, headers=error.headers)

    return app


def _described() -> FastAPI:
    """With all that can be asked."""
    app = FastAPI(
        title="tenant_proxy",
        version=tenant_proxy.__version__,
        summary="The tenants' life: create, provision, grant, activate, suspend, delete.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    for module in (tenants, access, estates, plans, work, webhooks):
        app.include_router(module.routes)
    with warnings.catch_warnings():
        # Records make their validators late; pydantic warns of FastAPI's names then, which is of no matter.
        warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)
        openapi(app)
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1: FastAPI's, with how callers prove who they are, and examples that tests run."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = app.openapi()
    # what the story of `examples` was answered, as a test has recorded it
    answers = json.loads(resources.files("tenant_proxy.api").joinpath("answers.json").read_text("utf-8"))
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "A token, or a JSON Web Token."}
    }
    document["security"] = [{"token": []}]
    for item in document["paths"].values():
        for operation in item.values():
            body = operation.get("requestBody")
            if body is not None and operation["operationId"] in BODIES:
                body["content"]["application/json"]["example"] = BODIES[operation["operationId"]]
            # 200 beside 201 is a rehearsal's
            done = "201" if "201" in operation["responses"] else "200"
            for status, response in operation["responses"].items():
                shown = response.get("content", {}).get("application/json")
                if status == done and shown is not None and operation["operationId"] in answers:
                    shown["example"] = answers[operation["operationId"]]
                # of problems FastAPI says application/json too
                if status.startswith(("4", "5")):
                    response["content"] = {
                        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                    }
    describe(document["components"]["schemas"], Record)
    document["components"]["schemas"].pop("HTTPValidationError", None)
    document["components"]["schemas"].pop("ValidationError", None)
    return document


async def serve(context: Context, address: str, port: int, *, signals: bool = True) -> None:
    """Until SIGTERM or SIGINT, or cancelled; jobs that are not at their end are gone on with by who finds
    them.  OSError where it can't listen there.
    """
    app = create_app(context)
    config = web.config_of(
        app, connections=MAX_REQUESTS, keep_alive_s=KEEP_ALIVE_S, grace_s=STOP_GRACE_S, **_tls(context)
    )
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family)
    log.info("the API listens", addr=f"{address}:{port}", tls=config.is_ssl)
    try:
        await (web.Patient if signals else web.Server)(config).serve([listener])
    finally:
        listener.close()
        await app.state.api.stop()


def _tls(context: Context) -> dict[str, str]:
    api = context.config.api
    if api.cert is None:
        return {}
    if api.key is None:
        raise Failure("invalid", "api.cert needs api.key beside it")
    for path in (api.cert, api.key):
        if not os.access(path, os.R_OK):
            raise Failure("invalid", f"{path}: can't be read")
    return {"ssl_certfile": api.cert, "ssl_keyfile": api.key}


def bare_document() -> dict[str, Any]:
    """The OpenAPI document, without a catalog."""
    return openapi(_described())
