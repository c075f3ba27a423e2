"""Rules for definitions: CREATE, ALTER, DROP, COMMENT, GRANT, and the names of objects in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tenant_proxy.guard import bodies, own_public, provided
from tenant_proxy.guard.expressions import judge_name, reference, relation
from tenant_proxy.guard.statements import created
from tenant_proxy.guard.walk import NOWHERE, Body, Rule, Walk, strings

# --- objects named by DROP, COMMENT, RENAME, OWNER TO, SET SCHEMA ----------------------------------

#: objects named by a list [schema,] name
_QUALIFIED: Final = {
    "OBJECT_TABLE",
    "OBJECT_SEQUENCE",
    "OBJECT_VIEW",
    "OBJECT_MATVIEW",
    "OBJECT_INDEX",
    "OBJECT_FOREIGN_TABLE",
    "OBJECT_COLLATION",
    "OBJECT_CONVERSION",
    "OBJECT_STATISTIC_EXT",
    "OBJECT_TSPARSER",
    "OBJECT_TSDICTIONARY",
    "OBJECT_TSTEMPLATE",
    "OBJECT_TSCONFIGURATION",
}
#: by [schema,] relation, name
_OF_RELATION: Final = {
    "OBJECT_TRIGGER",
    "OBJECT_RULE",
    "OBJECT_POLICY",
    "OBJECT_COLUMN",
    "OBJECT_TABCONSTRAINT",
}
#: by access method, [schema,] name
_OF_METHOD: Final = {"OBJECT_OPCLASS", "OBJECT_OPFAMILY"}
#: by a TypeName
_TYPES: Final = {"OBJECT_TYPE", "OBJECT_DOMAIN", "OBJECT_DOMCONSTRAINT", "OBJECT_ATTRIBUTE"}
#: by name and argument types
_ROUTINES: Final = {
    "OBJECT_FUNCTION",
    "OBJECT_PROCEDURE",
    "OBJECT_ROUTINE",
    "OBJECT_AGGREGATE",
    "OBJECT_OPERATOR",
}


def _object(w: Walk, kind: str, node: Mapping[str, Any]) -> None:
    """An object that a statement changes, whose name stands in `node`."""
    ((tag, body),) = node.items()
    if kind in _QUALIFIED and tag == "List":
        w.check_name(strings(body["items"]), NOWHERE, write=True)
    elif kind in _OF_RELATION and tag == "List":
        w.check_name(strings(body["items"])[:-1], NOWHERE, write=True)
    elif kind in _OF_METHOD and tag == "List":
        w.check_name(strings(body["items"])[1:], NOWHERE, write=True)
    elif kind in _ROUTINES and tag == "ObjectWithArgs":
        w.check_name(strings(body["objname"]), NOWHERE, write=True)
        bodies.argument_types(w, body)
    elif kind in _TYPES:
        # a domain's constraint is [TypeName, name]; RENAME gives a bare list of names
        if tag == "List" and body["items"] and "TypeName" in body["items"][0]:
            tag, body = "TypeName", body["items"][0]["TypeName"]
        if tag == "TypeName":
            w.check_name(strings(body["names"]), body.get("location", NOWHERE), write=True)
        elif tag == "List":
            w.check_name(strings(body["items"]), NOWHERE, write=True)
        else:
            _refuse_object(w, kind)
    elif kind == "OBJECT_CAST" and tag == "List":
        for item in body["items"]:
            w.walk_node(item)
    elif kind == "OBJECT_LARGEOBJECT":
        pass  # its owner may
    else:
        _refuse_object(w, kind)


def _refuse_object(w: Walk, kind: str) -> None:
    what = kind.removeprefix("OBJECT_").replace("_", " ").lower()
    w.refuse(
        "shared_object",
        f"permission denied to change a {what}",
        detail=f"Objects of this kind belong to all tenants, or to the platform; this connection belongs to "
        f'tenant "{w.scope.tenant}".',
        hint="Ask the operator.",
    )


def _drop(w: Walk, body: Body) -> bool:
    if body["removeType"] == "OBJECT_SCHEMA" and provided.drop_schema(w, body):
        return True
    for node in body["objects"]:
        _object(w, body["removeType"], node)
    return True


def _comment(w: Walk, body: Body) -> bool:
    if body["objtype"] == "OBJECT_SCHEMA":
        w.check_schema(strings([body["object"]])[0], NOWHERE, write=True)
    else:
        _object(w, body["objtype"], body["object"])
    return True


def _rename(w: Walk, body: Body) -> bool:
    if "relation" in body:
        relation(w, body["relation"], write=True)
    elif "object" in body:
        _object(w, body["renameType"], body["object"])
    else:  # ROLE, SCHEMA, DATABASE, TABLESPACE: a name alone
        _refuse_object(w, body["renameType"])
    return True


def _owner(w: Walk, body: Body) -> bool:
    if "relation" in body:
        relation(w, body["relation"], write=True)
    else:
        _object(w, body["objectType"], body["object"])
    w.walk("RoleSpec", body["newowner"])
    return True


def _set_schema(w: Walk, body: Body) -> bool:
    if "relation" in body:
        relation(w, body["relation"], write=True)
    else:
        _object(w, body["objectType"], body["object"])
    w.check_schema(body["newschema"], NOWHERE, write=True)
    return True


# --- names of what is made ------------------------------------------------------------------------


def _makes(field: str) -> Rule:
    """Statements that make or change the object whose name is the list in `field`."""

    def rule(w: Walk, body: Body) -> None:
        parts = strings(body.get(field, ()))
        w.check_name(parts, NOWHERE, write=True)
        if len(parts) > 1 and parts[-2] == "pg_temp":
            w.pin("temp_table")

    return rule


def _changes(field: str) -> Rule:
    """Statements that change the relation in `field`."""

    def rule(w: Walk, body: Body) -> None:
        relation(w, body[field], write=True)

    return rule


def _create_table(w: Walk, body: Body) -> None:
    created(w, body["relation"], drops=body.get("oncommit") == "ONCOMMIT_DROP")


def _create(field: str) -> Rule:
    def rule(w: Walk, body: Body) -> None:
        created(w, body[field])

    return rule


def _view(w: Walk, body: Body) -> bool:
    created(w, body["view"])
    outside, w.in_view = w.in_view, True
    w.walk_later(body["query"])
    w.in_view = outside
    return True


def _rule(w: Walk, body: Body) -> bool:
    relation(w, body["relation"], write=True)
    w.walk_later(body.get("whereClause"))
    for action in body.get("actions", ()):
        w.walk_later(action)
    return True


#: functions of triggers whose arguments name objects -> kind, and which arguments
_NAMING_TRIGGERS: Final = {
    "tsvector_update_trigger": ("object", slice(1, 2)),
    "autoinc": ("relation", slice(1, None, 2)),
}


def _trigger(w: Walk, body: Body) -> bool:
    relation(w, body["relation"], write=True)
    function, arguments = strings(body["funcname"]), strings(body.get("args", ()))
    reference(w, function, NOWHERE, trigger=True)
    kind, which = _NAMING_TRIGGERS.get(function[-1], ("", slice(0)))
    for argument in arguments[which]:
        with w.inside(argument):
            judge_name(w, argument, kind, NOWHERE)
    if "constrrel" in body:
        relation(w, body["constrrel"])
    w.walk_later(body.get("whenClause"))
    return True


def _policy(w: Walk, body: Body) -> bool:
    relation(w, body["table"], write=True)
    for role in body.get("roles", ()):
        w.walk_node(role)
    w.walk_later(body.get("qual"))
    w.walk_later(body.get("with_check"))
    return True


def _alter_table(w: Walk, body: Body) -> None:
    if body.get("objtype") == "OBJECT_FOREIGN_TABLE":
        _refuse_object(w, "OBJECT_FOREIGN_TABLE")
    relation(w, body["relation"], write=True)


def _alter_table_command(w: Walk, body: Body) -> bool | None:
    subtype = body["subtype"]
    if subtype in ("AT_GenericOptions", "AT_AlterColumnGenericOptions"):
        _refuse_object(w, "OBJECT_FOREIGN_TABLE")
    return None


def _partition_command(w: Walk, body: Body) -> None:
    """ATTACH and DETACH PARTITION change the partition too."""
    if "name" in body:
        relation(w, body["name"], write=True)


def _constraint(w: Walk, body: Body) -> None:
    for item in body.get("exclusions", ()):
        for part in item["List"]["items"]:
            if "List" in part:  # WITH operator
                w.check_name(strings(part["List"]["items"]), body.get("location", NOWHERE))


# --- options -----------------------------------------------------------------------------------------


#: options of sequences that name relations -> how many names at the end are no relation's
_RELATION_OPTIONS: Final = {"owned_by": 1, "sequence_name": 0}


def _option(w: Walk, body: Body) -> None:
    """A DefElem: options of sequences, collations, aggregates … name objects by lists."""
    argument = body.get("arg") or {}
    if "List" not in argument:
        return
    items = argument["List"].get("items", [])
    if not items or any("String" not in item for item in items):
        return
    parts = strings(items)
    name = body.get("defname", "")
    drop = _RELATION_OPTIONS.get(name, 0)
    w.check_name(parts[: len(parts) - drop], body.get("location", NOWHERE), write=name in _RELATION_OPTIONS)


#: options whose value is a function
_FUNCTION_OPTIONS: Final = frozenset(
    {
        # CREATE AGGREGATE
        *("sfunc", "sfunc1", "finalfunc", "combinefunc", "serialfunc", "deserialfunc"),
        *("msfunc", "minvfunc", "mfinalfunc"),
        # CREATE OPERATOR
        *("procedure", "function", "restrict", "join"),
        # CREATE TYPE AS RANGE
        *("canonical", "subtype_diff"),
        # ALTER FUNCTION
        "support",
    }
)


def option_names(argument: Mapping[str, Any]) -> list[str]:
    """A name given as an option: an identifier comes as a type, a quoted one as a string."""
    if "TypeName" in argument:
        return strings(argument["TypeName"]["names"])
    if "List" in argument:
        return strings(argument["List"]["items"])
    if "String" in argument:
        return [argument["String"].get("sval", "")]
    return []


def _function_options(w: Walk, options: Iterable[Mapping[str, Any]]) -> None:
    """Functions that a definition's options name, which will run with arguments nobody sees."""
    for item in options:
        element = item["DefElem"]
        if element.get("defname", "").lower() in _FUNCTION_OPTIONS:
            parts = option_names(element.get("arg") or {})
            if parts:
                reference(w, parts, element.get("location", NOWHERE))


_DEFINABLE: Final = {
    "OBJECT_AGGREGATE",
    "OBJECT_OPERATOR",
    "OBJECT_COLLATION",
    "OBJECT_TSDICTIONARY",
    "OBJECT_TSCONFIGURATION",
}


#: options of a new operator that make another one, without arguments or body, where there is none
_SHELLS: Final = frozenset({"commutator", "negator"})


def _shells(w: Walk, options: Iterable[Mapping[str, Any]]) -> None:
    for item in options:
        element = item["DefElem"]
        if element.get("defname", "").lower() in _SHELLS:
            parts = option_names(element.get("arg") or {})
            w.check_name(parts, element.get("location", NOWHERE), write=True)


def _dictionary_options(w: Walk, options: Iterable[Mapping[str, Any]]) -> None:
    """A thesaurus names another dictionary in an option's text."""
    for item in options:
        element = item["DefElem"]
        text = (element.get("arg") or {}).get("String", {}).get("sval", "")
        if element.get("defname", "").lower() == "dictionary" and text:
            with w.inside(text):
                judge_name(w, text, "object", element.get("location", NOWHERE))


def _dictionary(w: Walk, body: Body) -> None:
    _makes("dictname")(w, body)
    _dictionary_options(w, body.get("options", ()))


def _define(w: Walk, body: Body) -> None:
    kind = body["kind"]
    if kind not in _DEFINABLE:
        _refuse_object(w, kind)
    _makes("defnames")(w, body)
    if kind in ("OBJECT_AGGREGATE", "OBJECT_OPERATOR"):
        _function_options(w, body.get("definition", ()))
    if kind == "OBJECT_OPERATOR":
        _shells(w, body.get("definition", ()))
    elif kind == "OBJECT_TSDICTIONARY":
        _dictionary_options(w, body.get("definition", ()))


def _range_type(w: Walk, body: Body) -> None:
    _makes("typeName")(w, body)
    _function_options(w, body.get("params", ()))
    for item in body.get("params", ()):
        element = item["DefElem"]
        if element.get("defname", "").lower() == "multirange_type_name":
            parts = option_names(element.get("arg") or {})
            w.check_name(parts, element.get("location", NOWHERE), write=True)


def _alter_operator(w: Walk, body: Body) -> bool:
    w.check_name(strings(body["opername"]["objname"]), NOWHERE, write=True)
    bodies.argument_types(w, body["opername"])
    _function_options(w, body.get("options", ()))
    _shells(w, body.get("options", ()))
    for item in body.get("options", ()):
        w.walk_node(item)
    return True


def _cast(w: Walk, body: Body) -> bool:
    if "func" in body:
        reference(w, strings(body["func"]["objname"]), NOWHERE)
        bodies.argument_types(w, body["func"])
    w.walk("TypeName", body["sourcetype"])
    w.walk("TypeName", body["targettype"])
    return True


def _text_search(w: Walk, body: Body) -> None:
    w.check_name(strings(body["cfgname"]), NOWHERE, write=True)
    for item in body.get("dicts", ()):
        w.check_name(strings(item["List"]["items"]), NOWHERE)


# --- grants ---------------------------------------------------------------------------------------------


def _grant(w: Walk, body: Body) -> bool:
    kind, objects = body["objtype"], body.get("objects", ())
    if kind == "OBJECT_SCHEMA" and body["targtype"] == "ACL_TARGET_OBJECT" and own_public.grant(w, body):
        return True
    if body["targtype"] == "ACL_TARGET_ALL_IN_SCHEMA":
        for name in strings(objects):
            w.check_schema(name, NOWHERE, write=True)
    elif body["targtype"] == "ACL_TARGET_OBJECT":
        for node in objects:
            if "RangeVar" in node:
                relation(w, node["RangeVar"], write=True)
            else:
                _object(w, kind, node)
    # ACL_TARGET_DEFAULTS: of ALTER DEFAULT PRIVILEGES, which has judged its own options
    for role in body.get("grantees", ()):
        w.walk_node(role)
    if "grantor" in body:
        w.walk("RoleSpec", body["grantor"])
    return True


def _default_privileges(w: Walk, body: Body) -> bool:
    for item in body.get("options", ()):
        element = item["DefElem"]
        for node in (element.get("arg") or {}).get("List", {}).get("items", ()):
            if element["defname"] == "schemas":
                w.check_schema(strings([node])[0], element.get("location", NOWHERE), write=True)
            else:
                w.walk_node(node)
    if body["action"]["objtype"] == "OBJECT_SCHEMA":
        _refuse_object(w, "OBJECT_SCHEMA")
    w.walk("GrantStmt", body["action"])
    return True


RULES: Final[Mapping[str, Rule]] = {
    "AlterCollationStmt": _makes("collname"),
    "AlterDefaultPrivilegesStmt": _default_privileges,
    "AlterDomainStmt": _makes("typeName"),
    "AlterEnumStmt": _makes("typeName"),
    "AlterFunctionStmt": bodies.alter_function,
    "AlterObjectSchemaStmt": _set_schema,
    "AlterOperatorStmt": _alter_operator,
    "AlterOwnerStmt": _owner,
    "AlterPolicyStmt": _policy,
    "AlterSeqStmt": _changes("sequence"),
    "AlterStatsStmt": _makes("defnames"),
    "AlterTSConfigurationStmt": _text_search,
    "AlterTSDictionaryStmt": _dictionary,
    "AlterTableCmd": _alter_table_command,
    "AlterTableStmt": _alter_table,
    "CommentStmt": _comment,
    "CompositeTypeStmt": _create("typevar"),
    "Constraint": _constraint,
    "CreateCastStmt": _cast,
    "CreateDomainStmt": _makes("domainname"),
    "CreateEnumStmt": _makes("typeName"),
    "CreateFunctionStmt": bodies.create_function,
    "CreatePolicyStmt": _policy,
    "CreateRangeStmt": _range_type,
    "CreateSeqStmt": _create("sequence"),
    "CreateStatsStmt": _makes("defnames"),
    "CreateStmt": _create_table,
    "CreateTrigStmt": _trigger,
    "DefElem": _option,
    "DefineStmt": _define,
    "DropStmt": _drop,
    "GrantStmt": _grant,
    "IndexStmt": _changes("relation"),
    "PartitionCmd": _partition_command,
    "RenameStmt": _rename,
    "RuleStmt": _rule,
    "ViewStmt": _view,
}
