"""Idempotency keys: what is asked again with the same key is not done again, but answered the same.

Kept are answers without secrets: a password or token is in the first answer alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi.responses import JSONResponse, Response

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.store import Store

#: a request that is not answered by then was of a process that is gone
_GONE_S: Final = 120.0
_SECRETS: Final = ("password", "secret")
_HEADERS: Final = ("location", "etag")


def redacted(value: Any) -> Any:
    """Without passwords and tokens, also those within a DSN."""
    if isinstance(value, list):
        return [redacted(one) for one in value]
    if isinstance(value, dict):
        return {key: None if key in _SECRETS else redacted(one) for key, one in value.items()}
    if isinstance(value, str):
        return re.sub(r"^(postgresql://[^:@/]*):[^@/]*@", r"\1@", value)
    return value


def request_hash(method: str, target: str, body: bytes) -> bytes:
    """Of what is asked for, without secrets: a short password could be guessed from its hash."""
    try:
        text = json.dumps(redacted(json.loads(body or b"null")), sort_keys=True)
    except ValueError:
        text = ""
    return hashlib.sha256(f"{method} {target}\n{text}".encode()).digest()


async def once(
    store: Store,
    principal: str,
    key: str,
    asked: bytes,
    answer: Callable[[], Awaitable[Response]],
) -> Response:
    """Only answers that something was done are kept: what failed may be tried again with the same key."""
    if not 1 <= len(key.encode()) <= 255:
        raise Failure("invalid", "the Idempotency-Key has between 1 and 255 bytes")
    kept = await _begin(store, principal, key, asked)
    if kept is not None:
        return kept
    try:
        response = await answer()
    except BaseException:
        await _forget(store, principal, key)
        raise
    if response.status_code >= 400:
        await _forget(store, principal, key)
        return response
    body = bytes(response.body)
    async with store.read() as connection:
        await connection.execute(
            "UPDATE idempotency SET status = $3, response = $4 WHERE principal = $1 AND key = $2",
            principal,
            key,
            response.status_code,
            {
                "headers": {name: response.headers[name] for name in _HEADERS if name in response.headers},
                "body": redacted(json.loads(body)) if body else None,
            },
        )
    return response


async def _begin(store: Store, principal: str, key: str, asked: bytes) -> Response | None:
    """The answer that was given before; None: it is to be made now."""
    async with store.read() as connection:
        begun = await connection.fetchval(
            """INSERT INTO idempotency AS i (principal, key, request_hash) VALUES ($1, $2, $3)
               ON CONFLICT (principal, key) DO UPDATE SET created_at = now()
                   WHERE i.status IS NULL AND i.request_hash = excluded.request_hash
                     AND i.created_at < now() - make_interval(secs => $4)
               RETURNING true""",
            principal,
            key,
            asked,
            _GONE_S,
        )
        if begun:
            return None
        row = await connection.fetchrow(
            "SELECT request_hash, status, response FROM idempotency WHERE principal = $1 AND key = $2",
            principal,
            key,
        )
    if row is None:
        raise Failure("busy", "the same request has just failed", hint="try it again")
    if bytes(row["request_hash"]) != asked:
        raise Failure("invalid", "the Idempotency-Key was used for another request")
    if row["status"] is None:
        raise Failure("busy", "the same request is being worked on", hint="wait, and try it again")
    headers = {**row["response"]["headers"], "Idempotency-Replayed": "true"}
    if row["response"]["body"] is None:
        return Response(status_code=row["status"], headers=headers)
    return JSONResponse(row["response"]["body"], row["status"], headers=headers)


async def _forget(store: Store, principal: str, key: str) -> None:
    async with store.read() as connection:
        await connection.execute(
            "DELETE FROM idempotency WHERE principal = $1 AND key = $2 AND status IS NULL", principal, key
        )
