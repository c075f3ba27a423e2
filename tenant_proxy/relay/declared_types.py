"""Whose the types are that clients declare parameters to be of (relay.declared).

A type gets into another schema by ALTER TYPE … SET SCHEMA alone, which takes it no further than to one that
its tenant may write to, and numbers are used again after four billion others: what is known stays known.
"""

from __future__ import annotations

import struct
from typing import Final

from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.source import quoted_string
from tenant_proxy.settings_policy import TEMP_SCHEMA

#: of one scope; when there are more, all are asked for again
MAX_KNOWN: Final = 10_000
#: of one Parse, as many as the engine gives at most; it gives one more if there are more
MAX_TYPES: Final = 64
#: questions that fail one after the other, as by a time-out, before a client is told
MAX_FAILURES: Final = 3


class DeclaredTypes:
    """What a worker knows of types, by the rules under which they were asked for."""

    def __init__(self) -> None:
        #: scope -> numbers of types that its statements may use
        self._known: dict[int, set[int]] = {}
        #: client -> what its server is asked for
        self._asked: dict[int, tuple[int, frozenset[int]]] = {}
        #: client -> questions without an answer
        self._failures: dict[int, int] = {}
        #: clients that have declared another's
        self._refused: set[int] = set()

    def unknown(self, scope: int, types: bytes) -> frozenset[int]:
        """Those of a Parse, of which each is given once, that nobody has asked for yet."""
        return frozenset(oid for (oid,) in struct.iter_unpack("!I", types)) - self._known.get(scope, set())

    def asked(self, client: int, scope: int, oids: frozenset[int]) -> None:
        self._asked[client] = scope, oids

    def answered(self, client: int, found: int | None) -> None:
        """How many are another's; None: an error has come instead."""
        scope, oids = self._asked.pop(client, (0, frozenset[int]()))
        if found is None:
            self._failures[client] = self._failures.get(client, 0) + 1
            return
        self._failures.pop(client, None)
        if found:
            self._refused.add(client)
            return
        known = self._known.setdefault(scope, set())
        if len(known) + len(oids) > MAX_KNOWN:
            known.clear()
        known |= oids

    def is_refused(self, client: int) -> bool:
        """Whether the last question has found another's."""
        if client not in self._refused:
            return False
        self._refused.remove(client)
        return True

    def is_hopeless(self, client: int) -> bool:
        if self._failures.get(client, 0) < MAX_FAILURES:
            return False
        del self._failures[client]
        return True

    def forget(self, client: int) -> None:
        self._asked.pop(client, None)
        self._failures.pop(client, None)
        self._refused.discard(client)


def question(scope: GuardScope, oids: frozenset[int]) -> str:
    """A query whose rows are the types that statements of the scope may not use.

    Those of schemas that they may name; and those that they find without a schema, as by the path that the
    operator has given the role: types of extensions stand in what really is `public`, too.
    """
    numbers = ", ".join(map(str, sorted(oids)))
    schemas = ", ".join(quoted_string(name) for name in sorted(scope.readable - {TEMP_SCHEMA}))
    return (
        "SELECT FROM pg_catalog.pg_type t"
        f" WHERE t.oid OPERATOR(pg_catalog.=) ANY (ARRAY[{numbers}]::pg_catalog.oid[])"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n"
        " WHERE n.oid OPERATOR(pg_catalog.=) t.typnamespace AND n.nspname OPERATOR(pg_catalog.=) ANY"
        f" (ARRAY[{schemas}]::pg_catalog.name[] OPERATOR(pg_catalog.||) pg_catalog.current_schemas(true)))"
        " AND t.typnamespace OPERATOR(pg_catalog.<>) pg_catalog.pg_my_temp_schema()"
    )
