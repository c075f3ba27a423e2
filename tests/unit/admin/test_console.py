"""The admin console's language: what is understood, who may do what, what an error says."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.admin import console, pausing
from tenant_proxy.admin.pauses import Pauses
from tenant_proxy.admin.show import SHOWS
from tenant_proxy.admin.wire import result_messages
from tenant_proxy.errors import ProxyError
from tenant_proxy.model import ALL

from .fix_admin import Console, connection, tenant_row, worker_snapshot

WORDS = st.sampled_from(
    [
        "SHOW", "SET", "RESET", "select", "RELOAD", "KILL_CLIENT", "POOLS", "ALL", "LOCAL", "SESSION", "TO",
        "AS", "1", "'", '"', ";", "--", "/*", "*/", "=", ",", "version()", "\0", "\ud800",
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    "sql", ["SHOW VERSION", "show version;", "  Show\n\tVersion ; ", "/* a; b */ SHOW -- x;\n VERSION;;"]
)
async def test_commands_are_found_whatever_their_case_space_comments_and_semicolons(sql):
    result = await Console().run(sql)
    assert result.columns == [("version", 25)]
    assert str(result.rows[0][0]).startswith("tenant_proxy ")
    assert result.tag == "SHOW"
    assert result.then is None


@pytest.mark.parametrize("name", sorted(SHOWS))
async def test_every_show_answers_with_rows_as_wide_as_its_columns(name):
    result = await Console().run(f"SHOW {name}")
    assert result.columns
    assert all(len(row) == len(result.columns) for row in result.rows)
    assert len({column for column, _ in result.columns}) == len(result.columns)


async def test_help_names_every_command():
    commands = {row["command"] for row in await Console().rows("SHOW HELP")}
    assert {f"SHOW {name.upper()}" for name in SHOWS} | {
        "RELOAD",
        "KILL_CLIENT id",
        "RESET VIOLATIONS",
        "PAUSE [tenant]",
        "RESUME [tenant]",
    } == commands


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("SHOW NONSENSE", "42601"),
        ("SHOW", "42601"),
        ("'", "42601"),
        ("nonsense", "42601"),
        ("SELECT * FROM pg_catalog.pg_class", "0A000"),
        ("SELECT 1 FROM t", "0A000"),
        ("INSERT INTO t VALUES (1)", "0A000"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "0A000"),
        ("DISABLE", "0A000"),
        ("PAUSE nobody", "3D000"),
        ("PAUSE acme beta", "22023"),
        ("PAUSE *", "22023"),
        ("RESUME acme", "55000"),
        ("SHUTDOWN", "0A000"),
        ("SET max_clients = 5", "0A000"),
        ("KILL_CLIENT", "22023"),
        ("KILL_CLIENT x", "22023"),
        ("KILL_CLIENT 99999999999", "22023"),
        ("KILL_CLIENT ٣", "22023"),
        ("KILL_CLIENT 99", "22023"),
        ("RELOAD now", "22023"),
    ],
)
async def test_what_is_not_understood_is_refused_with_a_hint(sql, sqlstate):
    with pytest.raises(ProxyError) as error:
        await Console().run(sql)
    assert error.value.sqlstate == sqlstate
    assert error.value.hint
    assert not error.value.fatal


async def test_an_error_repeats_little_of_a_long_command():
    with pytest.raises(ProxyError) as error:
        await Console().run("x" * 5000)
    assert len(error.value.message) < 120


async def test_texts_and_numbers_of_statements_are_bounded():
    with pytest.raises(ProxyError, match="too large"):
        await Console().run("SHOW VERSION" + " " * console.MAX_TEXT)
    with pytest.raises(ProxyError, match="statements"):
        await Console().run("SELECT 1;" * (console.MAX_STATEMENTS + 1))


@pytest.mark.parametrize("sql", ["", " ", ";", " ;; ", "-- only a comment"])
async def test_an_empty_query_is_no_error(sql):
    assert (await Console().run(sql)).tag == ""


async def test_several_statements_give_several_results():
    first = await Console().run("SET client_encoding TO 'UTF8'; SHOW VERSION; SELECT 1")
    assert first.then
    assert first.then.then
    assert [first.tag, first.then.tag, first.then.then.tag] == ["SET", "SHOW", "SELECT 1"]
    assert first.then.then.then is None


@pytest.mark.parametrize(
    ("sql", "tag"),
    [
        ("SET client_encoding = 'UTF8'", "SET"),
        ("SET client_encoding='utf-8'", "SET"),
        ("SET SESSION datestyle TO 'ISO'", "SET"),
        ("set extra_float_digits = 3", "SET"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET"),
        ("SET TIME ZONE 'UTC'", "SET"),
        ("RESET ALL", "RESET"),
        ("DISCARD ALL", "DISCARD ALL"),
        ("DEALLOCATE ALL", "DEALLOCATE ALL"),
        ("CLOSE ALL", "CLOSE CURSOR ALL"),
        ("UNLISTEN *", "UNLISTEN"),
        ("BEGIN", "BEGIN"),
        ("begin read only", "BEGIN"),
        ("START TRANSACTION", "START TRANSACTION"),
        ("COMMIT", "COMMIT"),
        ("ROLLBACK", "ROLLBACK"),
    ],
)
async def test_what_drivers_send_on_their_own_account_is_accepted(sql, tag):
    assert (await Console(is_admin=False).run(sql)).tag == tag


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("SELECT 1", {"?column?": "1"}),
        ("select 'x;y' AS text", {"text": "x;y"}),
        (
            "SELECT current_database(), current_user",
            {"current_database": "tenant_proxy", "current_user": "root"},
        ),
        ("SELECT pg_catalog.current_schema()", {"current_schema": None}),
        ("SHOW client_encoding", {"client_encoding": "UTF8"}),
        ("SHOW TRANSACTION ISOLATION LEVEL", {"transaction_isolation_level": "read committed"}),
    ],
)
async def test_who_and_where_am_i(sql, row):
    assert await Console().rows(sql) == [row]


async def test_the_version_reads_as_a_server_version():
    (row,) = await Console().rows("SELECT pg_catalog.version()")
    assert str(row["version"]).startswith("PostgreSQL ")


@given(st.one_of(st.text(), st.lists(WORDS, max_size=8).map(" ".join)))
def test_any_text_is_answered_or_refused(text):
    try:
        result = asyncio.run(Console(is_admin=False).run(text))
    except ProxyError:
        return
    assert result_messages(result)


# --- rights ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql", ["RELOAD", "reload;", "reset violations", "KILL_CLIENT 7", "KILL_CLIENT", "PAUSE", "SHUTDOWN"]
)
async def test_who_may_only_look_changes_nothing(sql):
    watcher = Console(is_admin=False)
    with pytest.raises(ProxyError) as error:
        await watcher.run(sql)
    assert error.value.sqlstate == "42501"
    assert not watcher.hub.calls


async def test_pause_and_resume_of_one_and_of_all():
    admin = Console()
    assert (await admin.run('PAUSE "acme"')).tag == "PAUSE"
    await admin.run("pause acme")
    assert admin.hub.status["paused"] == ["acme"]
    await admin.run("PAUSE")
    assert {row["key"]: row["value"] for row in await admin.rows("SHOW STATE")}["paused"] == "yes"
    assert {row["paused"] for row in await admin.rows("SHOW DATABASES")} == {"1"}
    assert (await admin.run("RESUME acme")).tag == "RESUME"
    with pytest.raises(ProxyError, match="paused together") as error:
        await admin.run("RESUME acme")
    assert error.value.sqlstate == "55000"
    await admin.run("RESUME")
    assert admin.hub.status["paused"] == []


async def test_a_pause_that_somebody_holds_up_is_given_up(monkeypatch):
    monkeypatch.setattr(pausing, "PATIENCE_S", 0.1)
    admin = Console(worker_snapshot(tenants=[tenant_row("acme", holding=1)]))
    with pytest.raises(ProxyError, match="did not come to rest") as error:
        await admin.run("PAUSE acme")
    assert error.value.sqlstate == "55006"
    assert admin.hub.status["paused"] == []
    # whose others hold something is none of it
    await admin.run("PAUSE beta")
    assert admin.hub.status["paused"] == ["beta"]


async def test_pauses_of_several_admins_at_once(monkeypatch):
    """Each changes what it has asked for itself, whenever it does."""
    monkeypatch.setattr(pausing, "PATIENCE_S", 0.1)
    admin = Console(worker_snapshot(tenants=[tenant_row("acme", holding=1)]))
    waiting = asyncio.create_task(admin.run("PAUSE acme"))
    while admin.hub.status["paused"] != ["acme"]:
        await asyncio.sleep(0)
    await admin.run("PAUSE beta")
    with pytest.raises(ProxyError, match="nothing is paused"):
        await waiting
    assert admin.hub.status["paused"] == ["beta"]


@pytest.mark.parametrize("other", ["acme", ALL])
def test_a_pause_that_is_given_up_leaves_anothers(other):
    pauses = Pauses()
    first, second = pauses.begin("acme"), pauses.begin(other)
    assert not pauses.give_up(first)
    assert pauses.hold(second)
    assert pauses.names == [other]


def test_a_resume_ends_what_still_waits_and_nothing_later():
    pauses = Pauses()
    first = pauses.begin("acme")
    assert pauses.resume("acme")
    assert not pauses.resume("acme")
    second = pauses.begin("acme")
    assert not pauses.hold(first)
    assert pauses.names == ["acme"]
    assert pauses.give_up(second)
    assert pauses.names == []


async def test_reload_is_the_supervisors():
    admin = Console()
    admin.hub.reload_answer["warnings"] = ["listen.port: 6432 stays in force, a change needs a restart"]
    result = await admin.run("RELOAD")
    assert result.tag == "RELOAD"
    assert result.notices == ["listen.port: 6432 stays in force, a change needs a restart"]


async def test_a_failed_reload_tells_every_problem():
    admin = Console()
    admin.hub.reload_answer = {
        "ok": False, "errors": ["c.yaml:3: a", "c.yaml:9: b"], "warnings": [], "generation": 1,
    }  # fmt: skip
    with pytest.raises(ProxyError) as error:
        await admin.run("RELOAD")
    assert error.value.sqlstate == "F0000"
    assert error.value.detail == "c.yaml:3: a\nc.yaml:9: b"


async def test_kill_client_reaches_the_one_client_that_show_clients_numbered_so():
    """Two workers may have a client 7 each; only one of them may be hit."""
    admin = Console(
        worker_snapshot(clients=[connection(7, "beta", "b")]),
        worker_snapshot(clients=[connection(7, "acme", "a")]),
    )
    numbers = {row["tenant"]: row["id"] for row in await admin.rows("SHOW CLIENTS")}
    assert (await admin.run(f"KILL_CLIENT {numbers['acme']}")).tag == "KILL_CLIENT"
    assert admin.hub.calls[-1] == ("worker:1", "kill_client", {"id": 7})
    with pytest.raises(ProxyError, match="there is no client"):
        await admin.run(f"KILL_CLIENT {numbers['beta']}")
    assert admin.hub.calls[-1] == ("worker:0", "kill_client", {"id": 7})
