"""Rules for what changes settings: SET, RESET, set_config(), SET clauses of functions.

What may be set to what is decided by `settings_policy`, as for the startup packet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tenant_proxy.errors import ProxyError
from tenant_proxy.guard import bound, own_public
from tenant_proxy.guard.parse import COST_OF_A_LIST, charge
from tenant_proxy.guard.walk import NOWHERE, Body, Walk, strings
from tenant_proxy.model import Effect
from tenant_proxy.settings_policy import (
    FIXED_SETTINGS,
    IDENTITY_SETTINGS,
    LITERAL_SETTINGS,
    OBJECT_NAME_SETTINGS,
    canonical_name,
    check_search_path,
    check_setting,
    join_identifiers,
    split_identifiers,
)

#: settings of which some values are refused: set_config must show which it is
_VALUE_DECIDES: Final = frozenset({"search_path", "client_encoding", *FIXED_SETTINGS, *OBJECT_NAME_SETTINGS})

#: pg_dump closes views and foreign tables to itself with it
_RESTRICTS_VIEWS: Final = "restrict_nonsystem_relation_kind"

_RESTRICTED: Final = frozenset({"view", "foreign-table"})

#: white space in lists of settings
_SPACE: Final = " \t\n\r\f\v"

#: nobody has it, and what resets it does nothing
NO_SETTING: Final = "tenant_proxy.none"

#: SET TRANSACTION's own, which end with the transaction
_TRANSACTION: Final = "TRANSACTION"


def variable_set(w: Walk, body: Body, *, stored: bool = False) -> bool:
    """A VariableSetStmt; `stored` if it is a function's SET clause, which changes nothing now."""
    kind = body["kind"]
    name = body.get("name", "")
    location = body.get("location", NOWHERE)
    local = stored or body.get("is_local", False)
    if kind == "VAR_RESET_ALL":
        if not stored:
            w.set(["*"])
        if not w.scope.resets:
            w.rename(("all",), NOWHERE, NO_SETTING, keyword="RESET")
        return True
    if kind == "VAR_SET_MULTI":
        # SET TRANSACTION …, SET SESSION CHARACTERISTICS AS TRANSACTION …; arguments are fixed words, but
        # for the snapshot, which is the server's to check
        session = not name.startswith(_TRANSACTION)
        transaction_modes(w, body.get("args", ()), session=session)
        if session:
            w.set(
                f"default_{argument['DefElem']['defname']}"
                for argument in body.get("args", ())
                if "DefElem" in argument
            )
        return True
    name = canonical_name(name)
    if kind in ("VAR_SET_DEFAULT", "VAR_RESET", "VAR_SET_CURRENT"):
        # FROM CURRENT: what was let through before, but for who one is: where the login is the tenant's own
        # that is nobody else, which a function takes along to a shared backend
        is_taken = kind == "VAR_SET_CURRENT"
        _check(w, name, "" if is_taken and name in IDENTITY_SETTINGS else None, location)
        if is_taken:
            # the definition shows the value when it is read again
            w.stored |= int(Effect.UNPROVEN)
    elif kind == "VAR_SET_VALUE":
        _check_arguments(w, name, body.get("args", ()), location)
    else:
        w.unknown(f"VariableSetStmt of kind {kind}")
    if not local:
        w.set([name])
    return True


def _check_arguments(w: Walk, name: str, arguments: Sequence[Mapping[str, Any]], location: int) -> None:
    values = [_value(w, argument) for argument in arguments]
    if any(value is None for value in values):
        w.refuse(
            "setting_dynamic",
            f'the value of parameter "{name}" can\'t be checked',
            detail="It is not a constant.",
            location=location,
            name=name,
        )
    texts = [value for value in values if value is not None]
    if name == "search_path":
        # each argument is one name, whatever is in it (flatten_set_variable_args)
        scope = w.scope
        for argument, text in zip(arguments, texts, strict=True):
            if text == "public" and scope.public_is_own:
                own_public.set_argument(w, argument)
        texts = _schemas(w, texts, location)
        _raise(
            w, check_search_path(texts, schema=scope.schema, allowed_schemas=scope.allowed_schemas), location
        )
        _check(w, name, "", location)
        return
    if name == _RESTRICTS_VIEWS and w.scope.hides:
        for argument, text in zip(arguments, texts, strict=True):
            _keep_views(w, argument, text)
    _check(w, name, ", ".join(texts), location)


def _keep_views(w: Walk, argument: Mapping[str, Any], value: str) -> None:
    """Takes views out of what pg_dump wants closed to itself: the catalogs are read through views."""
    kept = _without_views(value)
    if kept != value:
        w.replace_string(argument, kept)


def _without_views(value: str) -> str:
    kinds = [kind.strip(_SPACE) for kind in value.split(",")]
    kept = [kind for kind in kinds if kind.strip('"').lower() != "view"]
    return value if kept == kinds else ", ".join(kept)


def _schemas(w: Walk, names: list[str], location: int) -> list[str]:
    """The schemas that a search_path means."""
    scope = w.scope
    if scope.hides and "information_schema" in names:
        w.refuse(
            "search_path",
            "permission denied for schema information_schema in search_path",
            detail="Its relations show one tenant's own objects only where their schema is named.",
            hint="Write information_schema in front of their names.",
            location=location,
            name="information_schema",
        )
    return [scope.schema if name == "public" and scope.public_is_own else name for name in names]


def _value(w: Walk, argument: Mapping[str, Any]) -> str | None:
    """A constant argument of SET, as text."""
    w.exact = True
    if "A_Const" in argument:
        constant = argument["A_Const"]
        for field, inner in (("sval", "sval"), ("fval", "fval"), ("ival", "ival")):
            if field in constant:
                return str(constant[field].get(inner, 0 if field == "ival" else ""))
        if "boolval" in constant:
            return "true" if constant["boolval"].get("boolval") else "false"
        return None
    # SET TIME ZONE INTERVAL '…'
    return w.constant(argument)


def _check(w: Walk, name: str, value: str | None, location: int, *, bound_to: bool = False) -> None:
    """`bound_to`: by a Bind, when the relay has been told what the statement does."""
    if name in IDENTITY_SETTINGS and _keeps_identity(w, name, value):
        return
    if name in LITERAL_SETTINGS:
        w.effects |= int(Effect.LITERALS)
    if name == "seed" and not bound_to and name not in (*w.scope.denied_settings, *w.scope.locked):
        # what random() gives next is the backend's, not the session's
        w.pin("random_seed")
        w.stored |= int(Effect.PINS)
        return
    scope = w.scope
    _raise(
        w,
        check_setting(
            name,
            value,
            schema=scope.schema,
            allowed_schemas=scope.allowed_schemas,
            denied=scope.denied_settings,
            locked=scope.locked,
        ),
        location,
    )


def transaction_modes(w: Walk, modes: Sequence[Mapping[str, Any]], *, session: bool = False) -> None:
    """Of BEGIN, SET TRANSACTION and SET SESSION CHARACTERISTICS, where some are locked."""
    for mode in modes if w.scope.locked else ():
        if "DefElem" not in mode:
            continue
        name = mode["DefElem"]["defname"]
        if session or not _is_restriction(mode["DefElem"]):
            _check(w, f"default_{name}" if session else name, "", NOWHERE)


def _is_restriction(mode: Body) -> bool:
    """Whether it is READ ONLY."""
    value = mode.get("arg", {}).get("A_Const", {}).get("ival", {})
    return mode["defname"] == "transaction_read_only" and bool(value.get("ival"))


def _keeps_identity(w: Walk, name: str, value: str | None) -> bool:
    """Whether the session is still the tenant's role afterwards.

    RESET ROLE goes back to what the startup packet said, where the relay names the role; SET ROLE NONE
    goes to the login.  Resetting session_authorization also makes the role the login again, in minor
    versions before that of November 2024, and so may be done only where the login is the role.
    """
    if value is None:
        return name == "role" or (name == "session_authorization" and not w.scope.role_is_set)
    return name == "role" and value == w.scope.role != ""


def _raise(w: Walk, refusal: ProxyError | None, location: int) -> None:
    if refusal is not None:
        w.refuse(
            refusal.reason,
            refusal.message,
            sqlstate=refusal.sqlstate,
            detail=refusal.detail,
            hint=refusal.hint or "",
            location=location,
            name=refusal.schema or "",
        )


def set_config(w: Walk, arguments: Sequence[Mapping[str, Any]], location: int) -> None:
    """set_config(name, value, is_local): the name must be known, and the value where it matters."""
    if len(arguments) != 3:
        return  # no such function
    name = w.constant(w.filtered.get(id(arguments[0]), arguments[0]), strict="text")
    if name is None:
        parameter = _parameter(w, arguments[0])
        if not w.bind(parameter, bound.SETTING):
            w.refuse(
                "setting_dynamic",
                "permission denied for function set_config",
                detail="The name of the setting is not a constant.",
                hint="Write the setting's name as a constant, or bind it.",
                location=location,
                name="set_config",
            )
        w.bind(_parameter(w, arguments[1]), f"{bound.VALUE_OF}{parameter['number']}")
        w.effects |= int(Effect.LITERALS)
        _set(w, "*", arguments[2])
        return
    name = canonical_name(name)
    value = w.constant(arguments[1], strict="text")
    if value is None and not _is_null(w, arguments[1]):
        if name not in _VALUE_DECIDES:
            # some value: names that are refused whatever the value still are
            value = ""
        elif not w.bind(_parameter(w, arguments[1]), f"{bound.VALUE}{name}"):
            w.refuse(
                "setting_dynamic",
                f'permission denied to set parameter "{name}"',
                detail="The value is not a constant.",
                hint="Write the setting's value as a constant, bind it, or use SET.",
                location=location,
                name=name,
            )
    elif name == "search_path" and value:
        value = _search_path(w, value, arguments[1], location)
    elif name == _RESTRICTS_VIEWS and value and w.scope.hides:
        _keep_views(w, arguments[1], value)
    _check(w, name, value, location)
    if value is None or name in IDENTITY_SETTINGS:
        # resets it: a shared backend goes back to other values than a login's, and to another role
        w.effects |= int(Effect.ESCALATES)
        w.stored |= int(Effect.ESCALATES)
    _set(w, name, arguments[2])


def _set(w: Walk, name: str, is_local: Mapping[str, Any]) -> None:
    if _is_true(is_local):
        w.effects |= int(Effect.KEEPS)
    else:
        w.set([name])


def _search_path(w: Walk, value: str, argument: Mapping[str, Any], location: int) -> str:
    """set_config's value as it goes to the server."""
    names = split_identifiers(value)
    if names is None:
        return value  # `_check` will refuse it
    meant = _schemas(w, names, location)
    if meant == names:
        return value
    result = join_identifiers(meant)
    w.replace_string(argument, result)
    return result


def _parameter(w: Walk, argument: Mapping[str, Any]) -> Body:
    """The ParamRef that an argument is, perhaps cast to text; empty if it is anything else."""
    while "TypeCast" in argument and w.keeps(argument["TypeCast"]["typeName"]):
        argument = argument["TypeCast"].get("arg", {})
    found: Body = argument.get("ParamRef", {})
    return found


def bound_setting(w: Walk, name: str, value: str | None, *, known: bool = True) -> str | None:
    """Judges the name and value of a set_config() that were bound; returns the value for the server.

    Not `known`: the value is some other than a parameter.
    """
    name = canonical_name(name)
    if name in _VALUE_DECIDES:
        charge(len(value or "") * COST_OF_A_LIST)
    if not known:
        if name in _VALUE_DECIDES:
            w.refuse(
                "setting_dynamic",
                f'permission denied to set parameter "{name}"',
                detail="The value is neither a constant nor a parameter.",
                hint="Bind the setting's value as well, or use SET.",
                name=name,
            )
        value = ""
    elif name == "search_path" and value:
        names = split_identifiers(value)
        meant = None if names is None else _schemas(w, names, NOWHERE)
        if meant is not None and meant != names:
            value = join_identifiers(meant)
    elif name == _RESTRICTS_VIEWS and value and w.scope.hides:
        value = _without_views(value)
    _check(w, name, value, NOWHERE, bound_to=True)
    return value


def note_filter(w: Walk, select: Body) -> None:
    """Lets pg_dump's `SELECT set_config(name, '…', false) FROM pg_settings WHERE name = '…'` be read.

    There the column is what WHERE compares it with; or something else, should the operator be one of the
    tenant's own, so that the value must be one that does no harm to any setting.
    """
    where = select.get("whereClause", {}).get("A_Expr", {})
    if "withClause" in select or where.get("kind") != "AEXPR_OP" or strings(where["name"]) != ["="]:
        return
    if not _is_name_column(where.get("lexpr", {})):
        return
    for item in select.get("targetList", ()):
        call = item["ResTarget"].get("val", {}).get("FuncCall", {})
        arguments = call.get("args", ())
        if (
            len(arguments) == 3
            and _is_name_column(arguments[0])
            and w.constant(where.get("rexpr")) == _RESTRICTS_VIEWS
            and _RESTRICTED.issuperset(
                kind.strip(_SPACE) for kind in (w.constant(arguments[1]) or "").split(",")
            )
        ):
            w.filtered[id(arguments[0])] = where["rexpr"]


def _is_name_column(node: Mapping[str, Any]) -> bool:
    return "ColumnRef" in node and strings(node["ColumnRef"]["fields"]) == ["name"]


def _is_null(w: Walk, argument: Mapping[str, Any]) -> bool:
    while "TypeCast" in argument and w.keeps(argument["TypeCast"]["typeName"]):
        argument = argument["TypeCast"].get("arg", {})
    return "A_Const" in argument and bool(argument["A_Const"].get("isnull"))


def _is_true(argument: Mapping[str, Any]) -> bool:
    return "A_Const" in argument and bool(argument["A_Const"].get("boolval", {}).get("boolval"))
