"""Rules for statements that are not definitions: rows, transactions, sessions, COPY, EXPLAIN, upkeep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tenant_proxy.guard import bodies, catalogs, settings
from tenant_proxy.guard.effects import STATEMENTS
from tenant_proxy.guard.expressions import call, relation
from tenant_proxy.guard.walk import NOWHERE, Body, Rule, Walk, strings
from tenant_proxy.model import Effect

_READS, _WRITES, _GROWS = int(Effect.READS), int(Effect.WRITES), int(Effect.GROWS)
_CURSOR_HOLD: Final = 0x20  # CURSOR_OPT_HOLD (parsenodes.h)

#: names of prepared statements on servers (relay/statements.pyx)
_POOLS_STATEMENT: Final = re.compile(r"tp_([0-9a-f]+|none|refused|turn[0-9]+)")

_TWO_PHASE: Final = {"TRANS_STMT_PREPARE", "TRANS_STMT_COMMIT_PREPARED", "TRANS_STMT_ROLLBACK_PREPARED"}

#: DefElem's argument as a boolean (defGetBoolean): no argument, or one of these
_FALSE: Final = {"false", "off", "0"}


def option(options: list[Any], name: str) -> Any:
    """The DefElem of an option, or None; of several the last."""
    found = None
    for item in options:
        if item["DefElem"].get("defname") == name:
            found = item["DefElem"]
    return found


def option_text(element: Mapping[str, Any]) -> str:
    """An option's argument as text, "" if it has none."""
    argument = element.get("arg") or {}
    for tag, field in (("String", "sval"), ("Integer", "ival"), ("Float", "fval"), ("Boolean", "boolval")):
        if tag in argument:
            return str(argument[tag].get(field, 0 if tag == "Integer" else "")).lower()
    if "TypeName" in argument:
        return strings(argument["TypeName"]["names"])[-1]
    return ""


# --- rows ---------------------------------------------------------------------------------


def _select(w: Walk, body: Body) -> bool:
    if "withClause" in body and catalogs.shadowing(w, "SelectStmt", body):
        return True
    w.effects |= _READS
    if "lockingClause" in body:
        w.effects |= _WRITES
    source = body.get("fromClause")
    if (
        source
        and len(source) == 1
        and source[0].get("RangeVar", {}).get("relname") == "pg_settings"
        and "pg_settings" not in w.shadowed
    ):
        settings.note_filter(w, body)
    return False


def _writes_relation(tag: str, grows: int = _GROWS) -> Rule:
    def rule(w: Walk, body: Body) -> bool:
        if "withClause" in body and catalogs.shadowing(w, tag, body):
            return True
        relation(w, body["relation"], write=True)
        w.effects |= _WRITES | grows
        return False

    return rule


def _into(w: Walk, body: Body) -> None:
    """The new table of SELECT INTO, CREATE TABLE AS, CREATE MATERIALIZED VIEW."""
    created(w, body["rel"], drops=body.get("onCommit") == "ONCOMMIT_DROP")
    w.effects |= int(Effect.DDL) | _WRITES


def created(w: Walk, target: Body, *, drops: bool = False) -> None:
    """A relation that a statement makes; `drops` if it goes at the end of the transaction."""
    relation(w, target, write=True)
    temporary = target.get("relpersistence") == "t" or target.get("schemaname") == "pg_temp"
    if temporary and not drops:
        w.pin("temp_table")
    if not temporary:
        # what is temporary goes with its session, and is not the tenant's storage
        w.effects |= _GROWS


# --- transactions and sessions ----------------------------------------------------------------


def _transaction(w: Walk, body: Body) -> bool:
    if body["kind"] in _TWO_PHASE:
        w.refuse(
            "two_phase",
            "two-phase transactions are not allowed through this proxy",
            detail="Their names are shared by all tenants of the cluster.",
            hint="Use COMMIT.",
            location=body.get("location", NOWHERE),
        )
    if w.scope.locked:
        settings.transaction_modes(w, body.get("options", ()))
    w.effects |= int(Effect.XACT_CONTROL) | _ALONE.get(body["kind"], 0) * ("chain" not in body)
    return True


#: what a transaction begins and ends with (`judge` takes it away where there is more in the text)
_ALONE: Final = {
    "TRANS_STMT_BEGIN": int(Effect.BEGINS),
    "TRANS_STMT_START": int(Effect.STARTS),
    "TRANS_STMT_COMMIT": int(Effect.COMMITS),
    "TRANS_STMT_ROLLBACK": int(Effect.ROLLS_BACK),
}


def _declare_cursor(w: Walk, body: Body) -> None:
    if body.get("options", 0) & _CURSOR_HOLD:
        w.pin("hold_cursor")


def _not_the_pools(w: Walk, name: str, *, new: bool = False) -> None:
    """A server keeps the statements of all clients of a pool, under names of the proxy's own."""
    if _POOLS_STATEMENT.fullmatch(name):
        w.refuse(
            "statement_name",
            f'prepared statement name "{name}" is reserved'
            if new
            else f'prepared statement "{name}" does not exist',
            sqlstate="42939" if new else "26000",
            detail="The proxy keeps names of this form for itself.",
            hint="Give the prepared statement another name.",
            name=name,
        )


def _prepare(w: Walk, body: Body) -> bool:
    _not_the_pools(w, body["name"], new=True)
    for item in body.get("argtypes", ()):
        w.walk_node(item)
    binds, w.binds = w.binds, False
    later = w.walk_later(body["query"])
    w.binds = binds
    # a lock taken by EXECUTE outlives DEALLOCATE, so that reason stays when the statement goes
    w.pin("advisory_lock" if later & int(Effect.PINS) else "prepare")
    return True


def _deallocate(w: Walk, body: Body) -> bool:
    _not_the_pools(w, body.get("name", ""))
    w.effects |= int(Effect.DEALLOCATES)
    w.deallocates.append(body.get("name") or "*")
    return True


def _discard(w: Walk, body: Body) -> bool:
    if body["target"] == "DISCARD_ALL":
        if w.scope.role_is_set:
            w.refuse(
                "discard_all",
                "permission denied for DISCARD ALL",
                detail=f'It may reset the role, and this connection must stay role "{w.scope.role}" of '
                f'tenant "{w.scope.tenant}".',
                hint="Use RESET ALL, DEALLOCATE ALL, CLOSE ALL, UNLISTEN *, DISCARD PLANS, DISCARD TEMP, "
                "DISCARD SEQUENCES and pg_advisory_unlock_all().",
            )
        w.effects |= int(Effect.DISCARDS_ALL | Effect.DEALLOCATES)
        w.deallocates.append("*")
        w.set(["*"])
    return True


def _execute(w: Walk, body: Body) -> None:
    """The statement was judged by PREPARE; what it does is not known here, nor what it sets.

    By Parse, and its values are judged when they are bound: of a text the relay looks which it is
    (relay/executed.py), and where dynamic SQL is read, that is.  In other code nobody would.
    """
    name = body["name"]
    _not_the_pools(w, name)
    if (w.in_code or w.here is not w.text) and not w.is_dynamic:
        w.refuse(
            "dynamic_query",
            f'permission denied for prepared statement "{name}"',
            detail="Code may not run what the session has prepared.",
            hint="Write the statement itself, or use EXECUTE in a PL/pgSQL function.",
            name=name,
        )
    w.effects |= STATEMENTS["ExecuteStmt"].effects
    w.executes.append(name)
    if name in w.scope.statements:
        w.rename((name,), NOWHERE, w.scope.statements[name], keyword="EXECUTE")
    w.set(["*"])


def _constraints_set(w: Walk, body: Body) -> bool:
    for item in body.get("constraints", ()):
        relation(w, item["RangeVar"], write=True)
    return True


def _relations_written(w: Walk, body: Body) -> bool:
    for item in body["relations"]:
        relation(w, item["RangeVar"], write=True)
    return True


# --- code, COPY, EXPLAIN --------------------------------------------------------------------------


def _call(w: Walk, body: Body) -> bool:
    """A procedure's call; arguments are expressions."""
    funccall = body["funccall"]
    call(w, strings(funccall["funcname"]), funccall.get("args", ()), funccall.get("location", 0))
    for item in funccall.get("args", ()):
        w.walk_node(item)
    return True


def _explain(w: Walk, body: Body) -> bool:
    analyze = option(body.get("options", []), "analyze")
    runs = analyze is not None and option_text(analyze) not in _FALSE
    if runs:
        w.walk_node(body["query"])
    else:
        # planning may run functions that are declared immutable
        w.effects |= w.walk_later(body["query"]) & int(Effect.OPAQUE | Effect.EXECUTES)
    w.effects |= _READS
    return True


def _copy(w: Walk, body: Body) -> bool:
    if body.get("is_program") or body.get("filename") is not None:
        what = "a program" if body.get("is_program") else "a file"
        direction = "FROM" if body.get("is_from") else "TO"
        w.refuse(
            "server_file",
            f"permission denied to COPY {direction} {what}",
            detail="Files and programs of the server are shared by all tenants.",
            hint="Use COPY FROM STDIN or COPY TO STDOUT (psql's \\copy does).",
        )
    if body.get("is_from"):
        w.effects |= _WRITES | _GROWS | int(Effect.COPIES)
    else:
        w.effects |= _READS
    if "relation" in body and (body.get("is_from") or not catalogs.copied(w, body)):
        relation(w, body["relation"], write=bool(body.get("is_from")))
    w.walk_node(body.get("query"))
    w.walk_node(body.get("whereClause"))
    return True  # options name columns and encodings of the data


# --- upkeep -----------------------------------------------------------------------------------------


def _whole_database(w: Walk, what: str) -> None:
    w.refuse(
        "whole_database",
        f"permission denied for {what} of the whole database",
        hint="Name the tables.",
    )


def _vacuum(w: Walk, body: Body) -> None:
    if not body.get("rels"):
        _whole_database(w, "VACUUM" if body.get("is_vacuumcmd") else "ANALYZE")


def _vacuum_relation(w: Walk, body: Body) -> bool:
    relation(w, body["relation"], write=True)
    return True


def _cluster(w: Walk, body: Body) -> None:
    if "relation" not in body:
        _whole_database(w, "CLUSTER")
    relation(w, body["relation"], write=True)


def _reindex(w: Walk, body: Body) -> None:
    if "relation" in body:
        relation(w, body["relation"], write=True)
    elif body["kind"] == "REINDEX_OBJECT_SCHEMA":
        w.check_schema(body["name"], NOWHERE, write=True)
    else:
        _whole_database(w, "REINDEX")


def _refresh(w: Walk, body: Body) -> None:
    w.effects |= _WRITES | _GROWS
    relation(w, body["relation"], write=True)


def _nothing(w: Walk, body: Body) -> bool:
    return True


RULES: Final[Mapping[str, Rule]] = {
    "SelectStmt": _select,
    "InsertStmt": _writes_relation("InsertStmt"),
    "UpdateStmt": _writes_relation("UpdateStmt"),
    "DeleteStmt": _writes_relation("DeleteStmt", 0),
    "MergeStmt": _writes_relation("MergeStmt"),
    "IntoClause": _into,
    "TransactionStmt": _transaction,
    "DeclareCursorStmt": _declare_cursor,
    "VariableSetStmt": settings.variable_set,
    "VariableShowStmt": _nothing,
    "DiscardStmt": _discard,
    "DeallocateStmt": _deallocate,
    "PrepareStmt": _prepare,
    "ExecuteStmt": _execute,
    "ConstraintsSetStmt": _constraints_set,
    "LockStmt": _relations_written,
    "TruncateStmt": _relations_written,
    "CallStmt": _call,
    "DoStmt": bodies.do_block,
    "ExplainStmt": _explain,
    "CopyStmt": _copy,
    "VacuumStmt": _vacuum,
    "VacuumRelation": _vacuum_relation,
    "ClusterStmt": _cluster,
    "ReindexStmt": _reindex,
    "RefreshMatViewStmt": _refresh,
}

assert not {tag for tag in RULES if tag.endswith("Stmt")} - set(STATEMENTS)
