"""What the guard refused, or would have, by shape of statement: SHOW VIOLATIONS.

A refused statement costs its sender a round trip and us a judgement, so somebody can send many.  The table
has room for so many shapes of each tenant, and the longest unseen ones make way: whoever floods it drives
out his own.  No literal gets in: a text whose literals can't be told apart is known by its kind alone.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from tenant_proxy.guard.shape import readable
from tenant_proxy.model import Verdict

#: shapes of a worker, shared out evenly among the tenants that have some
MAX_ROWS: Final = 2000
#: … of which a tenant has at most and at least so many
MOST_OF_TENANT: Final = 100
LEAST_OF_TENANT: Final = 4

#: lines of the log for each tenant: so many at once, and then so many a second
LOG_BURST: Final = 100
LOG_PER_S: Final = 10.0

#: texts up to this get their shape
_MAX_TEXT_BYTES: Final = 16 * 1024
#: what is kept of a shape, and of an object's name
_MAX_SHOWN: Final = 500
_MAX_NAME: Final = 200

#: stands for the statement of a FunctionCall message, which has none
FUNCTION_CALL: Final = "(function call)"

_FIRST_WORD: Final = re.compile(rb"(?:\s|--[^\n]*+(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*+\*/|\()*+([A-Za-z]{1,12})\b")
#: a word that begins a statement is no literal
_KINDS: Final = frozenset(
    (
        "ABORT", "ALTER", "ANALYSE", "ANALYZE", "BEGIN", "CALL", "CHECKPOINT", "CLOSE", "CLUSTER", "COMMENT",
        "COMMIT", "COPY", "CREATE", "DEALLOCATE", "DECLARE", "DELETE", "DISCARD", "DO", "DROP", "END",
        "EXECUTE", "EXPLAIN", "FETCH", "GRANT", "IMPORT", "INSERT", "LISTEN", "LOAD", "LOCK", "MERGE", "MOVE",
        "NOTIFY", "PREPARE", "REASSIGN", "REFRESH", "REINDEX", "RELEASE", "RESET", "REVOKE", "ROLLBACK",
        "SAVEPOINT", "SECURITY", "SELECT", "SET", "SHOW", "START", "TABLE", "TRUNCATE", "UNLISTEN", "UPDATE",
        "VACUUM", "VALUES", "WITH",
    )
)  # fmt: skip


class _Key(NamedTuple):
    statement: str
    action: str
    reason: str
    rule: str
    object: str
    sqlstate: str


class _Seen:
    __slots__ = ("count", "first_us", "last_us", "user")

    def __init__(self, now_us: int) -> None:
        self.count = 0
        self.first_us = now_us
        self.last_us = now_us
        #: the last one
        self.user = ""


def statement_of(sql: bytes | None) -> str:
    """A statement without its literals; its kind where they can't be told apart.

    None is a text that is too long to be copied for this.
    """
    if sql is None:
        return "…"
    shown = readable(sql) if len(sql) <= _MAX_TEXT_BYTES else None
    if shown is not None:
        return _printable(shown if len(shown) <= _MAX_SHOWN else shown[: _MAX_SHOWN - 1] + "…")
    first = _FIRST_WORD.match(sql[:1000])
    kind = first[1].decode().upper() if first else ""
    return f"{kind} …" if kind in _KINDS else "…"


def _printable(text: str) -> str:
    """Without what would move an operator's terminal: quoted names may hold any character."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


class _Lines:
    """What a tenant may still write to the log."""

    __slots__ = ("left", "since_s", "unsaid")

    def __init__(self, now_s: float) -> None:
        self.left = float(LOG_BURST)
        self.since_s = now_s
        #: refusals without a line since the last one
        self.unsaid = 0


class Violations:
    def __init__(self) -> None:
        self._lines: dict[str, _Lines] = {}
        #: tenant -> what it sent, the longest unseen first
        self._tenants: dict[str, OrderedDict[_Key, _Seen]] = {}
        #: shapes that had to make way since the start or the last reset
        self.dropped = 0

    def record(self, tenant: str, user: str, action: str, verdict: Verdict, statement: str) -> None:
        rows = self._tenants.get(tenant)
        if rows is None:
            rows = self._tenants[tenant] = OrderedDict()
        name = _printable(verdict.object_name[:_MAX_NAME])
        key = _Key(statement, action, verdict.reason, verdict.rule, name, verdict.sqlstate)
        now_us = time.time_ns() // 1000
        seen = rows.get(key)
        if seen is None:
            room = max(LEAST_OF_TENANT, min(MOST_OF_TENANT, MAX_ROWS // len(self._tenants)))
            while len(rows) >= room:
                rows.popitem(last=False)
                self.dropped += 1
            seen = rows[key] = _Seen(now_us)
        else:
            rows.move_to_end(key)
        seen.count += 1
        seen.last_us = now_us
        seen.user = user

    def line(self, tenant: str) -> int | None:
        """Whether a refusal is worth a line of the log: how many of this tenant had none since the last that
        had one; None if this one has none either."""
        now_s = time.monotonic()
        lines = self._lines.get(tenant)
        if lines is None:
            lines = self._lines[tenant] = _Lines(now_s)
        lines.left = min(float(LOG_BURST), lines.left + (now_s - lines.since_s) * LOG_PER_S)
        lines.since_s = now_s
        if lines.left < 1:
            lines.unsaid += 1
            return None
        lines.left -= 1
        unsaid, lines.unsaid = lines.unsaid, 0
        return unsaid

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "tenant": tenant,
                "user": seen.user,
                **key._asdict(),
                "count": seen.count,
                "first_us": seen.first_us,
                "last_us": seen.last_us,
            }
            for tenant, rows in self._tenants.items()
            for key, seen in rows.items()
        ]

    def keep(self, tenants: set[str]) -> None:
        """After a reload: what tenants sent that are gone makes way."""
        for tenant in self._tenants.keys() - tenants:
            del self._tenants[tenant]
        for tenant in self._lines.keys() - tenants:
            del self._lines[tenant]

    def reset(self) -> None:
        self._tenants.clear()
        self.dropped = 0
