"""The table of SHOW VIOLATIONS: no literal gets in, and nobody can fill it."""

from __future__ import annotations

import time

import pglast
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenant_proxy.model import Action, Verdict
from tenant_proxy.relay import violations
from tenant_proxy.relay.violations import Violations, statement_of

VERDICT = Verdict(
    Action.REJECT, sqlstate="42501", reason="cross_schema", object_name="beta.t", rule="cross_schema"
)


def record(table: Violations, statement: str, tenant: str = "acme", user: str = "acme_app") -> None:
    table.record(tenant, user, "reject", VERDICT, statement)


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT 'hunter2', 5, 1.5 FROM beta.t -- hunter2", "SELECT ?, ?, ? FROM beta.t"),
        ("SELECT E'hunter2' FROM beta.t", "SELECT …"),
        ("/* hunter2 */ -- x\n (select $$hunter2$$)", "SELECT …"),
        ("DO $$ hunter2 $$", "DO …"),
        ("hunter2 $$x$$", "…"),
        ("'hunter2", "…"),
        ("ALTER ROLE x PASSWORD 'hunter2'", "ALTER ROLE x PASSWORD ?"),
        ("SELECT 'hunter2\\'", "SELECT …"),
        ("", ""),
        ("\xff\xfe", "\xff\xfe"),
    ],
)
def test_no_literal_is_shown(sql, shown):
    assert statement_of(sql.encode()) == shown


SECRET = "hunter2"
PIECES = [
    f"'{SECRET}'", f"E'{SECRET}'", f"e'\\'{SECRET}'", f"$${SECRET}$$", f"$a${SECRET}$a$", f"U&'{SECRET}'",
    f"N'{SECRET}'", f"'x''{SECRET}'", f"'\n{SECRET}'", f"-- {SECRET}\n", f"/* {SECRET} */", f"/*/*{SECRET}*/",
    "'", "''", '"', "$$", "$", "--", "/*", "*/", "\\", "\n", " ", "(", ")", ",", ";", "SELECT", "a", "é", "1",
    "1.5e", "x", "=", "||", "::", ".", "U&", "E", "$1",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example(f"SELECT '{SECRET}' '{SECRET}'")
def test_what_the_scanner_calls_a_literal_or_comment_is_never_shown(text):
    shown = statement_of(text.encode())
    if SECRET not in shown:
        return
    try:
        scanned = pglast.parser.scan(text)
    except pglast.parser.ParseError:
        assert '""' in text  # a name without a character, which only the scanner minds
        return
    # a quote that an earlier one opened can make a name of it
    names = [text[token.start : token.end + 1] for token in scanned if token.name in ("IDENT", "UIDENT")]
    assert shown.count(SECRET) == sum(name.count(SECRET) for name in names)


def test_names_can_not_move_a_terminal():
    assert statement_of('SELECT * FROM "a\x9b31m\u202e".t'.encode()) == 'SELECT * FROM "a\ufffd31m\ufffd".t'
    table = Violations()
    named = Verdict(Action.REJECT, reason="cross_schema", object_name="\x1b]0;x\x07.t")
    table.record("acme", "acme_app", "reject", named, "SELECT …")
    assert table.rows()[0]["object"] == "\ufffd]0;x\ufffd.t"


def test_long_texts():
    assert statement_of(b"SELECT " + b"a, " * 1000 + b"b").endswith("…")
    assert len(statement_of(b"SELECT " + b"a, " * 1000 + b"b")) <= 500
    assert statement_of(b"INSERT INTO t VALUES " + b"(1)," * 10_000 + b"(1)") == "INSERT …"
    assert statement_of(b"/*" * 1_000_000) == "…"


def test_the_same_is_counted(monkeypatch):
    table = Violations()
    for user in ("a", "b"):
        record(table, "SELECT ?", user=user)
    (row,) = table.rows()
    assert (row["count"], row["user"], row["tenant"], row["object"]) == (2, "b", "acme", "beta.t")
    assert row["first_us"] <= row["last_us"]


def test_a_flood_drives_out_its_own_only():
    table = Violations()
    record(table, "SELECT ?", tenant="beta")
    for number in range(10_000):
        record(table, f"SELECT a{number}")
    rows = table.rows()
    assert [row["statement"] for row in rows if row["tenant"] == "beta"] == ["SELECT ?"]
    own = [row["statement"] for row in rows if row["tenant"] == "acme"]
    assert len(own) == violations.MOST_OF_TENANT
    # the latest
    assert own[-1] == "SELECT a9999"
    assert table.dropped == 10_000 - violations.MOST_OF_TENANT


def test_what_is_seen_again_stays():
    table = Violations()
    record(table, "SELECT old")
    for number in range(1000):
        record(table, f"SELECT a{number}")
        record(table, "SELECT old")
    assert "SELECT old" in [row["statement"] for row in table.rows()]


def test_many_tenants_share_the_room():
    table = Violations()
    for tenant in range(3000):
        for number in range(20):
            record(table, f"SELECT a{number}", tenant=f"t{tenant}")
    assert len(table.rows()) <= violations.MAX_ROWS * 2 + 3000 * violations.LEAST_OF_TENANT
    table.keep({"t7"})
    assert {row["tenant"] for row in table.rows()} == {"t7"}
    table.reset()
    assert (table.rows(), table.dropped) == ([], 0)


def test_a_flood_does_not_fill_the_log(monkeypatch):
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    table = Violations()
    assert [table.line("acme") for _ in range(1000)].count(0) == violations.LOG_BURST
    assert table.line("beta") == 0
    now_s += 1
    said = [table.line("acme") for _ in range(1000)]
    assert said[: int(violations.LOG_PER_S)] == [1000 - violations.LOG_BURST, *[0] * 9]
    assert set(said[int(violations.LOG_PER_S) :]) == {None}
    now_s += 3600
    assert [table.line("acme") for _ in range(1000)].count(None) == 1000 - violations.LOG_BURST
    table.keep(set())
    assert table.line("acme") == 0
