"""Rules for what occurs in queries: relations, columns, functions, operators, types, names in literals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from tenant_proxy.guard import (
    bound,
    catalogs,
    channels,
    functions,
    names,
    own_public,
    own_session,
    restored,
    settings,
)
from tenant_proxy.guard.descent import ColumnRule
from tenant_proxy.guard.functions import ATTRIBUTES, EXTENSION_ATTRIBUTES, FUNCTIONS, REG_TYPES, Fact
from tenant_proxy.guard.parse import COST_OF_A_NAME, Unreadable, charge, parse
from tenant_proxy.guard.source import quoted_name
from tenant_proxy.guard.walk import NOWHERE, Body, Rule, Walk, location_of, strings
from tenant_proxy.model import Effect
from tenant_proxy.shims.names import CATALOG

_OPAQUE: Final = int(Effect.OPAQUE)
_MISSING: Final = object()

#: longest literal that is read as a name, in characters
_MAX_NAME: Final = 2000

#: catalogs that are refused and that PostgreSQL calls tables; the others are views
_TABLES: Final = frozenset(
    {"pg_authid", "pg_user_mapping", "pg_statistic", "pg_statistic_ext_data", "pg_largeobject"}
)


# --- relations and columns --------------------------------------------------------------


def relation(w: Walk, body: Body, *, write: bool = False) -> None:
    """A RangeVar's fields."""
    schema, name = body.get("schemaname"), body["relname"]
    location = body.get("location", 0)
    if schema is not None:
        parts = [schema, name] if "catalogname" not in body else [body["catalogname"], schema, name]
        w.check_schema(schema, location, write=write, name=name, parts=parts)
        if schema != "pg_catalog":
            if schema == "information_schema":
                catalogs.information(w, parts, location)
            return
    if name in functions.REFUSED_RELATIONS:
        w.refuse(
            "catalog",
            f"permission denied for {'table' if name in _TABLES else 'view'} {name}",
            detail=f"It holds {functions.REFUSED_RELATIONS[name]}.",
            hint="The other system catalogs can be read; ask the operator for what is only in this one.",
            location=location,
            name=f"pg_catalog.{name}",
        )
    if name in functions.CATALOG_RELATIONS:
        if write:
            # without a schema pg_catalog comes first, whatever search_path says
            w.check_schema("pg_catalog", location, write=True, name=name)
        catalogs.relation(w, [name] if schema is None else parts, location)


def _range_var(w: Walk, body: Body) -> bool:
    relation(w, body)
    return True


def _column_ref(w: Walk, body: Body) -> bool:
    fields = body["fields"]
    parts = strings(fields)
    location = body.get("location", 0)
    if len(parts) > 2:
        schema = parts[-3]
        if not w.in_code or (schema == "public" and w.scope.public_is_own):
            w.check_schema(schema, location, name=".".join(parts[-2:]), parts=parts, part=-3)
        if schema in catalogs.SCHEMAS:
            catalogs.column(w, parts, location)
    name = parts[-1]
    is_value = len(parts) > 1 and parts[-2] in w.values
    if name in EXTENSION_ATTRIBUTES or name in w.scope.denied_attributes:
        _attribute(w, name, location, sure=is_value)
    elif name in ATTRIBUTES:
        # t.f calls f(t) where t has no column f
        call(w, [name], [{"ColumnRef": {"fields": fields[:-1], "location": location}}], location)
        catalogs.attribute(w, name, location, sure=is_value)
    return True


#: columns are called so
_COMMON: Final = frozenset({"set_user", "reset_user"})


def _attribute(w: Walk, name: str, location: int, *, sure: bool) -> None:
    """x.f of a function that is refused, if f is no column.

    Those of extensions and PostgreSQL's take no rows, so x must be a function's result in FROM, or a
    parameter of a function in SQL.
    """
    is_known = name in EXTENSION_ATTRIBUTES or name in FUNCTIONS
    if sure or not is_known or (w.in_code and name not in _COMMON):
        catalogs.refuse_attribute(w, name, location)
    w.attributes.append((name, location))


def _indirection(w: Walk, body: Body) -> None:
    """(expression).f calls f(expression), whatever the expression's type."""
    argument = body.get("arg", {})
    for item in body["indirection"]:
        name = item["String"].get("sval", "") if "String" in item else ""
        if name in w.scope.denied_attributes:
            lookup(w, [name], location_of(argument))
        elif name in ATTRIBUTES:
            call(w, [name], [argument], location_of(argument))
            catalogs.attribute(w, name, location_of(argument), sure=True)
        argument = {"A_Indirection": body}


# --- functions ----------------------------------------------------------------------------


def _func_call(w: Walk, body: Body) -> None:
    parts = body["funcname"]
    if len(parts) == 1:
        # most calls end here
        name = parts[0]["String"]["sval"]
        if FUNCTIONS.get(name, _MISSING) is None and name not in w.scope.denied_attributes:
            return
    names, arguments, location = strings(parts), body.get("args", ()), body.get("location", 0)
    if restored.restores(w, names, body):
        return
    call(w, names, arguments, location)
    if not channels.listening(w, names, location) and not own_session.called(w, names, location):
        catalogs.function(w, names, arguments, location)


def call(w: Walk, parts: list[str], arguments: Sequence[Mapping[str, Any]], location: int) -> None:
    """A call of a function or procedure."""
    fact = lookup(w, parts, location)
    if fact is None:
        return
    if fact.effects:
        w.effects |= int(fact.effects)
        w.stored |= int(fact.effects & Effect.ESCALATES)
        if fact.pin_reason:
            w.stored |= int(Effect.PINS)
            w.pin(fact.pin_reason)
        if fact.changes:
            w.set(fact.changes)
    count = len(arguments)
    sensitive = fact.sets or fact.reads_rows or count in fact.names or count in fact.queries
    if sensitive and any("NamedArgExpr" in argument for argument in arguments):
        w.refuse(
            "named_arguments",
            f'function "{parts[-1]}" can\'t be checked with named arguments',
            hint="Give the arguments by position.",
            location=location,
            name=parts[-1],
        )
    for argument in fact.names.get(count, ()):
        if fact.reads_rows:
            text = w.constant(
                arguments[argument.position], strict="regclass" if argument.kind == "relation" else "name"
            )
            if text is None:
                _refuse_dynamic(w, "relation", parts[-1], location)
            catalogs.rows_of(w, text, location_of(arguments[argument.position]))
        names_in(w, arguments[argument.position], argument.kind, unsure=argument.unsure)
        if fact.reads_input:
            _probed_input(w, arguments)
    for position in fact.queries.get(count, ()):
        _query_argument(w, parts[-1], arguments[position], location)
    if fact.sets:
        settings.set_config(w, arguments, location)


def reference(w: Walk, parts: list[str], location: int, *, trigger: bool = False) -> None:
    """A function that a definition names and that will run with arguments that nobody sees."""
    effects = w.effects
    fact = lookup(w, parts, location)
    w.effects = effects  # nothing runs now
    if trigger and parts[-1] in functions.TRIGGERS:
        return
    if fact is not None and (
        fact.names
        or fact.queries
        or fact.sets
        or fact.effects & (Effect.PINS | Effect.SETTINGS)
        or (fact.turned and (w.scope.hides or w.scope.hide_missing))
    ):
        w.refuse(
            "function",
            f"permission denied for function {parts[-1]}",
            detail="It must not run where its arguments can't be checked.",
            hint="Call it directly, or from a function of the tenant's own.",
            location=location,
            name=".".join(parts),
        )


def lookup(w: Walk, parts: list[str], location: int) -> Fact | None:
    """What is known of a function; None if it is safe, or the tenant's own.  Refuses what is refused."""
    name = parts[-1]
    scope = w.scope
    full = ".".join(parts[-2:])
    if full in scope.denied_functions or name in (
        scope.denied_functions if len(parts) > 1 else scope.denied_attributes
    ):
        _refuse_function(w, full, "the operator has denied it by policy.denied_functions", location)
    if len(parts) > 1:
        w.check_name(parts, location)
    if full in scope.allowed_functions or name in scope.allowed_functions:
        w.effects |= _OPAQUE
        return None
    schema = parts[-2] if len(parts) > 1 else ""
    if schema == CATALOG:
        # code that is read back (relay.code): what the server has it call was turned to this
        return FUNCTIONS.get(name)
    if schema in ("", "pg_catalog"):
        fact = FUNCTIONS.get(name, _MISSING)
        if fact is None:
            return None
        if isinstance(fact, Fact):
            if fact.refused and not (fact.turned and scope.hides):
                _refuse_function(w, name, f"it is about {fact.refused}", location)
            return fact
        if schema:
            _refuse_function(w, full, "it is not in the list of known functions", location)
    if schema == "information_schema":
        if name not in functions.INFORMATION_SCHEMA:
            _refuse_function(w, full, "it is not in the list of known functions", location)
        return None
    w.effects |= _OPAQUE
    fact = functions.extension_fact(name)
    if fact is None:
        if not schema and name.startswith("pg_"):
            # a newer server's function, perhaps
            _refuse_function(w, name, "it is not in the list of known functions", location)
        return None
    if fact.refused:
        _refuse_function(w, full, f"it is about {fact.refused}", location)
    return fact


def _refuse_function(w: Walk, name: str, why: str, location: int) -> None:
    w.refuse(
        "function",
        f"permission denied for function {name.rpartition('.')[2]}",
        detail=f"The guard refuses it: {why}.",
        hint="An operator can let it through by policy.allowed_functions.",
        location=location,
        name=name,
    )


def _query_argument(w: Walk, name: str, argument: Mapping[str, Any], location: int) -> None:
    """SQL in an argument runs with the call: judged if it is constant, refused otherwise."""
    text = w.constant(argument, strict="text")
    if text is None:
        if "ParamRef" in argument and w.bind(argument["ParamRef"], bound.QUERY):
            w.effects |= _OPAQUE
            return
        _refuse_dynamic(w, "query", name, location)
    w.effects |= w.nested(
        text,
        location_of(argument),
        f'the query of function "{name}"',
        literal=w.literal(argument),
    )


def _probed_input(w: Walk, arguments: Sequence[Mapping[str, Any]]) -> None:
    """(text, name of a type): whether the text can be read as that type; regclass reads names of objects."""
    text = w.constant(arguments[1])
    if text is None:
        return
    try:
        type_name = parse(f"SELECT NULL::{text}")[0]["stmt"]["SelectStmt"]["targetList"][0]["ResTarget"][
            "val"
        ]["TypeCast"]["typeName"]
    except (Unreadable, KeyError, IndexError):
        return  # it is judged as a type's name, too
    _read_as(w, arguments[0], type_name)


def _read_as(w: Walk, text: Mapping[str, Any] | None, type_name: Body) -> None:
    """A text that is turned to a value of a type, which may name objects."""
    parts = type_name["names"]
    last = parts[-1]["String"]["sval"]
    # an array type has a name of its own, too
    element = last.removeprefix("_")
    if element in REG_TYPES and (len(parts) == 1 or parts[-2]["String"]["sval"] == "pg_catalog"):
        names_in(w, text, REG_TYPES[element], array=element != last or "arrayBounds" in type_name)


def _refuse_dynamic(w: Walk, what: str, name: str, location: int) -> NoReturn:
    w.refuse(
        "dynamic_query",
        f'the {what} that function "{name}" runs can\'t be checked',
        detail="It is not a constant.",
        hint=f"Write the {what} as a constant, or use EXECUTE in a PL/pgSQL function.",
        location=location,
        name=name,
    )


# --- names in literals -----------------------------------------------------------------------


def names_in(
    w: Walk, node: Mapping[str, Any] | None, kind: str, *, array: bool = False, unsure: bool = False
) -> None:
    """Judges the constants that an expression may be as names of objects; see functions.yaml for kinds.

    Parameters are judged at Bind.  What else is not constant passes: on a backend that is the tenant's own
    PostgreSQL's grants decide.
    """
    for text, constant, element in w.constants(node, kind + bound.UNSURE if unsure else kind, array=array):
        location = location_of(constant)
        if array and not element:
            judge_names(w, text, kind, location, unsure=unsure)
        elif w.scope.public_is_own or kind in _NESTED_KINDS:
            with w.inside(text, literal=w.literal(constant)):
                judge_name(w, text, kind, location, unsure=unsure)
        else:
            judge_name(w, text, kind, location, unsure=unsure)


def judge_names(
    w: Walk, text: str, kind: str, location: int, *, unsure: bool = False, longest: int = _MAX_NAME
) -> None:
    """An array of names in a literal."""
    elements = names.array_elements(text) if len(text) <= longest else None
    if elements is None:
        _malformed(w, text[:40], location)
    charge(COST_OF_A_NAME * len(elements or ()))
    with w.inside(text):
        for item in elements or ():
            judge_name(w, item, kind, location, unsure=unsure)


#: kinds of names that are judged by SQL around them
_NESTED_KINDS: Final = frozenset({"type", "routine"})


def judge_name(w: Walk, text: str, kind: str, location: int, *, unsure: bool = False) -> None:
    """One name of an object in a literal, whose value is the text that locations are in now.

    Refusals are told at `location` of the statement.
    """
    if len(text) > _MAX_NAME:
        _malformed(w, text[:40], location)
    if kind == "schema_name":  # taken as it is, without quoting rules
        name = names.truncated(text)
        if name == "public" and w.scope.public_is_own:
            w.tokens.edit(0, len(text), w.scope.schema)
        else:
            w.check_schema(name, location)
    elif kind == "role_name":
        _named_role(w, names.truncated(text), location)
    elif kind == "rights":
        for name in names.roles_of_rights(text):
            _named_role(w, name, location)
    elif names.is_oid(text):
        return
    elif kind == "type":
        w.nested(f"SELECT NULL::{text}", location, "the name of a type", offset=-len("SELECT NULL::"))
    elif kind == "routine":
        _routine_name(w, text, location)
    else:
        parts = names.split_qualified(text)
        if unsure and (parts is None or len(parts) != 2):
            return
        if parts is None:
            _malformed(w, text, location)
        elif kind == "role":
            _named_role(w, parts[-1], location)
        else:
            _name_in_text(w, text, parts, -1 if kind == "schema" else -2, location)


def _name_in_text(w: Walk, text: str, parts: list[str], schema: int, location: int) -> None:
    """A qualified name in a literal, of which the part `schema` is a schema if there are so many."""
    if len(parts) + schema < 0:
        return
    if parts[schema] == "public" and w.scope.public_is_own:
        _, start, end = (names.split_spans(text) or [])[schema]
        w.tokens.edit(start, end, quoted_name(w.scope.schema))
    elif schema == -1:
        w.check_schema(parts[-1], location)
    else:
        w.check_name(parts, location)


def _routine_name(w: Walk, text: str, location: int) -> None:
    """name(type, …), of a function or an operator."""
    name, parenthesis, arguments = text.partition("(")
    parts = names.split_qualified(name)
    if parts is None:
        _malformed(w, text, location)
    else:
        _name_in_text(w, name, parts, -2, location)
    if parenthesis:
        before = "DROP FUNCTION pg_temp.f("
        w.nested(
            f"{before}{arguments}", location, "the name of a function", offset=len(name) + 1 - len(before)
        )


def _named_role(w: Walk, name: str, location: int) -> None:
    """Others' roles do not exist, where other tenants are hidden."""
    scope = w.scope
    if not (scope.hides or scope.hide_missing) or name in scope.roles or name in _EVERYBODYS:
        return
    if not name.startswith("pg_"):
        w.refuse(
            "role",
            f'role "{name}" does not exist',
            sqlstate="42704",
            detail=f'It is not known to be a role of tenant "{scope.tenant}".',
            location=location,
            name=name,
        )


#: roles that every cluster has, beside those that begin with pg_
_EVERYBODYS: Final = frozenset({"public", "postgres"})


def _malformed(w: Walk, text: str, location: int) -> None:
    w.refuse(
        "invalid_name",
        "invalid name syntax",
        sqlstate="42602",
        detail="The proxy can't tell what object the literal names.",
        location=location,
    )


# --- operators, types, collations … -------------------------------------------------------------


def _type_cast(w: Walk, body: Body) -> None:
    _read_as(w, body.get("arg"), body["typeName"])
    if w.scope.public_is_own and strings(body["typeName"]["names"])[-1] in own_public.NAMES:
        own_public.computed_name(w, body)


def _type_name(w: Walk, body: Body) -> None:
    parts = body["names"]
    if len(parts) > 1:
        texts = strings(parts)
        if body.get("pct_type"):  # [schema.]relation.column%TYPE
            texts.pop()
        w.check_name(texts, body.get("location", 0))


def _operator(field: str) -> Rule:
    """Nodes with an operator's name in `field`."""

    def rule(w: Walk, body: Body) -> None:
        parts = body.get(field)
        if parts and len(parts) > 1:
            w.check_name(strings(parts), body.get("location", NOWHERE))

    return rule


def _named(*fields: str) -> Rule:
    """Nodes with a collation or operator class in `fields`."""

    def rule(w: Walk, body: Body) -> None:
        for field in fields:
            parts = body.get(field)
            if parts and len(parts) > 1:
                w.check_name(strings(parts), body.get("location", NOWHERE))

    return rule


def _sample(w: Walk, body: Body) -> None:
    """TABLESAMPLE method(…): the method is a function."""
    reference(w, strings(body["method"]), body.get("location", 0))


def _object_with_args(w: Walk, body: Body) -> None:
    w.check_name(strings(body["objname"]), NOWHERE)


def _role(w: Walk, body: Body) -> bool:
    name = body.get("rolename")
    if body["roletype"] == "ROLESPEC_PUBLIC" and w.scope.public_is_own:
        # a role, however alike it reads
        w.tokens.claimed.add(w.tokens.character(body.get("location", 0)))
    if body["roletype"] == "ROLESPEC_CSTRING" and name not in w.scope.roles:
        w.refuse(
            "role",
            f'permission denied for role "{name}"',
            hint="Name a role of the tenant's own, or CURRENT_USER.",
            location=body.get("location", 0),
            name=str(name),
        )
    return True


def _typed_default(type_field: str, default_field: str) -> Rule:
    """A default that is a plain literal of a type like regclass names an object as a cast would."""

    def rule(w: Walk, body: Body) -> None:
        type_name = body.get(type_field)
        if not type_name:
            return
        last = strings(type_name["names"])[-1]
        element = last.removeprefix("_")
        if element not in REG_TYPES:
            return
        array = element != last or "arrayBounds" in type_name
        defaults = [body.get(default_field)]
        defaults += (item["Constraint"].get("raw_expr") for item in body.get("constraints", ()))
        for default in defaults:
            names_in(w, default, REG_TYPES[element], array=array)

    return rule


RULES: Final[Mapping[str, Rule | ColumnRule]] = {
    "RangeVar": _range_var,
    "ColumnRef": ColumnRule(ATTRIBUTES, _column_ref),
    "A_Indirection": _indirection,
    "FuncCall": _func_call,
    "TypeCast": _type_cast,
    "TypeName": _type_name,
    "A_Expr": _operator("name"),
    "SubLink": _operator("operName"),
    "SortBy": _operator("useOp"),
    "CollateClause": _named("collname"),
    "IndexElem": _named("collation", "opclass"),
    "PartitionElem": _named("collation", "opclass"),
    "RangeTableSample": _sample,
    "ObjectWithArgs": _object_with_args,
    "RoleSpec": _role,
    "ColumnDef": _typed_default("typeName", "raw_default"),
    "FunctionParameter": _typed_default("argType", "defexpr"),
}
