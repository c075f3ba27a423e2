"""Named statements of clients of one login that have literals read otherwise (relay/readings.pyx)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import either_isolation
from tests.wire_client import SYNC, WireClient, bind, close_statement, execute, parse, query, rows, sqlstates

DATE = "SELECT '01/02/2020'::date::text = '2020-02-01'"
TIME = "SELECT extract(epoch FROM '2020-01-01 00:00'::timestamptz) = 1577836800"
SPAN = "SELECT '-1 2:00'::interval = '-1 day -2 hours'::interval"
NULLS = "SELECT '{NULL}'::text[] = ARRAY['NULL']"
TEXT = b"SELECT length('\xc3\xa9') = 1"


@pytest.fixture(params=["dedicated", "shared"])
def proxy(request, proxies, pg) -> Proxy:
    return either_isolation(request.param, proxies, pg, 1)


def said(client: WireClient, name: str) -> str | None:
    ((value,),) = rows(client.ask(bind(name=name), execute(), SYNC))
    return value


@pytest.mark.parametrize(
    ("settings", "sql", "answers"),
    [
        ({"DateStyle": "ISO, DMY"}, DATE, ("t", "f")),
        ({"TimeZone": "Asia/Tokyo"}, TIME, ("f", "t")),
        ({"IntervalStyle": "sql_standard"}, SPAN, ("t", "f")),
        ({"client_encoding": "LATIN1"}, TEXT, ("f", "t")),
        # what the server does not report
        ({"array_nulls": "off"}, NULLS, ("t", "f")),
        ({"transform_null_equals": "on"}, "SELECT (1 = NULL) IS NULL", ("f", "t")),
    ],
)
@pytest.mark.parametrize("at_startup", [True, False])
def test_each_has_its_own(proxy: Proxy, settings: dict[str, str], sql: Any, answers, at_startup: bool):
    with proxy.wire(**(settings if at_startup else {})) as one, proxy.wire() as other:
        if not at_startup:
            for name, value in settings.items():
                assert not sqlstates(
                    one.query(f"SET {name} = {value if name == 'DateStyle' else repr(value)}")
                )
        for client in (one, other):
            assert not sqlstates(client.ask(parse(sql, "s"), SYNC))
        for _ in range(2):
            assert (said(one, "s"), said(other, "s")) == answers


def test_it_follows_what_a_client_sets(proxy: Proxy):
    with proxy.wire() as one, proxy.wire() as other:
        assert not sqlstates(other.ask(parse(TIME, "s"), SYNC))
        one.query("BEGIN; SELECT 1")
        one.query("SET LOCAL TimeZone = 'Asia/Tokyo'")
        assert not sqlstates(one.ask(parse(TIME, "s"), SYNC))
        assert said(one, "s") == "f"
        one.query("COMMIT")
        assert (said(other, "s"), said(one, "s")) == ("t", "t")
        one.query("SET TimeZone = 'Asia/Tokyo'")
        assert (said(other, "s"), said(one, "s")) == ("t", "f")
        one.query("RESET TimeZone")
        assert (said(one, "s"), said(other, "s")) == ("t", "t")


@pytest.mark.parametrize(
    "setting",
    [
        "SET array_nulls = off",
        "BEGIN; SET LOCAL array_nulls = off",
        "BEGIN; SELECT set_config('array_nulls', 'off', true)",
        "DO $$ BEGIN SET array_nulls = off; END $$",
        "DO $$ BEGIN PERFORM set_config('array_nulls', 'off', false); END $$",
    ],
)
def test_what_the_server_does_not_report_is_nobody_else_s(proxy: Proxy, setting: str):
    with proxy.wire() as one, proxy.wire() as other:
        for client in (one, other):
            assert not sqlstates(client.ask(parse(NULLS, "before"), SYNC))
        for statement in setting.split(";", 1) if setting.startswith("BEGIN") else (setting,):
            assert not sqlstates(one.query(statement))
        assert not sqlstates(one.ask(parse(NULLS, "s"), SYNC))
        assert said(one, "s") == "t"
        one.query("COMMIT")
        assert not sqlstates(other.ask(parse(NULLS, "s"), SYNC))
        assert (said(other, "before"), said(other, "s")) == ("f", "f")


SET = "SET DateStyle = ISO, DMY"


def in_a_batch(sql: str) -> list[bytes]:
    return [parse(sql), bind(), execute()]


@pytest.mark.parametrize(
    ("before", "ahead", "its_own"),
    [
        ([], [query(SET)], "t"),
        ([], in_a_batch(SET), "t"),
        ([], [query("SELECT set_config('DateStyle', 'ISO, DMY', false)")], "t"),
        (["BEGIN"], [query("SET LOCAL DateStyle = ISO, DMY")], "t"),
        (["BEGIN", "SET LOCAL DateStyle = ISO, DMY"], [query("COMMIT")], "f"),
        (["BEGIN", SET, "SELECT 1/0"], [query("ROLLBACK")], "f"),
        (["BEGIN", "SAVEPOINT s", SET], [query("ROLLBACK TO s")], "f"),
        ([SET], [query("RESET ALL")], "f"),
        ([], [query(f"DO $$ BEGIN {SET}; END $$")], "t"),
    ],
)
def test_what_is_set_in_the_same_write(proxy: Proxy, before: list[str], ahead: list[bytes], its_own: str):
    """A statement that is read by what the proxy does not know yet is no other client's."""
    with proxy.wire() as one, proxy.wire() as other, proxy.wire(DateStyle="ISO, DMY") as third:
        for _ in range(2):
            for sql in before:
                one.query(sql)
            one.send(*ahead, parse(DATE, "s"), bind(name="s"), execute(), SYNC)
            replies = one.until_ready(1 + ahead[-1].startswith(b"Q"))
            assert rows(replies)[-1] == (its_own,)
            one.query("ROLLBACK")
            for client, answer in ((other, "f"), (third, "t")):
                client.ask(close_statement("s"), SYNC)
                assert not sqlstates(client.ask(parse(DATE, "s"), SYNC))
                assert said(client, "s") == answer
            # in the same write as another change
            one.query("RESET ALL")
            one.send(query(SET), bind(name="s"), execute(), SYNC)
            one.until_ready(2)
            assert (said(one, "s"), said(other, "s"), said(third, "s")) == ("t", "f", "t")
            one.query("RESET ALL")
            one.ask(close_statement("s"), SYNC)
