"""Which statements of a dump run no code of a tenant's; all others may, also those that nobody thought of.

PostgreSQL runs a tenant's code not only for rows.  A text in an expression is read as the type that it is of
when the statement is parsed: `'(3,x)'::pair` in a view, a policy, a WHEN or a DEFAULT calls the checks of
the domains in `pair`.  Bounds of partitions are computed; keys are compared through casts.  So what has an
expression in it is never harmless, whatever it defines, and what the parser does not know isn't either.
Nor is what has PostgreSQL look at a key by which a table is partitioned (triggers go to the partitions), or
at an index's predicate: it computes what is constant in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
from pglast.parser import ParseError, parse_sql_json

Json = dict[str, Any]

#: kinds that have names and words in them, and no expressions
_PLAIN: Final = frozenset(
    {
        "AlterDefaultPrivilegesStmt", "AlterObjectDependsStmt", "AlterOpFamilyStmt", "AlterOwnerStmt",
        "AlterSeqStmt", "AlterStatsStmt", "AlterTSConfigurationStmt",
        "CommentStmt", "CompositeTypeStmt",
        "CreateCastStmt", "CreateConversionStmt", "CreateEnumStmt", "CreateOpClassStmt",
        "CreateOpFamilyStmt", "CreateRangeStmt", "CreateSeqStmt", "GrantStmt", "RefreshMatViewStmt",
        "SecLabelStmt", "VariableSetStmt",
    }
)  # fmt: skip
_PLAIN_COMMANDS: Final = frozenset(
    {
        "AT_AlterColumnGenericOptions", "AT_ChangeOwner", "AT_ClusterOn", "AT_DisableRowSecurity",
        "AT_DisableRule", "AT_EnableAlwaysRule", "AT_EnableReplicaRule", "AT_EnableRowSecurity",
        "AT_EnableRule", "AT_ForceRowSecurity", "AT_GenericOptions", "AT_NoForceRowSecurity",
        "AT_ResetOptions", "AT_SetCompression", "AT_SetOptions", "AT_SetStatistics", "AT_SetStorage",
    }
)  # fmt: skip
_PLAIN_CALLS: Final = (["pg_catalog", "setval"], ["pg_catalog", "lo_create"], ["pg_catalog", "lo_put"])
#: languages of which only a superuser makes functions, who has made these
_TRUSTED_BY: Final = ("c", "internal")


def runs_code(sql: str) -> bool:
    """Whether a statement may run what its objects' owner has defined."""
    kind, body = _parsed(sql)
    match kind:
        case "AlterTableStmt":
            return not all(_is_plain_command(one["AlterTableCmd"]) for one in body["cmds"])
        case "CreateFunctionStmt":
            return _language(body) not in _TRUSTED_BY and (
                "sql_body" in body
                or any("defexpr" in one["FunctionParameter"] for one in body.get("parameters", ()))
            )
        case "CreateForeignTableStmt":
            base = body["base"]
            return "partbound" in base or not all(map(_is_bare_column, base.get("tableElts", ())))
        case "DefineStmt":
            # the first state of an aggregate is a text that is read as the state's type
            return bool(body["kind"] == "OBJECT_AGGREGATE")
        case "IndexStmt":
            # it is built as the table's owner
            return "whereClause" in body or any("expr" in one["IndexElem"] for one in body["indexParams"])
        case "CreateStatsStmt":
            return any("expr" in one["StatsElem"] for one in body["exprs"])
        case "CreateSchemaStmt":
            return "schemaElts" in body
        case "SelectStmt":
            return not _is_plain_call(body)
    return kind not in _PLAIN


def is_plain(sql: str) -> bool:
    """Whether a statement may run with SET ROLE to the owner and no more around it: one that runs no code,
    or a table whose columns and expressions know nothing but PostgreSQL's own types, functions and operators.
    Expressions are not computed where no rows are; the search_path is to be empty.
    """
    kind, body = _parsed(sql)
    if kind == "AlterTableStmt" and all(map(_is_next_value, body["cmds"])):
        return True
    if kind != "CreateStmt":
        return not runs_code(sql)
    return not set(body) - _OF_PLAIN_TABLES and all(map(_is_plain_element, body.get("tableElts", ())))


def _is_next_value(command: Json) -> bool:
    """A column's DEFAULT that is a sequence's next value."""
    call = command["AlterTableCmd"].get("def", {}).get("FuncCall", {})
    return (
        command["AlterTableCmd"]["subtype"] == "AT_ColumnDefault"
        and [one["String"]["sval"] for one in call.get("funcname", ())] in _NEXT_VALUE
        and _is_plain_expression(call)
    )


_NEXT_VALUE: Final = (["nextval"], ["pg_catalog", "nextval"])
_OF_PLAIN_TABLES: Final = frozenset({"relation", "tableElts", "options", "oncommit"})
_OF_PLAIN_COLUMNS: Final = frozenset(
    {"colname", "typeName", "collClause", "compression", "storage_name", "constraints", "is_local"}
    | {"location"}
)


def _is_plain_element(element: Json) -> bool:
    if "Constraint" in element:
        return _is_plain_constraint(element)
    column = element.get("ColumnDef", {"": None})
    return (
        not set(column) - _OF_PLAIN_COLUMNS
        and _is_own_of_server(column["typeName"]["names"])
        and _is_own_of_server(column.get("collClause", {}).get("collname", ()))
        and all(map(_is_plain_constraint, column.get("constraints", ())))
    )


def _is_plain_constraint(element: Json) -> bool:
    constraint = element["Constraint"]
    match constraint["contype"]:
        case "CONSTR_NOTNULL" | "CONSTR_NULL" | "CONSTR_IDENTITY" | "CONSTR_FOREIGN":
            return True
        case "CONSTR_PRIMARY" | "CONSTR_UNIQUE":
            return "where_clause" not in constraint
        case "CONSTR_DEFAULT" | "CONSTR_CHECK":
            return _is_plain_expression(constraint["raw_expr"])
    return False


#: nodes of expressions -> the key of the names in them that are looked up
_PLAIN_NODES: Final = {
    "A_ArrayExpr": "", "A_Const": "", "A_Expr": "name", "BoolExpr": "", "BooleanTest": "", "CaseExpr": "",
    "CaseWhen": "", "CoalesceExpr": "", "ColumnRef": "", "FuncCall": "funcname", "Integer": "", "List": "",
    "MinMaxExpr": "", "NullTest": "", "SQLValueFunction": "", "String": "", "TypeCast": "",
}  # fmt: skip


def _is_plain_expression(node: Any) -> bool:
    if isinstance(node, list):
        return all(map(_is_plain_expression, node))
    if not isinstance(node, dict):
        return True
    for key, value in node.items():
        if key == "typeName":
            if not _is_own_of_server(value["names"]):
                return False
        elif key[:1].isupper():
            if key not in _PLAIN_NODES or not _is_own_of_server(value.get(_PLAIN_NODES[key], ())):
                return False
            if not _is_plain_expression(value):
                return False
        elif not _is_plain_expression(value):
            return False
    return True


def _is_own_of_server(names: Iterable[Json]) -> bool:
    """pg_dump writes all others with their schema."""
    found = [one["String"]["sval"] for one in names]
    return len(found) < 2 or (len(found) == 2 and found[0] == "pg_catalog")


def late_last(found: Iterable[str]) -> tuple[list[str], list[str]]:
    """Apart: what could put code of the tenant's off to the end of a transaction, with what is said of it
    directly behind.
    """
    rest: list[str] = []
    late: list[str] = []
    follows = False
    for sql in found:
        follows = _fires_later(sql) or (follows and _is_of_triggers(sql))
        (late if follows else rest).append(sql)
    return rest, late


def _fires_later(sql: str) -> bool:
    kind, body = _parsed(sql)
    if kind == "CreateTrigStmt":
        return "deferrable" in body
    return kind == "AlterTableStmt" and any(
        one["AlterTableCmd"].get("def", {}).get("Constraint", {}).get("contype") == "CONSTR_EXCLUSION"
        and "deferrable" in one["AlterTableCmd"]["def"]["Constraint"]
        for one in body["cmds"]
    )


def _is_of_triggers(sql: str) -> bool:
    kind, body = _parsed(sql)
    if kind == "CommentStmt":
        return body["objtype"] in ("OBJECT_TRIGGER", "OBJECT_TABCONSTRAINT")
    return kind == "AlterTableStmt" and all(
        one["AlterTableCmd"]["subtype"].endswith("Trig") for one in body["cmds"]
    )


def _parsed(sql: str) -> tuple[str, Json]:
    """The kind of a statement and what is in it; "" of what is none, several, or newer than the parser."""
    try:
        found = orjson.loads(parse_sql_json(sql)).get("stmts", ())
    except (ParseError, orjson.JSONDecodeError):
        return "", {}
    if len(found) != 1:
        return "", {}
    ((kind, body),) = found[0]["stmt"].items()
    return kind, body


def _language(function: Json) -> str:
    for one in function.get("options", ()):
        if one["DefElem"]["defname"] == "language":
            return str(one["DefElem"]["arg"]["String"]["sval"]).lower()
    return ""


def _is_plain_command(command: Json) -> bool:
    """Keys of columns are as their indexes, which are built as the table's owner."""
    if command["subtype"] != "AT_AddConstraint":
        return command["subtype"] in _PLAIN_COMMANDS
    constraint = command["def"]["Constraint"]
    columns = [one["List"]["items"][0]["IndexElem"] for one in constraint.get("exclusions", ())]
    return (
        constraint["contype"] in ("CONSTR_PRIMARY", "CONSTR_UNIQUE", "CONSTR_EXCLUSION")
        and "where_clause" not in constraint
        and not any("expr" in one for one in columns)
    )


def _is_bare_column(element: Json) -> bool:
    """Its name and type, and whether it may be null."""
    column = element.get("ColumnDef")
    return column is not None and all(
        one["Constraint"]["contype"] in ("CONSTR_NOTNULL", "CONSTR_NULL")
        for one in column.get("constraints", ())
    )


def _is_plain_call(select: Json) -> bool:
    """`SELECT pg_catalog.setval('name', 1, true)` and the like, and nothing else."""
    if set(select) - {"targetList", "limitOption", "op"} or len(select["targetList"]) != 1:
        return False
    call = select["targetList"][0]["ResTarget"]["val"].get("FuncCall", {})
    names = [one["String"]["sval"] for one in call.get("funcname", ())]
    return names in _PLAIN_CALLS and all("A_Const" in one for one in call["args"])
