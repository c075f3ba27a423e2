"""Transactions that begin on a shared backend, and need one of the tenant's own before they leave a trace."""

from __future__ import annotations

import pytest

from tests.fix_shared import backend_of, is_shared, shares_again
from tests.wire_client import SYNC, WireClient, bind, close_statement, execute, parse, query, sqlstates


def test_a_transaction_that_has_only_read_moves(fresh, pg):
    with fresh.wire("acme_app") as acme:
        acme.query("BEGIN READ WRITE")
        assert acme.value("SELECT item FROM orders WHERE id = 1") == "anvil"
        assert is_shared(pg, backend_of(acme))
        said = acme.query("CREATE TABLE later (id int)")
        assert sqlstates(said) == []
        assert not is_shared(pg, backend_of(acme))
        assert sqlstates(acme.query("INSERT INTO later VALUES (1)")) == []
        acme.query("ROLLBACK")
        assert sqlstates(acme.query("TABLE later")) == ["42P01"]
        # and the next begin there at once, for a while
        acme.query("BEGIN")
        assert not is_shared(pg, backend_of(acme))
        acme.query("ROLLBACK")
        assert is_shared(pg, backend_of(acme))


def test_what_is_bound_and_not_run_is_not_repeated(fresh, pg):
    with fresh.wire("acme_app") as acme:
        acme.query("BEGIN")
        acme.query("SET LOCAL lock_timeout = '1s'")
        acme.ask(parse("SET LOCAL work_mem = '3MB'"), bind(), SYNC)
        acme.query("SELECT 1")
        assert sqlstates(acme.query("CREATE TABLE later (id int)")) == []
        assert acme.value("SHOW lock_timeout") == "1s"
        assert acme.value("SHOW work_mem") == "4MB"
        acme.query("ROLLBACK")


@pytest.mark.parametrize(
    "kept",
    [
        ["INSERT INTO scratch VALUES (77, 'written')"],
        ["SAVEPOINT a", "SELECT 1/0", "ROLLBACK TO a"],
        ["SET LOCAL app.owner = 'Zoë'"],
        ["SET LOCAL app.owner = E'a\\tb'"],
        ["SELECT set_config('work_mem', '7MB', true)"],
        ["SELECT pg_advisory_xact_lock(1)"],
        ["SELECT * FROM orders FOR UPDATE"],
        ["DECLARE c CURSOR FOR SELECT 1"],
        ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1"],
        ["SET LOCAL app.owner = '7'; SELECT 1"],
        ["SET TRANSACTION READ ONLY; SELECT 1"],
        ["SET CONSTRAINTS ALL IMMEDIATE; SELECT 1"],
    ],
    ids=lambda kept: kept[0].split("'")[0].strip(),
)
def test_a_transaction_that_has_left_something_does_not_move(fresh, kept):
    with fresh.wire("acme_app") as acme:
        acme.query("BEGIN")
        for sql in kept:
            assert sqlstates(acme.query(sql)) == (["22012"] if sql == "SELECT 1/0" else [])
        assert sqlstates(acme.query("CREATE TABLE later (id int)")) == ["40001"]
        acme.query("ROLLBACK")


def run(client: WireClient, sql: str, protocol: str) -> list[str]:
    """The SQLSTATEs of `sql`, sent so."""
    if protocol == "simple":
        return sqlstates(client.query(sql))
    name = "named" if protocol == "named" else ""
    client.send(
        (close_statement(name) if name else b"") + parse(sql, name=name) + bind(name=name) + execute() + SYNC
    )
    return sqlstates(client.until_ready())


@pytest.mark.parametrize("protocol", ["simple", "unnamed", "named"])
def test_a_transaction_that_has_set_and_marked_moves_with_that(fresh, pg, protocol):
    """As migrations begin: a lock's longest wait, a savepoint, and then the definition."""
    with fresh.wire("acme_app") as acme:
        assert run(acme, "BEGIN", protocol) == []
        assert run(acme, "SET LOCAL lock_timeout = '7s'", protocol) == []
        assert run(acme, "SET TimeZone = 'Asia/Tokyo'", protocol) == []
        assert run(acme, "SET app.owner = '7' -- mine", protocol) == []
        assert run(acme, "SELECT item FROM orders WHERE id = 1", protocol) == []
        assert run(acme, 'SAVEPOINT "a"', protocol) == []
        assert is_shared(pg, backend_of(acme))
        assert run(acme, "CREATE TABLE later (id int)", protocol) == []
        assert not is_shared(pg, backend_of(acme))
        assert acme.value("SHOW lock_timeout") == "7s"
        assert run(acme, 'ROLLBACK TO "a"', protocol) == []
        assert run(acme, "TABLE later", protocol) == ["42P01"]
        assert run(acme, 'ROLLBACK TO "a"', protocol) == []
        assert run(acme, "COMMIT", protocol) == []
        assert acme.value("SHOW TimeZone") == "Asia/Tokyo"
        assert acme.value("SHOW app.owner") == "7"
        assert acme.value("SHOW lock_timeout") == "0"


def test_what_was_set_in_a_moved_transaction_goes_with_its_rollback(fresh, pg):
    with fresh.wire("acme_app") as acme:
        for sql in ("BEGIN", "SET TimeZone = 'Asia/Tokyo'", "CREATE TABLE later (id int)"):
            assert sqlstates(acme.query(sql)) == []
        assert not is_shared(pg, backend_of(acme))
        assert acme.value("SHOW TimeZone") == "Asia/Tokyo"
        acme.query("ROLLBACK")
        assert acme.value("SHOW TimeZone") != "Asia/Tokyo"


def test_a_transaction_that_has_read_nothing_moves_whatever_its_isolation(fresh, pg):
    with fresh.wire("acme_app") as acme:
        for sql in (
            "START TRANSACTION",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "CREATE TABLE later (id int)",
        ):
            assert sqlstates(acme.query(sql)) == []
        assert acme.value("SHOW transaction_isolation") == "repeatable read"
        assert not is_shared(pg, backend_of(acme))
        acme.query("ROLLBACK")


def test_what_was_bound_and_not_executed_is_not_repeated(fresh, pg):
    with fresh.wire("acme_app") as acme:
        acme.query("BEGIN")
        acme.query("SET LOCAL app.one = '1'")
        acme.send(parse("SET LOCAL app.two = '2'") + bind() + SYNC)
        acme.until_ready()
        acme.send(parse("SET LOCAL app.three = '3'") + bind() + bind() + execute() + SYNC)
        acme.until_ready()
        acme.send(query("SET LOCAL app.four = '4'") + query("CREATE TABLE later (id int)"))
        acme.until_ready()
        assert sqlstates(acme.until_ready()) == []
        assert not is_shared(pg, backend_of(acme))
        for name, value in (("one", "1"), ("two", ""), ("three", "3"), ("four", "4")):
            assert acme.value(f"SELECT coalesce(current_setting('app.{name}', true), '')") == value
        acme.query("ROLLBACK")


def test_a_transaction_of_one_snapshot_does_not_move(fresh):
    with fresh.wire("acme_app") as acme:
        acme.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert acme.value("SELECT count(*) FROM orders") == "3"
        assert sqlstates(acme.query("CREATE TABLE later (id int)")) == ["40001"]
        assert sqlstates(acme.query("SELECT 1")) == ["25P02"]
        acme.query("ROLLBACK")


def test_a_transaction_that_a_view_has_written_in_does_not_move(fresh, pg, superuser):
    with pg.connect("acme_app", "acme-secret") as direct:
        direct.execute("SET search_path = acme")
        direct.execute(
            "CREATE FUNCTION notes() RETURNS int LANGUAGE sql AS"
            " $$ INSERT INTO scratch VALUES (78, 'by a view') RETURNING id $$;"
            "CREATE VIEW noted AS SELECT notes() AS id"
        )
    try:
        fresh.admin("RELOAD")
        with fresh.wire("acme_app") as acme:
            shares_again(pg, acme)
            acme.query("BEGIN")
            assert acme.value("SELECT id FROM noted") == "78"
            assert sqlstates(acme.query("CREATE TABLE later (id int)")) == ["40001"]
            acme.query("ROLLBACK")
    finally:
        superuser.execute("DROP FUNCTION acme.notes() CASCADE")


def test_a_portal_stays_with_its_transaction(fresh):
    with fresh.wire("acme_app") as acme:
        acme.query("BEGIN")
        acme.send(parse("SELECT id FROM orders") + bind(portal="p") + execute("p", 1) + SYNC)
        acme.until_ready()
        assert sqlstates(acme.query("CREATE TABLE later (id int)")) == ["40001"]
        acme.query("ROLLBACK")


def test_statements_that_are_closed_ahead_of_a_definition_keep_nothing(fresh, pg):
    """As pgjdbc closes what it has prepared, with what comes next."""
    with fresh.wire("acme_app") as acme:
        for begin in ([], ["BEGIN", "SELECT item FROM orders WHERE id = 1"]):
            assert run(acme, "SELECT 1", "named") == []
            for sql in begin:
                assert run(acme, sql, "simple") == []
            assert run(acme, "CREATE TABLE later (id int)", "named") == []
            assert run(acme, "ROLLBACK" if begin else "DROP TABLE later", "named") == []


@pytest.mark.parametrize("before", [True, False], ids=["before", "with it"])
def test_a_begin_that_is_prepared_looks_ahead_too(fresh, pg, before):
    """As pgjdbc prepares BEGIN, once it has sent some."""
    begin = parse("BEGIN", name="S_1")
    definition = parse("CREATE TABLE later (id int)", name="S_2") + bind(name="S_2") + execute() + SYNC
    with fresh.wire("acme_app") as acme:
        if before:
            acme.send(begin + SYNC)
            assert sqlstates(acme.until_ready()) == []
        acme.send((b"" if before else begin) + bind(name="S_1") + execute() + definition)
        assert sqlstates(acme.until_ready()) == []
        assert run(acme, "ROLLBACK", "simple") == []


def test_a_begin_that_is_bound_and_not_executed_begins_nothing(fresh, pg):
    with fresh.wire("acme_app") as acme:
        acme.send(parse("BEGIN", name="S_1") + bind(name="S_1") + SYNC)
        assert sqlstates(acme.until_ready()) == []
        assert run(acme, "SELECT 1", "unnamed") == []
        acme.send(bind(name="S_1") + execute() + SYNC)
        assert sqlstates(acme.until_ready()) == []
        assert run(acme, "SET LOCAL lock_timeout = '7s'", "named") == []
        assert run(acme, "CREATE TABLE later (id int)", "unnamed") == []
        assert acme.value("SHOW lock_timeout") == "7s"
        assert run(acme, "ROLLBACK", "simple") == []
