"""Tokens of the API's callers: a hash is all that is kept of one, and it is found by that."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from tenant_proxy.catalog.records import Token

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

#: what tokens begin with, so that those who search for leaked ones find them
PREFIX: Final = "tpx_"
_BYTES: Final = 32

_SELECT: Final = """
SELECT k.id, k.name, k.role, t.name::text AS tenant, k.expires_at, k.created_at, k.used_at, k.hash
  FROM token k LEFT JOIN tenant t ON t.id = k.tenant
"""


def make() -> str:
    return PREFIX + secrets.token_urlsafe(_BYTES)


def digest(secret: str) -> bytes:
    """One round is enough: tokens are made of 256 random bits, not chosen by people."""
    return hashlib.sha256(secret.encode()).digest()


async def tokens(connection: Connection) -> list[Token]:
    return [Token.of(row) for row in await connection.fetch(f"{_SELECT} ORDER BY k.name")]


async def find(connection: Connection, name: str) -> Token | None:
    row = await connection.fetchrow(f"{_SELECT} WHERE k.name = $1", name)
    return None if row is None else Token.of(row)


async def check(connection: Connection, secret: str) -> Token | None:
    """Whose it is; None for one that there is not, that has expired, or whose tenant is erased.

    The catalog compares hashes, whose bytes nobody can choose: how long that takes says nothing of a token.
    """
    hashed = digest(secret)
    row = await connection.fetchrow(
        f"""{_SELECT} WHERE k.hash = $1 AND (k.expires_at IS NULL OR k.expires_at > now())
              AND (t.id IS NULL OR t.state <> 'erased')""",
        hashed,
    )
    if row is None or not hmac.compare_digest(bytes(row["hash"]), hashed):
        return None
    await connection.execute(
        """UPDATE token SET used_at = now()
            WHERE id = $1 AND (used_at IS NULL OR used_at < now() - interval '1 minute')""",
        row["id"],
    )
    return Token.of(row)
