"""Where `public` is the tenant's own schema: statements about schema `public` itself, as dumps have them.

Names in it are turned where they are judged (`Walk.check_schema`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tenant_proxy.guard.provided import only_notice
from tenant_proxy.guard.source import quoted_name, quoted_string
from tenant_proxy.guard.walk import NOWHERE, Body, Walk, strings

PUBLIC: Final = "public"
#: types whose input is a name
NAMES: Final = frozenset({"regclass", "regtype"})

#: what a name in it begins with, perhaps behind that of a database
_OF_PUBLIC: Final = """'^((?:[^."]+|"(?:[^"]|"")+")[.])?(?:public|"public")[.]'"""
#: … and a name in what is really `public`, as it is shown
_OF_ALL: Final = """'^((?:[^."]+|"(?:[^"]|"")+")[.])?(?:pg_public|"pg_public")[.]'"""
_NESTING: Final = {"ASCII_41": 1, "ASCII_40": -1}


def create_schema(w: Walk, body: Body) -> bool:
    """CREATE SCHEMA [IF NOT EXISTS] public: it is there."""
    if (
        not w.scope.public_is_own
        or body.get("schemaname") != PUBLIC
        or body.keys() & {"schemaElts", "authrole"}
    ):
        return False
    w.exact = True
    if not body.get("if_not_exists"):
        w.refuse(
            "schema_exists",
            'schema "public" already exists',
            sqlstate="42P06",
            hint="It is the tenant's own schema, which the platform has made.",
        )
    only_notice(w, 'schema "public" already exists, skipping', "42P06")
    return True


def grant(w: Walk, body: Body) -> bool:
    """GRANT and REVOKE … ON SCHEMA public.

    To PUBLIC they would open the schema to other tenants' roles, so that does nothing.
    """
    if not w.scope.public_is_own or strings(body.get("objects", ())) != [PUBLIC]:
        return False
    for role in body.get("grantees", ()):
        w.walk_node(role)
    if "grantor" in body:
        w.walk("RoleSpec", body["grantor"])
    if any(role["RoleSpec"]["roletype"] == "ROLESPEC_PUBLIC" for role in body.get("grantees", ())):
        only_notice(w, 'privileges of PUBLIC on schema "public" are left as they are', "00000")
    else:
        w.check_schema(PUBLIC, NOWHERE, write=True)
    return True


def set_argument(w: Walk, argument: Mapping[str, Any]) -> None:
    """`public` as an argument of SET search_path or SET SCHEMA, as a word or a string."""
    source = w.tokens
    at = source.character(argument["A_Const"].get("location", 0))
    found = source.name_at(at, [PUBLIC])
    if found is not None:
        source.replace_token(found[0], quoted_name(w.scope.schema))
    else:
        source.replace_token(source.string_at(at), quoted_string(w.scope.schema))


def computed_name(w: Walk, body: Body) -> None:
    """`(schema || '.' || name)::regclass`, as TypeORM asks, where the catalogs have said `public`.

    Only what `||` makes is text for certain, and only between parentheses is it clear where it begins.
    Types of extensions are in what the catalogs call `pg_public`; relations there go by no name.
    """
    argument = body["arg"].get("A_Expr")
    if (
        w.in_code
        or argument is None
        or strings(argument["name"]) != ["||"]
        or w.constant(body["arg"]) is not None
    ):
        return
    source = w.tokens
    at = source.index(source.character(body.get("location", 0)))
    opening, depth = at - 1, 0
    while opening >= 0:
        depth += _NESTING.get(source.tokens[opening].kind, 0)
        if depth == 0:
            break
        opening -= 1
    if source.tokens[at].kind != "TYPECAST" or opening < 0 or opening == at - 1:
        return
    first, last = source.tokens[opening], source.tokens[at - 1]
    own = "\\1" + quoted_name(w.scope.schema).replace("\\", "\\\\") + "."
    opened, closed = "(pg_catalog.regexp_replace(", f", {_OF_PUBLIC}, {quoted_string(own)})"
    if strings(body["typeName"]["names"])[-1] == "regtype":
        opened += "pg_catalog.regexp_replace("
        closed = f"{closed}, {_OF_ALL}, '\\1public.')"
    source.edit(first.start, first.end, opened)
    source.edit(last.start, last.end, closed + ")")
