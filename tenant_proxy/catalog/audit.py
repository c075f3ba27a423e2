"""Whether the log of changes is whole: each entry's hash covers the entry and the hash before it.

The catalog makes the hashes (`chain_audit` in migrations/0001_catalog.sql) when an entry is added; here they
are made again from what stands there.  Whoever can write to the table as its owner could make the whole chain
anew, so note the last hash elsewhere now and then (`audit verify` prints it) and have it looked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncpg

#: entries that are read at a time
_AT_ONCE: Final = 2000

_READ: Final = """
SELECT id, hash, tenant_proxy.audit_text(a) AS text FROM tenant_proxy.audit a
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


async def verify(connection: asyncpg.Connection[asyncpg.Record], expected: str | None = None) -> Verified:
    """Reads the log from its beginning.  `expected` is a hash noted earlier, which must be in it."""
    count, head, seen = 0, b"", expected is None
    while True:
        rows = await connection.fetch(_READ, count, _AT_ONCE)
        if not rows:
            break
        for row in rows:
            if row["id"] != count + 1:
                return Verified(count, head.hex(), count + 1, f"entry {count + 1} is missing")
            made = hashlib.sha256(head + row["text"].encode()).digest()
            if made != row["hash"]:
                return Verified(count, head.hex(), row["id"], f"entry {row['id']} was changed")
            count, head = row["id"], made
            seen = seen or head.hex() == expected
    if not seen:
        return Verified(count, head.hex(), count + 1, "the hash that was noted earlier is not in the log")
    return Verified(count, head.hex())
