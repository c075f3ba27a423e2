"""What may not run on a backend that tenants share (docs/decisions/0012-shared-backends.md).

There the session belongs to a login that may become every tenant.  Statements that change rows, open and
end transactions or SET something are the only ones that run there; all others are marked
`Effect.ESCALATES` and run on a backend logged in as the tenant's own role.  What a statement stores or runs
as code is looked at too: where that may do what no statement on a shared backend may, it is marked
`Effect.UNPROVEN`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tenant_proxy.guard import bound, catalogs
from tenant_proxy.guard.walk import Body, Rule, Walk, strings
from tenant_proxy.model import Effect
from tenant_proxy.settings_policy import IDENTITY_SETTINGS, canonical_name

_ESCALATES: Final = int(Effect.ESCALATES)
_UNPROVEN: Final = int(Effect.UNPROVEN)
_CODE: Final = int(Effect.DDL)

#: of code: what may not happen unseen on a shared backend
RISKS: Final = int(
    Effect.ESCALATES
    | Effect.UNPROVEN
    | Effect.PINS
    | Effect.SETTINGS
    | Effect.DDL
    | Effect.DEALLOCATES
    | Effect.DISCARDS_ALL
    | Effect.RESETS
)

_SHARED: Final = frozenset(
    {
        "SelectStmt",
        "InsertStmt",
        "UpdateStmt",
        "DeleteStmt",
        "MergeStmt",
        "TransactionStmt",
        "DeclareCursorStmt",
        "FetchStmt",
        "ClosePortalStmt",
        "VariableSetStmt",
        "VariableShowStmt",
        "DeallocateStmt",
        "ListenStmt",
        "UnlistenStmt",
        "NotifyStmt",
        "ConstraintsSetStmt",
        "LockStmt",
        "ExplainStmt",
        "CopyStmt",
        "TruncateStmt",
    }
)

#: settings by which a client would end a backend that others use next; they are not carried there
_OWN_ONLY: Final = frozenset({"idle_session_timeout"})

#: statements that read, and leave something in their transaction or depend on what was left
_KEEPING: Final = frozenset({"DeclareCursorStmt", "ExecuteStmt", "FetchStmt"})

#: what parameters mean that only Bind shows: which setting is changed, which SQL is run
_LATER: Final = frozenset({bound.SETTING, bound.QUERY})

#: a shared backend has other values to go back to than a login's
_RESETS: Final = frozenset({"VAR_RESET", "VAR_SET_DEFAULT", "VAR_SET_CURRENT"})

#: beside RESET ALL in one text: what drivers send when a connection goes back to their pool
_BESIDE_RESET: Final = frozenset({"ClosePortalStmt", "UnlistenStmt"})
_UNLOCKS: Final = "pg_advisory_unlock_all"


def note(w: Walk, tag: str, body: Body) -> None:
    """A statement, whole or in code."""
    if tag in ("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt"):
        # most
        return
    if (
        tag not in _SHARED
        or (tag == "VariableSetStmt" and body["kind"] in _RESETS)
        or (tag.startswith("Variable") and canonical_name(body.get("name", "")) in IDENTITY_SETTINGS)
        or (tag == "VariableSetStmt" and body["kind"] == "VAR_SET_MULTI" and _is_a_dump(body))
    ):
        w.effects |= _ESCALATES
    elif tag == "VariableSetStmt" and body["kind"] == "VAR_RESET_ALL":
        # elsewhere than in a text of its own it is one of `_RESETS`
        w.effects |= int(Effect.RESETS)
    if tag in _KEEPING:
        w.effects |= int(Effect.KEEPS)
    elif tag == "ConstraintsSetStmt" or body.get("is_local") or body.get("kind") == "VAR_SET_MULTI":
        w.sets_locally = True
    if tag == "ExplainStmt":
        for inner, inner_body in body["query"].items():
            note(w, inner, inner_body)
    elif tag == "DoStmt":
        w.runs_code = True


def _is_a_dump(body: Body) -> bool:
    """SET TRANSACTION of one snapshot that is only read, as pg_dump begins.

    It goes on with PREPARE, and could not be moved any more.
    """
    modes = {
        mode["DefElem"]["defname"]: mode["DefElem"].get("arg", {})
        for mode in body.get("args", ())
        if "DefElem" in mode
    }
    constant = modes.get("transaction_isolation", {}).get("A_Const", {})
    isolation = constant.get("sval", {}).get("sval", "")
    only_read = modes.get("transaction_read_only", {}).get("A_Const", {}).get("ival", {}).get("ival")
    return (
        body.get("name") == "TRANSACTION"
        and isolation in ("repeatable read", "serializable")
        and bool(only_read)
    )


def settle(w: Walk) -> None:
    """At the end: whether code was stored or run that is not proven."""
    if not _OWN_ONLY.isdisjoint(w.settings) or any(kind in _LATER for _, kind in w.bound):
        w.effects |= _ESCALATES
    if w.stored & RISKS and (w.effects & _CODE or w.runs_code):
        w.effects |= _ESCALATES | _UNPROVEN


def settle_reset(w: Walk, tree: Sequence[Mapping[str, Any]]) -> None:
    """At the end of a text with RESET ALL: whether the settings may be reset before it runs."""
    for statement in tree:
        ((tag, body),) = statement["stmt"].items()
        if not (tag in _BESIDE_RESET or body.get("kind") == "VAR_RESET_ALL" or _unlocks(tag, body)):
            w.effects = w.effects & ~int(Effect.RESETS) | _ESCALATES


def _unlocks(tag: str, body: Body) -> bool:
    """SELECT pg_advisory_unlock_all(), and no more."""
    if tag != "SelectStmt" or any(body.get(key) for key in body.keys() - {"targetList", "op", "limitOption"}):
        return False
    calls = [target["ResTarget"].get("val", {}).get("FuncCall", {}) for target in body["targetList"]]
    return all(strings(call.get("funcname", ()))[-1:] == [_UNLOCKS] and "args" not in call for call in calls)


def dynamic(w: Walk) -> None:
    """SQL that is only known when it runs."""
    if w.scope.locked:
        w.refuse(
            "locked_settings",
            "permission denied for SQL that is put together at run time",
            detail="It could change a parameter that the operator has locked by locked_settings.",
            hint="Write the statement as a constant.",
        )
    w.stored |= _UNPROVEN


def unread(w: Walk) -> None:
    """Code of which it is not certain that all SQL in it was judged."""
    if w.scope.locked:
        w.refuse(
            "locked_settings",
            "permission denied for code that can't be checked",
            detail="It could change a parameter that the operator has locked by locked_settings.",
            hint="Declare all that it assigns to, and name no variable like a table or its alias.",
        )
    w.stored |= _UNPROVEN


def _value_function(w: Walk, body: Body) -> bool:
    if body["op"] == "SVFOP_SESSION_USER":
        # a shared backend's is not the tenant's
        w.effects |= _ESCALATES
        w.stored |= _ESCALATES
    return bool(catalogs.RULES["SQLValueFunction"](w, body))


RULES: Final[Mapping[str, Rule]] = {"SQLValueFunction": _value_function}


def is_proven(effects: int | Any) -> bool:
    """Of a verdict on a function's definition."""
    return not int(effects) & _UNPROVEN
