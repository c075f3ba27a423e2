"""What PostgreSQL's own dumps say, and what can't be run as it stands there.

Keys of partitioned tables: pg_dump writes the constraint of the partitioned table and that of each partition,
and attaches the second to the first.  PostgreSQL (up to 18 at least) holds no two exclusion constraints for
alike, nor keys WITHOUT OVERLAPS, and refuses that.  Made of the partitioned table whole, the constraint comes
to its partitions by itself; there it is given the name that it had.

Functions that a superuser has said to be LEAKPROOF: those with a body that is parsed are made as the tenant,
who may not say that; it is said when they are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson
from pglast.parser import ParseError, parse_sql_json

from tenant_proxy.lifecycle.sql import ident, literal, qualified

_ONLY: Final = "ALTER TABLE ONLY "
_ATTACH: Final = "ALTER INDEX "

#: (schema, name) of an index, which is that of its constraint
Index = tuple[str, str]


def made_whole(after: Iterable[str]) -> list[str]:
    """Statements of a dump's last section, of which those that PostgreSQL refuses are made otherwise."""
    found = list(after)
    constraints = {key: number for number, sql in enumerate(found) for key in _constraint(sql)}
    attached: dict[Index, Index] = {}
    left_out: set[int] = set()
    for number, sql in enumerate(found):
        for parent, child in _attached(sql):
            if child in constraints:
                attached[child] = parent
                left_out |= {number, constraints[child]}
    if not attached:
        return found
    whole: list[str] = []
    for number, sql in enumerate(found):
        keys = [key for key in _constraint(sql) if key in attached.values() and key not in attached]
        if keys:
            whole.append(sql.replace(_ONLY, "ALTER TABLE ", 1))
            whole += _names(keys[0], attached, {key: _table(found[at]) for key, at in constraints.items()})
        elif number not in left_out:
            whole.append(sql)
    return whole


def leakproof_apart(before: Iterable[str]) -> Iterator[str]:
    """Statements of a dump's first section, where a function's owner follows its definition directly."""
    is_told = False
    for sql in before:
        told = _leakproof_at(sql) if "LEAKPROOF" in sql else None
        if told is not None:
            text = sql.encode()
            yield (text[:told] + text[told + len("LEAKPROOF") :]).decode()
            is_told = True
            continue
        yield sql
        if is_told and (owned := _FUNCTION_OF.match(sql)):
            yield f"{owned['altered']} LEAKPROOF"
            is_told = False


_FUNCTION_OF: Final = re.compile(r"(?P<altered>ALTER FUNCTION .+) OWNER TO \S+$")


def is_leakproof(sql: str) -> bool:
    """One of these, which only a superuser may run, and which runs no code."""
    return sql.startswith("ALTER FUNCTION ") and sql.endswith(" LEAKPROOF")


def _leakproof_at(sql: str) -> int | None:
    for one in _parsed(sql, "CreateFunctionStmt").get("options", ()):
        option = one["DefElem"]
        if option["defname"] == "leakproof" and option["arg"]["Boolean"].get("boolval"):
            place: int = option["location"]
            return place
    return None


def _constraint(sql: str) -> Iterator[Index]:
    """Of a statement that adds one of these."""
    if not sql.startswith(_ONLY) or ("EXCLUDE" not in sql and "WITHOUT OVERLAPS" not in sql):
        return
    body = _parsed(sql)
    for command in body.get("cmds", ()):
        constraint = command["AlterTableCmd"].get("def", {}).get("Constraint", {})
        if constraint.get("contype") == "CONSTR_EXCLUSION" or constraint.get("without_overlaps"):
            yield body["relation"]["schemaname"], constraint["conname"]


def _attached(sql: str) -> Iterator[tuple[Index, Index]]:
    if not sql.startswith(_ATTACH) or "ATTACH PARTITION" not in sql:
        return
    body = _parsed(sql)
    for command in body.get("cmds", ()):
        name = command["AlterTableCmd"].get("def", {}).get("PartitionCmd", {}).get("name")
        if name is not None:
            parent = body["relation"]
            yield (parent["schemaname"], parent["relname"]), (name["schemaname"], name["relname"])


def _table(sql: str) -> str:
    relation = _parsed(sql)["relation"]
    return qualified(relation["schemaname"], relation["relname"])


def _parsed(sql: str, kind: str = "AlterTableStmt") -> dict[str, Any]:
    try:
        (statement,) = orjson.loads(parse_sql_json(sql))["stmts"]
    except (ParseError, ValueError):
        return {}
    body: dict[str, Any] = statement["stmt"].get(kind, {})
    return body


def _names(parent: Index, attached: dict[Index, Index], tables: dict[Index, str]) -> Iterator[str]:
    """Of the partitions' constraints that are this one's, and of theirs."""
    for child, its_parent in attached.items():
        if its_parent == parent:
            yield _RENAME.format(
                table=literal(tables[child]), parent_table=literal(tables[parent]), **_literals(child, parent)
            )
            yield from _names(child, attached, tables)


def _literals(child: Index, parent: Index) -> dict[str, str]:
    return {"name": literal(child[1]), "parent": literal(parent[1]), "quoted": literal(ident(child[1]))}


#: it runs no code but this, and of the tenant's objects has names alone
_RENAME: Final = """DO $tp_named$ DECLARE now pg_catalog.name; BEGIN
    SELECT c.conname INTO now
      FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_constraint p ON p.oid = c.conparentid
     WHERE c.conrelid = {table}::pg_catalog.regclass AND p.conname = {parent}
       AND p.conrelid = {parent_table}::pg_catalog.regclass;
    IF now IS DISTINCT FROM {name} THEN
        EXECUTE pg_catalog.format('ALTER TABLE ONLY %s RENAME CONSTRAINT %I TO %s', {table}, now, {quoted});
    END IF; END $tp_named$"""
