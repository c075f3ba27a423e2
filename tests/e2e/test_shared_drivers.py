"""What drivers do on shared backends that an application would not write by hand."""

from __future__ import annotations

from tests.fix_shared import backend_of, is_shared
from tests.wire_client import (
    SYNC,
    bind,
    describe_statement,
    errors,
    execute,
    message,
    parse,
    query,
    rows,
    sqlstates,
    types,
)

FLUSH = message("H")


def test_what_was_only_prepared_keeps_no_backend(fresh, pg):
    """asyncpg asks for types with Flush, and may never run it: no transaction that would be repeated."""
    with fresh.wire("acme_app") as acme:
        assert is_shared(pg, backend_of(acme))
        for then in (
            query("CREATE TABLE later (id int)"),
            parse("DROP TABLE later") + bind() + execute() + SYNC,
        ):
            acme.send(parse("SELECT 41 + 1", "kept") + describe_statement("kept") + FLUSH)
            assert types(acme.until("T")) == "1tT"
            acme.send(then)
            assert sqlstates(acme.until_ready()) == []
            acme.send(bind(name="kept") + execute() + SYNC)
            assert rows(acme.until_ready()) == [("42",)]
            acme.query("DEALLOCATE ALL")
        # one in which something has run is refused
        acme.send(parse("SELECT 1") + bind() + execute() + FLUSH)
        acme.until("C")
        acme.send(query("CREATE TABLE later (id int)"))
        assert sqlstates(acme.until_ready()) == ["40001"]


def test_a_pipeline_that_begins_with_definitions_begins_where_they_can_run(fresh, pg):
    """In a pipeline nobody can repeat a transaction: what follows BEGIN in it is looked at first."""
    with fresh.wire("acme_app") as acme:
        assert is_shared(pg, backend_of(acme))
        texts = ("BEGIN", "CREATE TABLE later (id int)", "INSERT INTO later VALUES (1)", "ROLLBACK")
        acme.send(b"".join(parse(sql) + bind() + execute() for sql in texts) + SYNC)
        assert sqlstates(acme.until_ready()) == []


def test_errors_of_statements_by_name_tell_the_servers_routine(fresh):
    """As the server's own do; drivers look at it."""
    with fresh.wire("acme_app") as acme:
        missing = errors(acme.ask(describe_statement("none"), SYNC))
        twice = errors(acme.ask(parse("SELECT 1", "s"), parse("SELECT 1", "s"), SYNC))
        assert [(e["C"], e["R"]) for e in missing + twice] == [
            ("26000", "FetchPreparedStatement"),
            ("42P05", "StorePreparedStatement"),
        ]
