"""What a statement names: for people who want to know what the guard saw, not for its verdict.

The judge does not collect names, as most statements would pay for it.  Here a tree is gone through
once more, without rules; a name that is missed here is missed by the list only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from tenant_proxy.guard.functions import FUNCTIONS, REG_TYPES
from tenant_proxy.guard.names import split_qualified
from tenant_proxy.guard.walk import NOWHERE, strings

Node = Mapping[str, Any]


class Named(NamedTuple):
    #: "relation", "function", "type", "operator", "collation", "role", "setting", "schema", "channel" …
    kind: str
    #: with its schema, where it was given
    name: str
    #: byte offset into the statement text's UTF-8, or NOWHERE
    location: int


#: nodes that are a name: the kind, and the field with the list of its parts
_LISTS: Final[Mapping[str, tuple[str, str]]] = {
    "FuncCall": ("function", "funcname"),
    "ObjectWithArgs": ("function", "objname"),
    "CreateFunctionStmt": ("function", "funcname"),
    "CreateTrigStmt": ("function", "funcname"),
    "CollateClause": ("collation", "collname"),
    "CreateEnumStmt": ("type", "typeName"),
    "CreateRangeStmt": ("type", "typeName"),
    "CreateDomainStmt": ("type", "domainname"),
}

#: nodes that have a name in one field
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "ListenStmt": ("channel", "conditionname"),
    "UnlistenStmt": ("channel", "conditionname"),
    "NotifyStmt": ("channel", "conditionname"),
    "VariableSetStmt": ("setting", "name"),
    "VariableShowStmt": ("setting", "name"),
    "CreateSchemaStmt": ("schema", "schemaname"),
    "RoleSpec": ("role", "rolename"),
    "CreateExtensionStmt": ("extension", "extname"),
    "CreateRoleStmt": ("role", "role"),
}

#: DropStmt and CommentStmt: what their objects are; relations, if they are none of these
_DROPPED: Final[Mapping[str, str]] = {
    "OBJECT_SCHEMA": "schema",
    "OBJECT_TYPE": "type",
    "OBJECT_DOMAIN": "type",
    "OBJECT_FUNCTION": "function",
    "OBJECT_PROCEDURE": "function",
    "OBJECT_ROLE": "role",
    "OBJECT_EXTENSION": "extension",
}


def named(tree: Node) -> list[Named]:
    """The objects that a statement's tree names, in the order of the text, each once."""
    found = dict.fromkeys(_named(tree))
    return sorted(found, key=lambda one: one.location if one.location != NOWHERE else 1 << 62)


def _named(tree: Node) -> Iterator[Named]:
    stack: list[tuple[str, Any]] = list(tree.items())
    hidden = set(_names_of_ctes(tree))
    while stack:
        tag, body = stack.pop()
        if isinstance(body, list):
            stack += ((tag, item) for item in body)
            continue
        if not isinstance(body, dict):
            continue
        yield from _of(tag, body, hidden)
        stack += body.items()


def _names_of_ctes(tree: Node) -> Iterator[str]:
    stack: list[Any] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if "CommonTableExpr" in node:
                yield node["CommonTableExpr"].get("ctename", "")
            stack += node.values()
        elif isinstance(node, list):
            stack += node


def _of(tag: str, body: dict[str, Any], hidden: set[str]) -> Iterator[Named]:
    location = body.get("location", NOWHERE)
    # the tree has a RangeVar either as a node of a list or as the field of another node
    if "relname" in body:
        schema = body.get("schemaname")
        if schema is not None or body["relname"] not in hidden:
            yield Named("relation", _dotted([schema, body["relname"]]), body.get("location", 0))
    if tag in _LISTS:
        kind, key = _LISTS[tag]
        if body.get(key):
            yield Named(kind, _dotted(strings(body[key])), location)
    if tag in _WORDS:
        kind, key = _WORDS[tag]
        if body.get(key):
            yield Named(kind, str(body[key]), location)
    if "names" in body and tag in ("TypeName", "typeName", "returnType", "argType"):
        parts = strings(body["names"])
        if parts[0] != "pg_catalog":  # how the grammar spells int and its like
            yield Named("type", _dotted(parts), body.get("location", 0))
    if tag == "A_Expr" and len(body.get("name", ())) > 1:
        yield Named("operator", _dotted(strings(body["name"])), location)
    if "newschema" in body:
        yield Named("schema", body["newschema"], NOWHERE)
    if tag in ("DropStmt", "CommentStmt"):
        yield from _dropped(body)
    if tag == "TypeCast":
        yield from _literal(REG_TYPES.get(strings(body["typeName"]["names"])[-1], ""), body.get("arg"))
    if tag == "FuncCall":
        yield from _arguments(body)


def _dropped(body: dict[str, Any]) -> Iterator[Named]:
    kind = _DROPPED.get(body.get("removeType") or body.get("objtype", ""), "relation")
    for item in body.get("objects") or [body.get("object", {})]:
        if "List" in item:
            yield Named(kind, _dotted(strings(item["List"].get("items", ()))), NOWHERE)
        elif "String" in item:
            yield Named(kind, item["String"].get("sval", ""), NOWHERE)


def _arguments(body: dict[str, Any]) -> Iterator[Named]:
    """Literals that a function takes for names: nextval('x.y'), set_config('role', …)."""
    parts = strings(body["funcname"])
    fact = FUNCTIONS.get(parts[-1]) if len(parts) == 1 or parts[-2] == "pg_catalog" else None
    if fact is None:
        return
    arguments = body.get("args", [])
    if fact.sets and arguments:
        text, location = _text(arguments[0])
        if text:
            yield Named("setting", text, location)
    for argument in fact.names.get(len(arguments), ()):
        yield from _literal(argument.kind, arguments[argument.position])


def _literal(kind: str, node: Node | None) -> Iterator[Named]:
    if not kind or not node:
        return
    text, location = _text(node)
    parts = split_qualified(text) if text else None
    if parts:
        yield Named(kind, _dotted(parts), location)


def _text(node: Node) -> tuple[str, int]:
    while "TypeCast" in node:
        node = node["TypeCast"].get("arg", {})
    constant = node.get("A_Const", {})
    return str(constant.get("sval", {}).get("sval", "")), constant.get("location", 0)


def _dotted(parts: list[Any]) -> str:
    return ".".join(str(part) for part in parts if part)
