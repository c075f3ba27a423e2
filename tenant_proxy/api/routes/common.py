"""Parameters that routes share, and pages."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query

from tenant_proxy.api.guarded import Guarded
from tenant_proxy.api.problems import MEDIA_TYPE, Problem
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Job

TenantPath = Annotated[str, Path(description="Its name.", examples=["acme"])]
LoginPath = Annotated[str, Path(description="Its name.", examples=["alice"])]
IfMatch = Annotated[
    str | None, Header(description="An ETag: 412 if it is not what is there now.", examples=['"3"'])
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Asked again with the same key within a day, it is answered the same and not done again.",
    ),
]
Prefer = Annotated[
    str | None,
    Header(description="wait=SECONDS: the answer may take so long, 60 at most.", examples=["wait=10"]),
]
DryRun = Annotated[
    bool, Query(description="Only tells the SQL that would be run; nothing is changed anywhere.")
]
Limit = Annotated[int, Query(ge=1, le=1000, description="So many at most.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]

_PROBLEM: dict[str, Any] = {"model": Problem, "content": {MEDIA_TYPE: {}}}
#: what any of them may answer
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body can't be read.", **_PROBLEM},
    401: {"description": "No token, or none that is good.", **_PROBLEM},
    403: {"description": "The role may not do that.", **_PROBLEM},
    404: {"description": "There is no such thing.", **_PROBLEM},
    409: {"description": "Its state does not allow it, or a job is at work on it.", **_PROBLEM},
    412: {"description": "It was changed meanwhile.", **_PROBLEM},
    413: {"description": "The body is too large.", **_PROBLEM},
    422: {"description": "What was asked for is not possible in itself.", **_PROBLEM},
    429: {"description": "Too many requests of this address had no good token.", **_PROBLEM},
    502: {"description": "A PostgreSQL server refused it.", **_PROBLEM},
    503: {"description": "A server can't be reached.", **_PROBLEM},
}
STARTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": Job,
        "description": "It is being done.",
        "headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}},
    }
}


def router(tag: str) -> APIRouter:
    return APIRouter(prefix="/v1", tags=[tag], route_class=Guarded, responses=PROBLEMS)


def labels_of(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise Failure("invalid", "label is NAME=VALUE")
        found[name] = value
    return found
