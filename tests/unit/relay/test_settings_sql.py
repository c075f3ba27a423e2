"""SQL that reads a session's settings and brings it to others: what a client has set is data, never SQL."""

import pglast
import pglast.ast
import pglast.visitors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_proxy.relay.settings import SettingsTable, ask_sql, change_sql, literal

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
NAMES = st.from_regex(r"[a-z_][a-z0-9_$]{0,8}(\.[a-zA-Z_][a-zA-Z0-9_$]{0,8})?", fullmatch=True)
#: the parser takes its time
FEW = settings(max_examples=30, deadline=None)
SETS = st.dictionaries(NAMES, TEXT, max_size=5)


def constants(sql: str) -> list[str]:
    """The string constants of a text, as PostgreSQL's parser reads them."""
    found: list[str] = []

    class Collect(pglast.visitors.Visitor):
        def visit_A_Const(self, _ancestors, node):
            if isinstance(node.val, pglast.ast.String):
                found.append(str(node.val.sval))

    Collect()(pglast.parse_sql(sql))
    return found


def words(sql: str) -> list[str]:
    """One word a statement, and the names that it resets."""
    shown = []
    for raw in pglast.parse_sql(sql):
        stmt = raw.stmt
        shown.append(f"RESET {stmt.name}" if isinstance(stmt, pglast.ast.VariableSetStmt) else "SELECT")
    return shown


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("", "''"),
        ("UTC", "'UTC'"),
        ("it's", "'it''s'"),
        ("back\\slash", "'back\\slash'"),
        ("żółć", "U&'\\017c\\00f3\\0142\\0107'"),
        ("ü's \\", "U&'\\00fc''s \\\\'"),
        ("🐘", "U&'\\+01f418'"),
    ],
)
def test_literals(text, sql):
    assert literal(text) == sql


@FEW
@given(TEXT)
def test_a_literal_is_read_as_its_text(text):
    assert constants("SELECT " + literal(text)) == [text]


@given(TEXT)
def test_a_literal_is_ascii(text):
    assert literal(text).isascii()


def test_changes():
    sql = change_sql(
        {"work_mem": "4096", "gone": "1", "kept": "x"}, {"work_mem": "8192", "kept": "x", "a.b": "'"}
    )
    assert sql == (
        "RESET \"gone\"; SELECT pg_catalog.set_config('work_mem', '8192', false), "
        "pg_catalog.set_config('a.b', '''', false)"
    )


def test_names_in_parts_are_reset_in_parts():
    assert change_sql({'app."x': "1"}, {}) == 'RESET "app"."""x"'


@FEW
@given(SETS, SETS)
def test_a_change_sets_what_differs_and_resets_what_is_gone(have, want):
    sql = change_sql(have, want)
    if have == want:
        assert sql == ""
        return
    differing = {name: value for name, value in want.items() if have.get(name) != value}
    assert constants(sql) == [word for pair in differing.items() for word in pair]
    resets = [f"RESET {name}" for name in have if name not in want]
    assert words(sql) == resets + ["SELECT"] * bool(differing)


@FEW
@given(st.lists(NAMES, max_size=5, unique=True))
def test_settings_of_unknown_extensions_are_asked_for_by_name(names):
    sql = ask_sql(names)
    assert len(pglast.parse_sql(sql)) == 1
    asked = [word for word in constants(sql) if word in names]
    assert sorted(asked) == sorted(names)


@FEW
@given(SETS, SETS)
def test_a_table_gives_back_what_it_was_given(first, second):
    table = SettingsTable()
    one, two = table.intern(first), table.intern(second)
    assert (table.get(one), table.get(two)) == (first, second)
    assert (one == two) == (first == second)
    if first != second:
        assert table.change(one, two)[5:-1].decode() == change_sql(
            dict(sorted(first.items())), dict(sorted(second.items()))
        )
