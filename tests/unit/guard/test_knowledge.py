"""The guard's tables: what they say of the parse tree and of functions, and that nothing slips in unseen."""

from __future__ import annotations

import inspect
from typing import Any

import pglast.ast
import pytest

from tenant_proxy.guard.effects import REFUSED, STATEMENTS
from tenant_proxy.guard.functions import ATTRIBUTES, FUNCTIONS, Fact, extension_fact
from tenant_proxy.guard.judge import _RULES
from tenant_proxy.guard.names import array_elements, is_oid, split_qualified, truncated
from tenant_proxy.guard.nodes import LEAVES, LIST, NODE, NODES, SCALAR
from tenant_proxy.guard.walk import Walk
from tenant_proxy.model import Effect
from tests.unit.guard.scope import ACME

# --- the tree ------------------------------------------------------------------


def described() -> dict[str, dict[str, str]]:
    """pglast's own description: node -> field -> C type."""
    found: dict[str, dict[str, str]] = {}
    for name, node in vars(pglast.ast).items():
        slots: Any = getattr(node, "__slots__", None)
        if inspect.isclass(node) and issubclass(node, pglast.ast.Node) and isinstance(slots, dict):
            found[name] = {
                field.removesuffix("_"): str(getattr(kind, "c_type", kind)) for field, kind in slots.items()
            }
    return found


#: filled by analysis, never by the grammar
ANALYSED = {("CallStmt", "funcexpr"), ("CallStmt", "outargs"), ("IntoClause", "viewQuery")}


@pytest.mark.parametrize("tag", sorted(NODES.keys() - {"List"}))
def test_fields_are_those_of_the_tree(tag):
    """A field that a new grammar adds fails here, and at run time refuses the statement."""
    fields = described()[tag]
    assert set(NODES[tag]) == {name for name in fields if (tag, name) not in ANALYSED}
    for name, kind in NODES[tag].items():
        declared = fields[name].rstrip("*")
        if isinstance(kind, str):
            assert kind == declared, name
            assert kind in NODES
        elif kind == NODE:
            assert declared in ("Node", "Expr"), name
        elif kind == LIST:
            assert declared == "List", name
        elif kind == SCALAR and declared in ("Node", "Expr"):
            pytest.fail(f"{tag}.{name} is a node, and is not walked")


def test_every_field_that_is_not_walked_is_judged_by_a_rule():
    """Lists and nodes without walking are lists of columns or words, or the rule of their node reads them."""
    harmless = {
        ("AccessPriv", "cols"),
        ("Alias", "colnames"),
        ("CTECycleClause", "cycle_col_list"),
        ("CTESearchClause", "search_col_list"),
        ("CommonTableExpr", "aliascolnames"),
        ("CopyStmt", "attlist"),
        ("CreateEnumStmt", "vals"),
        ("CreateStatsStmt", "stat_types"),
        ("CreateTrigStmt", "args"),
        ("CreateTrigStmt", "columns"),
        ("Constraint", "fk_attrs"),
        ("Constraint", "fk_del_set_cols"),
        ("Constraint", "including"),
        ("Constraint", "keys"),
        ("Constraint", "old_conpfeqop"),
        ("Constraint", "pk_attrs"),
        ("GroupingFunc", "refs"),
        ("IndexStmt", "excludeOpNames"),
        ("IntoClause", "colNames"),
        ("JoinExpr", "usingClause"),
        ("RowExpr", "colnames"),
        ("VacuumRelation", "va_cols"),
        ("ViewStmt", "aliases"),
        ("XmlExpr", "arg_names"),
        ("AlterTSConfigurationStmt", "tokentype"),
    }
    fields = described()
    for tag, kinds in NODES.items():
        if tag == "List":
            continue
        for name, kind in kinds.items():
            compound = fields[tag][name].endswith("*") and fields[tag][name] != "char*"
            if kind == SCALAR and compound and (tag, name) not in harmless:
                assert tag in _RULES, f"{tag}.{name}"


def test_every_statement_of_the_grammar_is_known_or_refused():
    statements = {name for name in described() if name.endswith("Stmt")}
    # not statements of their own: parts of others, or made by analysis
    parts = {
        "RawStmt",
        "PLAssignStmt",
        "ReturnStmt",
        "ReplicaIdentityStmt",
        "PlannedStmt",
        "SetOperationStmt",
    }
    assert statements - parts == STATEMENTS.keys() | REFUSED.keys()
    assert not STATEMENTS.keys() & REFUSED.keys()
    assert STATEMENTS.keys() <= NODES.keys()
    assert not REFUSED.keys() & NODES.keys()
    assert not LEAVES & NODES.keys()


@pytest.mark.parametrize(
    ("tag", "body", "what"),
    [
        ("BrandNewExpr", {}, "node BrandNewExpr"),
        ("SelectStmt", {"brandNew": 1}, "field SelectStmt.brandNew"),
        ("ResTarget", {"val": {"BrandNewExpr": {}}}, "node BrandNewExpr"),
    ],
)
def test_what_is_not_known_is_refused(tag, body, what):
    walk = Walk(ACME, "")
    with pytest.raises(Exception, match="does not know") as caught:
        walk.walk(tag, body)
    refusal: Any = caught.value
    assert refusal.reason == "unknown_syntax"
    assert what in refusal.detail


# --- functions -----------------------------------------------------------------


def refused(name: str) -> str:
    fact = FUNCTIONS[name]
    return fact.refused if fact is not None else ""


def test_facts_of_some_functions():
    assert FUNCTIONS["lower"] is None
    assert FUNCTIONS["count"] is None
    assert FUNCTIONS["now"] is None
    assert FUNCTIONS["date"] is None  # a type, called
    assert refused("pg_read_file") == "files of the server"
    assert refused("pg_terminate_backend")
    nextval = FUNCTIONS["nextval"]
    assert isinstance(nextval, Fact)
    assert nextval.effects == Effect.WRITES
    assert [name.kind for name in nextval.names[1]] == ["relation"]
    search = FUNCTIONS["to_tsquery"]
    assert isinstance(search, Fact)
    assert list(search.names) == [2]  # with one argument it is text
    lock = FUNCTIONS["pg_advisory_lock"]
    assert isinstance(lock, Fact)
    assert (lock.effects, lock.pin_reason) == (Effect.PINS, "advisory_lock")


def test_every_volatile_function_was_looked_at():
    """One that was not would be refused as unclassified; of the supported majors there is none."""
    assert [name for name in FUNCTIONS if "classified" in refused(name)] == []


def test_attributes_that_could_call_something_unsafe():
    assert {"pg_read_file", "nextval", "pg_advisory_lock", "lo_import", "to_regclass"} <= ATTRIBUTES
    # what applications call columns
    assert (
        not {"name", "id", "data", "value", "date", "time", "count", "format", "text", "version"} & ATTRIBUTES
    )


def test_extensions_by_name():
    for name in ("dblink", "dblink_connect_u", "postgres_fdw_disconnect_all", "connectby"):
        fact = extension_fact(name)
        assert fact is not None
        assert fact.refused
    assert extension_fact("uuid_generate_v4") is None
    crosstab = extension_fact("crosstab")
    assert crosstab is not None
    assert crosstab.queries == {1: (0,), 2: (0, 1)}


# --- names in literals ---------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("A.B", ["a", "b"]),
        (' a . "B c" ', ["a", "B c"]),
        ('"a""b".c', ['a"b', "c"]),
        ("É.x", ["É", "x"]),
        ("a.b.c", ["a", "b", "c"]),
        ("x" * 70, ["x" * 63]),
        ("é" * 40, ["é" * 31]),
        ('be"ta', ['be"ta']),
        ("", None),
        ("a.", None),
        (".a", None),
        ("a..b", None),
        ("a b", None),
        ('"a', None),
        ('""', None),
        ('"a"b', None),
    ],
)
def test_qualified_names(text, parts):
    assert split_qualified(text) == parts


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("{}", []),
        ("{a,b}", ["a", "b"]),
        (' { a , "b c" } ', ["a", "b c"]),
        (r'{"a\"b",c\,d}', ['a"b', "c,d"]),
        ("{NULL,a}", ["a"]),
        ("a", None),
        ("{a", None),
        ("{{a}}", None),
        ("{a,}", None),
        ("{,a}", None),
        ('{"a}', None),
        ('{a"b"}', None),
        ("[1:1]={a}", None),
    ],
)
def test_array_literals(text, elements):
    assert array_elements(text) == elements


def test_oids():
    assert is_oid("16384")
    assert is_oid(" 1 ")
    assert is_oid("-")
    assert not is_oid("1a")
    assert not is_oid("")


def test_truncation_keeps_characters_whole():
    assert truncated("a" * 62 + "é") == "a" * 62
    assert truncated("a" * 61 + "é") == "a" * 61 + "é"
