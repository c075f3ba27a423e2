"""Rules for code inside statements: DO, CREATE FUNCTION, CREATE PROCEDURE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tenant_proxy.guard import plpgsql, settings
from tenant_proxy.guard.expressions import reference
from tenant_proxy.guard.second_reading import Around, Parameter
from tenant_proxy.guard.walk import NOWHERE, Body, Walk, strings
from tenant_proxy.model import Effect

#: languages whose bodies the guard can read
_READABLE: Final = {"sql", "plpgsql"}


def _language(options: Sequence[Any], default: str) -> str:
    for item in options:
        element = item["DefElem"]
        if element["defname"] == "language":
            # the grammar folds an unquoted name; a quoted one is compared as it is
            return str(element["arg"]["String"].get("sval", ""))
    return default


def _bodies(w: Walk, options: Sequence[Any]) -> list[tuple[list[str], int]]:
    """The texts of each AS clause, and where they stand."""
    w.exact = True
    found = []
    for item in options:
        element = item["DefElem"]
        if element["defname"] == "as":
            argument = element["arg"]
            items = argument["List"]["items"] if "List" in argument else [argument]
            location = element.get("arg_location", NOWHERE)
            if location < 0:
                location = element.get("location", NOWHERE)
            found.append((strings(items), location))
    return found


def _body(w: Walk, language: str, options: Sequence[Any], what: str, around: Around) -> None:
    """Judges the code of a function or DO block; its effects are those of who calls it."""
    if language not in _READABLE:
        w.refuse(
            "language",
            f"permission denied for language {language}",
            detail="The guard can read code in SQL and PL/pgSQL only.",
            hint="Write it in SQL or PL/pgSQL.",
            name=language,
        )
    bodies = _bodies(w, options)
    if len(bodies) > 1 or any(len(texts) != 1 for texts, _ in bodies):
        w.refuse("syntax", "conflicting or redundant options", sqlstate="42601")
    outside, w.in_code = w.in_code, True
    for texts, location in bodies:
        literal = w.tokens.character(location) if location >= 0 else NOWHERE
        if language == "sql":
            w.nested(texts[0], location, f"the body of a {what}", literal=literal)
        else:
            with w.inside(texts[0], literal=literal):
                plpgsql.judge(w, texts[0], location, around)
    w.in_code = outside


def do_block(w: Walk, body: Body) -> bool:
    """Its code runs now, and leaves in the session what it sets, prepares and makes there."""
    stored, w.stored = w.stored, 0
    settings_before, w.all_settings = w.all_settings, []
    _body(w, _language(body["args"], "plpgsql"), body["args"], "DO block", Around("inline_code_block"))
    if w.stored & _KEPT:
        w.pin("code")
    if w.stored & _SETS:
        w.set(w.all_settings)
    w.effects |= w.stored & int(Effect.LITERALS)
    w.stored |= stored
    w.all_settings += settings_before
    return True


#: what stays with the backend; one on which statements are gone that the relay knows is not for others either
_KEPT: Final = int(Effect.PINS | Effect.DEALLOCATES)
#: what may have changed settings; SQL that is only known when it runs may as well
_SETS: Final = int(Effect.SETTINGS | Effect.UNPROVEN)


def create_function(w: Walk, body: Body) -> bool:
    w.binds = False  # parameters are the function's
    name = strings(body["funcname"])
    w.check_name(name, NOWHERE, write=True)
    if len(name) > 1 and name[-2] == "pg_temp":
        w.pin("temp_table")
    parameters = body.get("parameters", ())
    for item in parameters:
        w.walk_node(item)
    if "returnType" in body:
        w.walk("TypeName", body["returnType"])
    options = body.get("options", [])
    _clauses(w, options)
    language = _language(options, "sql")
    outside = w.values
    if language == "sql":
        w.values = frozenset(item["FunctionParameter"].get("name", "") for item in parameters)
    _body(w, language, options, "function", _around(body, name[-1]))
    if "sql_body" in body:
        in_code, w.in_code = w.in_code, True
        _sql_body(w, body["sql_body"])
        w.in_code = in_code
    w.values = outside
    return True


def _around(body: Body, name: str) -> Around:
    """What is known of a function before its body is read."""
    returns = body.get("returnType", {})
    return_names = strings(returns.get("names", ()))
    return Around(
        name,
        kind="PROCEDURE" if body.get("is_procedure") else "FUNCTION",
        parameters=[_parameter(item["FunctionParameter"]) for item in body.get("parameters", ())],
        returns=_RETURNS.get(return_names[-1], "value") if return_names else "value",
        is_set=bool(returns.get("setof")),
    )


#: what is returned by functions in which RETURN is another
_RETURNS: Final = {"trigger": "trigger", "void": "void"}
_MODES: Final = {"FUNC_PARAM_OUT": "OUT", "FUNC_PARAM_TABLE": "OUT", "FUNC_PARAM_INOUT": "INOUT"}


def _parameter(body: Body) -> Parameter:
    kind = body["argType"]
    names = strings(kind["names"])
    is_cursor = names[-1] == "refcursor" and names[:-1] in ([], ["pg_catalog"]) and "arrayBounds" not in kind
    return Parameter(_MODES.get(body["mode"], "IN"), body.get("name", ""), is_cursor)


def _sql_body(w: Walk, node: Any) -> None:
    """RETURN expression, or BEGIN ATOMIC … END, which is a list of lists of statements."""
    stack = [node]
    while stack:
        node = stack.pop()
        if "List" in node:
            stack += node["List"].get("items", ())
        else:
            w.walk_later(node)


def argument_types(w: Walk, body: Body) -> None:
    """The types of an ObjectWithArgs whose name is judged already."""
    for item in (*body.get("objargs", ()), *body.get("objfuncargs", ())):
        w.walk_node(item)


def _clauses(w: Walk, options: Sequence[Any]) -> None:
    """What a function's options set and call, its body apart."""
    for item in options:
        element = item["DefElem"]
        name, argument = element["defname"], element.get("arg") or {}
        if name == "set":
            settings.variable_set(w, argument["VariableSetStmt"], stored=True)
        elif name == "support":
            reference(w, strings(argument["List"]["items"]), element.get("location", NOWHERE))
        elif name == "transform":
            w.walk_node(argument)


def alter_function(w: Walk, body: Body) -> bool:
    w.check_name(strings(body["func"]["objname"]), NOWHERE, write=True)
    argument_types(w, body["func"])
    _clauses(w, body.get("actions", ()))
    return True
