"""Errors as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from tenant_proxy.catalog.failures import CODES, Failure

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:tenant-proxy:problem:"

#: a Failure's code -> HTTP's number
STATUS: Final = {
    "invalid": 422,
    "not_found": 404,
    "exists": 409,
    "conflict": 409,
    "stale": 412,
    "busy": 409,
    "forbidden": 403,
    "unavailable": 503,
    "refused": 502,
    "outdated": 503,
}
_TITLES: Final = {
    **CODES,
    "unauthenticated": "a token is needed",
    "method_not_allowed": "this can't be done to it",
    "too_many": "too many requests failed",
    "too_large": "the request is too large",
    "malformed": "the request can't be read",
    "internal": "an error of ours",
}
#: after so many seconds trying again may help
_RETRY_AFTER: Final = {"busy": "1", "unavailable": "5"}


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    type: str
    """urn:tenant-proxy:problem: and the code."""
    title: str
    """What the code means."""
    status: int
    detail: str
    """What is wrong here."""
    code: str
    explanation: str | None = None
    """More of it."""
    hint: str | None = None
    """What can be done."""
    job: int | None = None
    """The job that is in the way, or that failed."""
    errors: list[dict[str, Any]] | None = None
    """Each wrong value: where it is (`at`), and what is wrong with it."""


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    explanation: str = "",
    hint: str = "",
    job: int | None = None,
    errors: Iterable[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    said = Problem(
        type=URN + code,
        title=_TITLES[code],
        status=status,
        detail=detail,
        code=code,
        explanation=explanation or None,
        hint=hint or None,
        job=job,
        errors=[dict(one) for one in errors] or None,
    )
    more = {"Retry-After": _RETRY_AFTER[code]} if code in _RETRY_AFTER else {}
    return JSONResponse(
        said.model_dump(exclude_none=True),
        status,
        headers={**more, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def problem_of(failure: Failure) -> JSONResponse:
    return problem(
        STATUS[failure.code],
        failure.code,
        failure.message,
        explanation=failure.detail,
        hint=failure.hint,
        job=failure.job,
    )


def wrong_values(errors: Iterable[Mapping[str, Any]]) -> JSONResponse:
    """Of pydantic's errors; never what was given, which may be a secret."""
    found = [
        {"at": ".".join(map(str, one["loc"])), "problem": str(one["msg"]).splitlines()[0]} for one in errors
    ]
    first = found[0]
    if any(one.get("type") == "json_invalid" for one in errors):
        return problem(400, "malformed", "the body is no JSON", errors=found)
    return problem(422, "invalid", f"{first['at']}: {first['problem']}", errors=found)
