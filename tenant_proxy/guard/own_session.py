"""What a statement asks of its session (process id, prepared statements), and of sessions by their ids.

In transaction mode a session is a client of the proxy, and its backend is another from one transaction to
the next: the process id is the one that the client was greeted with, prepared statements go by the client's
names, and who is to be ended is a client.  `GuardScope.session` says what they are; the verdict that is kept
for a text says only `Effect.SELF`, and the text is judged again for the client that sends it.  In session
mode, and in code, the server answers as always (docs/decisions/0018-sessions-are-clients.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import tenant_proxy.shims.names as shims
from tenant_proxy.guard.source import NotFound, Source, Token, quoted_string
from tenant_proxy.guard.walk import Walk
from tenant_proxy.model import Effect

_SELF: Final = int(Effect.SELF)

PID: Final = "pg_backend_pid"
#: functions that are given process ids of sessions
SIGNALS: Final = frozenset({"pg_terminate_backend", "pg_cancel_backend"})
STATEMENTS: Final = "pg_prepared_statements"

#: functions that are given process ids of backends, and answer with such
_GIVEN_PIDS: Final = frozenset(
    {"pg_blocking_pids", "pg_safe_snapshot_blocking_pids", "pg_isolation_test_session_is_blocked"}
)
#: relations that show process ids of backends: beside them the session's is its backend's of the moment, so
#: that the two can be compared
_WITH_PIDS: Final = frozenset({"pg_locks", "pg_prepared_xacts"})

#: statements that run once and are not stored
_FLEETING: Final = frozenset(
    {
        "SelectStmt",
        "InsertStmt",
        "UpdateStmt",
        "DeleteStmt",
        "MergeStmt",
        "ExplainStmt",
        "DeclareCursorStmt",
        "CopyStmt",
    }
)


def _is_plain(w: Walk, parts: Sequence[str]) -> bool:
    """Whether it is the system's, and stands in the text itself."""
    in_code = w.in_code or w.here is not w.text
    return w.scope.hides and not in_code and (len(parts) == 1 or parts[-2] == "pg_catalog")


def called(w: Walk, parts: list[str], location: int) -> bool:
    """A call of one of the functions; true if it stays as it is, but for what `settle` does."""
    name = parts[-1]
    if name in SIGNALS:
        allowed = w.scope.allowed_functions
        if name in allowed or ".".join(parts[-2:]) in allowed:
            # the operator wants the server's own
            return True
    elif name in _GIVEN_PIDS:
        w.tokens.own.append((name, []))
        return False
    elif name != PID:
        return False
    if _is_plain(w, parts):
        w.tokens.own.append((name, _tokens(w.tokens, parts, location)))
    return name == PID


def prepared(w: Walk, parts: list[str], location: int) -> None:
    """pg_prepared_statements in FROM."""
    if _is_plain(w, parts) and STATEMENTS not in w.shadowed:
        w.tokens.own.append((STATEMENTS, _tokens(w.tokens, parts, location)))


def _tokens(source: Source, parts: Sequence[str], location: int) -> list[Token]:
    found = source.name_at(source.character(location), parts)
    if found is None:
        raise NotFound
    return found


def settle(w: Walk, source: Source, statement: Mapping[str, Any]) -> None:
    """At the end of a statement, before it is chosen what its relations are read from."""
    own, source.own = source.own, []
    if not _FLEETING.issuperset(statement["stmt"]):
        return
    beside_pids = any(name in _GIVEN_PIDS for name, _ in own) or any(
        name in _WITH_PIDS or name.startswith("pg_stat_") for _, name, _ in source.relations
    )
    session = w.scope.session
    for name, tokens in own:
        if not tokens or (name == PID and beside_pids):
            continue
        w.effects |= _SELF
        if session is None:
            continue
        if name == STATEMENTS:
            text = f"{shims.CATALOG}.{STATEMENTS}({_arrays(session.prepared())})"
            source.edit(tokens[0].start, tokens[-1].end, text)
            continue
        opening = source.tokens[source.index(tokens[-1].end)]
        if opening.kind != "ASCII_40":
            raise NotFound
        if name == PID:
            source.edit(tokens[0].start, tokens[-1].end, f"{shims.CATALOG}.{PID}")
            source.edit(opening.start, opening.end, f"({session.pid}")
        else:
            source.edit(opening.start, opening.end, f"('{session.pid}'::pg_catalog.text, ")


def _arrays(statements: Sequence[tuple[str, str, str, int]]) -> str:
    """Names on the server, names, texts, and how many microseconds ago they were prepared."""
    columns = list(zip(*statements, strict=True)) or [(), (), (), ()]
    arrays = [
        f"ARRAY[{', '.join(quoted_string(text) for text in column)}]::pg_catalog.text[]"
        for column in columns[:3]
    ]
    return ", ".join((*arrays, f"ARRAY[{', '.join(map(str, columns[3]))}]::pg_catalog.int8[]"))
