"""Whether the log of changes is whole: each entry's hash covers the entry and the hash before it.

The catalog makes the hashes (`chain_audit` in migrations/0005_forgetting.sql) when an entry is added; here
they are made again from what stands there.  A hash covers a digest of what was changed (`before`, `after`)
and of a salt, so that both can be taken away when a tenant is erased (`forget`).  The entry of the erasure
names those entries, and one that is blank without that is found here.

Whoever can write to the table as its owner could make the whole chain anew, so note the last hash elsewhere
now and then (`audit verify` prints it) and have it looked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

#: the entry that has the record of an erasure
ERASURE: Final = "tenant.erasure"

#: entries that are read at a time
_AT_ONCE: Final = 2000

_READ: Final = f"""
SELECT id, hash, tenant_proxy.audit_text(a) AS text,
       digest IS NOT NULL AND salt IS NULL AS blank,
       salt IS NULL OR digest = tenant_proxy.audit_digest(salt, before, after) AS intact,
       CASE WHEN action = '{ERASURE}'
            THEN ARRAY(SELECT jsonb_array_elements_text(after -> 'record' -> 'log_blanked')::bigint)
       END AS blanked
  FROM tenant_proxy.audit a
 WHERE id > $1 ORDER BY id LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Verified:
    entries: int
    #: hexadecimal; of the last good entry
    head: str
    #: id of the first entry that is not as it was written, or that is missing
    broken_at: int | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.broken_at is None


async def verify(connection: Connection, expected: str | None = None) -> Verified:
    """Reads the log from its beginning.  `expected` is a hash noted earlier, which must be in it."""
    count, head, seen = 0, b"", expected is None
    blank: set[int] = set()
    while True:
        rows = await connection.fetch(_READ, count, _AT_ONCE)
        if not rows:
            break
        for row in rows:
            if row["id"] != count + 1:
                return Verified(count, head.hex(), count + 1, f"entry {count + 1} is missing")
            made = hashlib.sha256(head + row["text"].encode()).digest()
            if made != row["hash"] or not row["intact"]:
                return Verified(count, head.hex(), row["id"], f"entry {row['id']} was changed")
            count, head = row["id"], made
            seen = seen or head.hex() == expected
            if row["blank"]:
                blank.add(count)
            blank -= set(row["blanked"] or ())
    if blank:
        first = min(blank)
        return Verified(count, head.hex(), first, f"entry {first} was blanked, and no erasure says so")
    if not seen:
        return Verified(count, head.hex(), count + 1, "the hash that was noted earlier is not in the log")
    return Verified(count, head.hex())


async def forget(connection: Connection, tenant: str, logins: Sequence[str]) -> list[int]:
    """Takes from the log what was changed in a tenant, under all names that it has had, and in those of its
    logins that are gone; the entries' numbers, which the entry of its erasure has to name.
    """
    found: list[int] = []
    for name, first, last in await _spans(connection, tenant):
        rows = await connection.fetch(_FORGET, first, last, name)
        found += [row["id"] for row in rows]
    for login in logins:
        rows = await connection.fetch(_FORGET_LOGIN, login)
        found += [row["id"] for row in rows]
    return sorted(found)


async def _spans(connection: Connection, tenant: str) -> list[tuple[str, int, int | None]]:
    """Its names, each with the first entry and the one behind the last in which the name was its."""
    spans: list[tuple[str, int, int | None]] = []
    name, behind = tenant, None
    while True:
        row = await connection.fetchrow(_NAMED, name, behind)
        spans.append((name, 1 if row is None else row["id"], behind))
        if row is None or row["action"] != "tenant.rename":
            return spans
        name, behind = row["name"], row["id"] + 1


#: when somebody got the name $1, before the entry $2
_NAMED: Final = """
SELECT id, action, name FROM audit
 WHERE kind = 'tenant' AND ($2::bigint IS NULL OR id < $2)
   AND (action = 'tenant.create' AND name = $1 OR action = 'tenant.rename' AND after ->> 'name' = $1)
 ORDER BY id DESC LIMIT 1
"""
_BLANK: Final = """
UPDATE audit SET before = NULL, after = NULL, salt = NULL
 WHERE salt IS NOT NULL AND (before IS NOT NULL OR after IS NOT NULL)"""
_FORGET: Final = f"""{_BLANK}
   AND id >= $1 AND ($2::bigint IS NULL OR id < $2)
   AND (kind = 'tenant' AND name = $3::text AND action <> '{ERASURE}'
        OR kind = 'access' AND right(name, length($3) + 4) = ' on ' || $3
        OR kind = 'custom_role' AND right(name, length($3) + 4) = ' of ' || $3)
RETURNING id
"""
_FORGET_LOGIN: Final = f"""{_BLANK}
   AND kind = 'login' AND name = $1 AND NOT EXISTS (SELECT FROM login WHERE login.name = $1)
   AND id >= (SELECT max(id) FROM audit WHERE kind = 'login' AND name = $1 AND action = 'login.create')
RETURNING id
"""
