"""Statistics that pg_dump of 18 writes back: pg_restore_relation_stats and pg_restore_attribute_stats.

Their arguments are names and values in turn, in any order: `'schemaname', 'acme', 'relname', 'orders', …`.
PostgreSQL wants the table's owner; whose schema is meant must be said by literals alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tenant_proxy.guard.walk import Body, Walk
from tenant_proxy.model import Effect

FUNCTIONS: Final = frozenset({"pg_restore_relation_stats", "pg_restore_attribute_stats"})

_EFFECTS: Final = int(Effect.WRITES | Effect.KEEPS)


def restores(w: Walk, parts: list[str], body: Body) -> bool:
    """Whether a call is one of these, and surely of the tenant's own; other calls are not for here."""
    if parts[-1] not in FUNCTIONS or parts[:-1] not in ([], ["pg_catalog"]):
        return False
    if {parts[-1], f"pg_catalog.{parts[-1]}"} & w.scope.denied_functions:
        return False
    arguments: Sequence[Mapping[str, Any]] = body.get("args", ())
    if body.get("func_variadic") or len(arguments) % 2:
        return False
    schemas = []
    for name, value in zip(arguments[::2], arguments[1::2], strict=True):
        called = w.constant(name, strict="text")
        if called is None:
            return False
        # the server does not look at the case of letters, and takes the last of several
        if called.lower() == "schemaname":
            schemas.append((w.constant(value, strict="text"), value))
    for schema, value in schemas:
        if schema == "public" and w.scope.public_is_own:
            w.replace_string(value, w.scope.schema)
        elif schema not in w.scope.writable:
            return False
    w.effects |= _EFFECTS
    return bool(schemas)
