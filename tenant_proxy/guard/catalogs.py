"""What names of the system's catalogs and functions are turned to, where other tenants are hidden.

What stands in their place, and for which, is in `tenant_proxy.shims` (docs/decisions/0010-rewriting.md).

A name without a schema means the catalog's relation or function if there is one of that name, whatever
search_path says: a tenant's own `pg_class` is found with its schema only.  Types stay: the row type of a
catalog shows nothing.  So do names in literals ('pg_class'::regclass), which must give the real OIDs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import tenant_proxy.shims.names as shims
from tenant_proxy.guard import names, own_session
from tenant_proxy.guard.functions import CATALOG_RELATIONS
from tenant_proxy.guard.source import VALUES, NotFound, Source, Token
from tenant_proxy.guard.walk import Body, Rule, Walk

#: schemas whose objects are turned to others
SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})

#: which PostgreSQL grants more than SELECT of to everybody, alone of all in these schemas
SETTINGS: Final = "pg_settings"

#: functions of which `x.f` is f(x)
_OF_ONE: Final = frozenset(
    name for name, counts in {**shims.FUNCTIONS, **shims.PUBLIC_FUNCTIONS}.items() if 1 in counts
)


def turns(w: Walk, what: str, location: int) -> bool:
    """Whether names are turned; refuses where they ought to be and can't."""
    scope = w.scope
    if scope.hide_missing:
        w.refuse(
            "catalogs_missing",
            f"permission denied for {what}",
            detail="Policy hides other tenants, and the database lacks what shows a tenant its own.",
            hint='The operator can install them by "tenant-proxy catalog install", or set policy.catalogs.',
            location=location,
            name=what,
        )
    return scope.hides


# --- relations -----------------------------------------------------------------------------------


def relation(w: Walk, parts: list[str], location: int) -> None:
    """A relation of pg_catalog that is read, with or without its schema."""
    name = parts[-1]
    if name == own_session.STATEMENTS:
        own_session.prepared(w, parts, location)
    if name in shims.PLAIN_RELATIONS or (len(parts) == 1 and name in w.shadowed):
        return
    if turns(w, f"relation {name}", location):
        if name not in shims.RELATIONS:
            _unknown(w, name, location)
        _turn(w, parts, len(parts) - 2, name, location)
    elif w.in_view and name == SETTINGS:
        w.refuse(
            "catalog",
            f"permission denied for a view of {name}",
            detail="Everybody may write to it: an UPDATE of the view would go on to it, and set parameters "
            "that the proxy does not see; a LOCK of the view would lock it for all.",
            hint="Read it where it is needed, or use current_setting().",
            location=location,
            name=f"pg_catalog.{name}",
        )


def _turn(w: Walk, parts: list[str], schema: int, name: str, location: int) -> None:
    source = w.tokens
    found = source.name_at(source.character(location), parts)
    if found is None:
        raise NotFound
    token = found[max(schema, 0)]
    source.claimed.add(token.start)
    source.relations.append((token, name, schema >= 0))


def information(w: Walk, parts: list[str], location: int) -> None:
    name = parts[-1]
    if name in shims.INFORMATION_PLAIN or not turns(w, f"relation {name}", location):
        return
    if name not in shims.INFORMATION_RELATIONS:
        _unknown(w, name, location)
    w.rename(parts, location, shims.INFORMATION, part=len(parts) - 2)


def _unknown(w: Walk, name: str, location: int) -> None:
    w.refuse(
        "catalog",
        f"permission denied for relation {name}",
        detail="The guard does not know what it shows of other tenants.",
        hint="The other system catalogs can be read; ask the operator for what is only in this one.",
        location=location,
        name=name,
    )


def column(w: Walk, parts: list[str], location: int) -> None:
    """schema.relation.column."""
    schema, name = parts[-3:-1]
    if not w.scope.hides:
        return
    if schema == "information_schema":
        if name in shims.INFORMATION_RELATIONS:
            w.rename(parts, location, shims.INFORMATION, part=len(parts) - 3)
    elif name in shims.RELATIONS:
        _turn(w, parts, len(parts) - 3, name, location)


def settle(source: Source, start: int, end: int) -> None:
    """Chooses among the schemas that relations of a statement can be read from (`shims.names` says how)."""
    found, source.relations = source.relations, []
    if not found:
        return
    tokens = source.between(start, end)
    system = any(token.name in shims.SYSTEM_COLUMNS for token in tokens)
    seeks = not any(name in shims.LISTED_RELATIONS for _, name, _ in found) or _looks_for_some(tokens)
    for token, name, qualified in found:
        schema = shims.CATALOG
        if system and name in shims.SYSTEM_RELATIONS:
            schema = shims.SYSTEM
        elif not seeks and name in shims.LISTED_RELATIONS:
            schema = shims.LISTING
        written = source.text[token.start : token.end]
        source.replace_token(token, schema if qualified else f"{schema}.{written}")


#: what a column may be compared by with what it is looked for …
_COMPARES: Final = frozenset({"=", "~", "~*", "~~", "in", "like", "any"})
#: … and what may stand between
_BETWEEN: Final = frozenset({"operator", "(", ")", "[", "pg_catalog", ".", "any", "array", *_COMPARES})


def _looks_for_some(tokens: list[Token]) -> bool:
    """Whether one of `shims.POINTS` is compared with literals or parameters; the kinds of tokens decide."""
    for index, token in enumerate(tokens):
        if token.name in shims.POINTS:
            compared = False
            for following in tokens[index + 1 : index + 12]:
                if compared and following.kind in VALUES:
                    return True
                if following.name not in _BETWEEN:
                    break
                compared |= following.name in _COMPARES
    return False


def copied(w: Walk, body: Body) -> bool:
    """COPY relation [(columns)] TO of a catalog, which is a view now, is COPY of a query."""
    target = body["relation"]
    name, schema = target["relname"], target.get("schemaname")
    location = target.get("location", 0)
    if schema == "information_schema":
        if name not in shims.INFORMATION_RELATIONS:
            return False
        turned = shims.INFORMATION
    elif schema in (None, "pg_catalog") and name in shims.RELATIONS:
        turned = shims.CATALOG
    else:
        return False
    if not turns(w, f"relation {name}", location):
        return False
    source = w.tokens
    first = source.index(source.character(location))
    last = first + 2 * (schema is not None)
    tokens = source.tokens
    query = f"{turned}.{name}"
    found = source.name_at(tokens[first].start, [name] if schema is None else [schema, name])
    if found is None or "catalogname" in target:
        raise NotFound
    columns = body.get("attlist")
    if not columns:
        source.edit(tokens[first].start, tokens[last].end, f"(SELECT * FROM {query})")
        return True
    opening, closing = tokens[last + 1], tokens[last + 2 * len(columns) + 1]
    if opening.kind != "ASCII_40" or closing.kind != "ASCII_41":
        raise NotFound
    source.edit(tokens[first].start, opening.end, "(SELECT ")
    source.edit(closing.start, closing.end, f" FROM {query})")
    return True


def shadowing(w: Walk, tag: str, body: Body) -> bool:
    """Walks a statement in which WITH gives names of catalogs another meaning; false if it doesn't."""
    clause = body["withClause"]
    ctes = [item["CommonTableExpr"] for item in clause["ctes"]]
    hidden = CATALOG_RELATIONS.intersection(cte["ctename"] for cte in ctes)
    if not hidden:
        return False
    outer = w.shadowed
    if clause.get("recursive"):
        w.shadowed = outer | hidden
    with w.deeper():
        for cte in ctes:
            w.walk("CommonTableExpr", cte)
            w.shadowed |= hidden & {cte["ctename"]}
        w.walk(tag, {field: value for field, value in body.items() if field != "withClause"})
    w.shadowed = outer
    return True


def _locking(w: Walk, body: Body) -> bool:
    """FOR UPDATE OF names what FROM has named, by its alias."""
    for item in body.get("lockedRels", ()):
        schema = item["RangeVar"].get("schemaname")
        if schema is not None:
            w.check_schema(schema, item["RangeVar"].get("location", 0))
    return True


def rows_of(w: Walk, text: str, location: int) -> None:
    """A literal that names a relation or schema whose rows a function reads (table_to_xml)."""
    if names.is_oid(text):
        w.refuse(
            "function",
            "permission denied for a table by its number",
            detail="It may be anybody's.",
            hint="Write the table's name.",
            location=location,
        )
    if not (w.scope.hides or w.scope.hide_missing):
        return
    parts = names.split_qualified(text) or [text]
    if parts[-1] in CATALOG_RELATIONS or not SCHEMAS.isdisjoint(parts):
        w.refuse(
            "catalog",
            "permission denied for a system catalog in a literal",
            detail="It would show other tenants.",
            hint="Use query_to_xml() with the query that reads it.",
            location=location,
        )


# --- functions --------------------------------------------------------------------------------------


def _is_turned(w: Walk, name: str, count: int) -> bool:
    return count in shims.FUNCTIONS.get(name, ()) or (
        w.scope.public_is_own and count in shims.PUBLIC_FUNCTIONS.get(name, ())
    )


def function(w: Walk, parts: list[str], arguments: Sequence[Mapping[str, Any]], location: int) -> None:
    """A call of what may be a function of pg_catalog."""
    name, count = parts[-1], len(arguments)
    if len(parts) > 1 and parts[-2] != "pg_catalog":
        return
    if count in shims.CHECKED_FUNCTIONS.get(name, ()):
        if not w.scope.hides or _is_named(w, arguments[0]):
            return
    elif not _is_turned(w, name, count) or not turns(w, f"function {name}", location):
        return
    if len(parts) > 1:
        w.rename(parts, location, shims.CATALOG, part=len(parts) - 2)
    else:
        w.rename(parts, location, f"{shims.CATALOG}.{name}")


def _is_named(w: Walk, argument: Mapping[str, Any]) -> bool:
    """Whether an argument is a literal that was judged as the name of an object."""
    node = argument
    while "TypeCast" in node:
        node = node["TypeCast"].get("arg", {})
    if "A_Const" not in node:
        return False
    text = w.constant(argument, strict="regclass")
    return text is not None and not names.is_oid(text)


def attribute(w: Walk, name: str, location: int, *, sure: bool = False) -> None:
    """x.f, which calls f(x); `sure` if x may be something else than what stands in FROM.

    Of what stands there only a function's result can be no row, and so an argument of these functions.
    """
    if name in _OF_ONE and _is_turned(w, name, 1) and (w.scope.hides or w.scope.hide_missing):
        if sure or w.in_code:
            refuse_attribute(w, name, location)
        w.attributes.append((name, location))
    elif w.scope.hides and 1 in shims.CHECKED_FUNCTIONS.get(name, ()):
        # in code x is a row far more often, and PL/pgSQL calls no function so on its variables
        if sure:
            refuse_attribute(w, name, location)
        w.attributes.append((name, location))


def refuse_attribute(w: Walk, name: str, location: int) -> None:
    w.refuse(
        "function",
        f"permission denied for function {name}",
        detail="The proxy looks at calls of it, or turns them to a function of its own, and can't here.",
        hint=f"Write it as {name}(…).",
        location=location,
        name=name,
    )


def _value_function(w: Walk, body: Body) -> bool:
    """CURRENT_SCHEMA without parentheses."""
    if body["op"] == "SVFOP_CURRENT_SCHEMA" and _is_turned(w, "current_schema", 0):
        location = body.get("location", 0)
        if turns(w, "function current_schema", location):
            w.rename(["current_schema"], location, f"{shims.CATALOG}.current_schema()")
    return True


RULES: Final[Mapping[str, Rule]] = {
    "LockingClause": _locking,
    "SQLValueFunction": _value_function,
}
