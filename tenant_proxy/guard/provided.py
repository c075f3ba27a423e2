"""IF NOT EXISTS and IF EXISTS of what the platform makes: extensions, and schemas.

Migrations ask for them whether they are there or not, and are content with a notice.
"""

from __future__ import annotations

from typing import Final

from tenant_proxy.guard.source import quoted_string
from tenant_proxy.guard.walk import Body, Walk

#: the server's own words where the extension is there; else those of a refusal
_EXTENSION: Final = """BEGIN
IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) {name}) THEN
RAISE NOTICE USING MESSAGE = {there}, ERRCODE = '42710';
ELSE
RAISE EXCEPTION USING MESSAGE = {refused}, ERRCODE = '42501', HINT = {hint};
END IF;
END"""


def create_extension(w: Walk, body: Body) -> bool:
    """CREATE EXTENSION IF NOT EXISTS: whether it exists is seen when it runs, and nothing is made."""
    if not body.get("if_not_exists"):
        return False
    name = body["extname"]
    w.exact = True
    _do(
        w,
        _EXTENSION.format(
            name=quoted_string(name),
            there=quoted_string(f'extension "{name}" already exists, skipping'),
            refused=quoted_string(f'permission denied to create extension "{name}"'),
            hint=quoted_string("Ask the operator to install it."),
        ),
    )
    return True


def create_schema(w: Walk, body: Body) -> bool:
    """CREATE SCHEMA IF NOT EXISTS of the tenant's own: it is there."""
    if (
        not body.get("if_not_exists")
        or body.get("schemaname") != w.scope.schema
        or body.keys() & {"schemaElts", "authrole"}
    ):
        return False
    only_notice(w, f'schema "{w.scope.schema}" already exists, skipping', "42P06")
    return True


#: the server's own words, whether it is another's or nobody's; another's does not exist where they are hidden
_MISSING: Final = "RAISE NOTICE USING MESSAGE = {missing}, ERRCODE = '00000';"
_OWNED: Final = """IF EXISTS (
SELECT FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) {name}) THEN
RAISE EXCEPTION USING MESSAGE = {owned}, ERRCODE = '42501';
END IF;
"""


def drop_schema(w: Walk, body: Body) -> bool:
    """DROP SCHEMA IF EXISTS of schemas that are not the tenant's: nothing is there that it could drop."""
    schemas = [node["String"].get("sval", "") for node in body["objects"]]
    scope = w.scope
    if not body.get("missing_ok") or not scope.readable.isdisjoint(schemas) or "public" in schemas:
        return False
    w.exact = True
    steps = [
        (_MISSING if scope.hides else _OWNED + _MISSING).format(
            name=quoted_string(name),
            owned=quoted_string(f"must be owner of schema {name}"),
            missing=quoted_string(f'schema "{name}" does not exist, skipping'),
        )
        for name in schemas
    ]
    _do(w, "\n".join(("BEGIN", *steps, "END")))
    return True


def only_notice(w: Walk, message: str, sqlstate: str) -> None:
    """Lets the statement do nothing but say so."""
    w.exact = True
    _do(w, f"BEGIN RAISE NOTICE USING MESSAGE = {quoted_string(message)}, ERRCODE = '{sqlstate}'; END")


def _do(w: Walk, body: str) -> None:
    w.tokens.instead = f"DO {quoted_string(body)}"
