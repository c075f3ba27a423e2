"""Statements that reach the server changed, and what comes back in the client's own terms.

Here "public." becomes "tenant_one." on its way, and the tenant's channels begin with "k3nzq7w2ab5cd.".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tenant_proxy.model import Effect
from tenant_proxy.relay.wayback import Changed, Names, Place
from tenant_proxy.wire.messages import message
from tests.protocol.stage import Hooks, Session, Stage
from tests.protocol.wire import (
    BOUND,
    IDLE,
    OPEN,
    PARSED,
    SYNC,
    bind,
    complete,
    describe,
    error,
    execute,
    notice,
    notification,
    parse,
    query,
    result,
    row,
    text,
)

SPACE = "k3nzq7w2ab5cd"
NAMES = Names(space=SPACE, schema="tenant_one", hides=True, public_is_own=True)


def as_changed(given: tuple[int, bytes, bytes, list[Place]] | None) -> Changed | None:
    if given is None:
        return None
    _, before, after, places = given
    return Changed(before, after, places, "utf_8")


class Rewriting(Hooks):
    #: the words that replace the schema public; another when the rules change
    schema = b"tenant_one"

    def judge(self, session: Session, scope: int, sql: bytes | None, client: int) -> int | bytes | None:
        if scope == 0:
            raise AssertionError("judged before it was known how")
        effects = super().judge(session, scope, sql, client)
        if isinstance(effects, int) and sql is not None and b"public." in sql and scope != 9:
            effects |= Effect.REWRITES
        return effects

    def edits(self, scope: int, sql: bytes, client: int) -> list[tuple[int, int, bytes]]:
        to = self.schema if scope == 1 else b"scope%d" % scope
        return [(found.start(), found.end() - 1, to) for found in re.finditer(rb"public\.", sql)]

    def on_error(self, pool: int, body: bytes, changed) -> tuple[bool, bytes | None]:
        fatal, _ = super().on_error(pool, body, changed)
        return fatal, NAMES.error(body, as_changed(changed))

    def on_notice(self, client: int, pool: int, body: bytes, changed) -> bytes | None:
        return NAMES.notice(body, as_changed(changed))

    def on_encoding(self, value: bytes) -> int:
        return {b"UTF8": 0, b"LATIN1": 1 << 24}[value]


@pytest.fixture(params=["epoll", "loop"])
def stage(request, monkeypatch) -> Iterator[Stage]:
    monkeypatch.setenv("TP_NO_EPOLL", "1" if request.param == "loop" else "0")
    stage = Stage(hooks=Rewriting)
    stage.pool(translates=True, prefix=NAMES.prefix, own=b"tenant_one")
    yield stage
    stage.close()


def failed(words: str, position: int | None = None, schema: str = "", **more: str) -> bytes:
    fields = {"S": "ERROR", "V": "ERROR", "C": "42P01", "M": words}
    if position is not None:
        fields["P"] = str(position)
    if schema:
        fields["s"] = schema
    fields |= more
    return message(b"E", b"".join(code.encode() + text(value) for code, value in fields.items()) + b"\0")


def same(peer, expected: bytes) -> None:
    """Byte for byte: `<<` looks at an error's SQLSTATE only."""
    assert peer.take() == expected


# --- to the server -----------------------------------------------------------------------------


def test_a_query_is_sent_changed(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT * FROM public.a, public.b -- é")
    server << query("SELECT * FROM tenant_one.a, tenant_one.b -- é")
    server >> result("1")
    client << result("1")
    assert server.state == "idle"


def test_queries_in_one_burst_keep_their_order(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1") + query("SELECT public.f()") + query("SELECT 2") + query("SELECT public.g()")
    server << (
        query("SELECT 1")
        + query("SELECT tenant_one.f()")
        + query("SELECT 2")
        + query("SELECT tenant_one.g()")
    )


def test_in_session_mode(stage: Stage):
    client, server = stage.session_pair(translates=True)
    client >> query("SELECT public.f()")
    server << query("SELECT tenant_one.f()")
    server >> result("1")
    client << result("1")
    client >> parse("s", "SELECT public.f($1)", 23) + bind("s", b"1") + execute() + SYNC
    server << parse("s", "SELECT tenant_one.f($1)", 23) + bind("s", b"1") + execute() + SYNC


def test_a_prepared_statement_is_known_by_what_the_server_has(stage: Stage):
    one, server = stage.pair()
    one >> parse("mine", "SELECT public.f($1)", 23) + bind("mine", b"1") + execute() + SYNC
    server << parse("tp_1", "SELECT tenant_one.f($1)", 23) + bind("tp_1", b"1") + execute() + SYNC
    server >> PARSED + BOUND + row("1") + complete("SELECT 1") + IDLE
    one << PARSED + BOUND + row("1") + complete("SELECT 1") + IDLE
    other = stage.client()
    other >> parse("x", "SELECT tenant_one.f($1)", 23) + bind("x", b"2") + SYNC
    server << bind("tp_1", b"2") + SYNC
    server >> BOUND + IDLE
    other << PARSED + BOUND + IDLE


def test_the_unnamed_statement_is_sent_again_to_another_server(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT public.f()") + SYNC
    server << parse("", "SELECT tenant_one.f()") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE
    other = stage.client()
    other >> query("SELECT 1")
    server << query("SELECT 1")
    client >> bind("") + execute() + SYNC
    server = stage.server()
    server << parse("", "SELECT tenant_one.f()") + bind("") + execute() + SYNC


def test_a_text_that_grows_past_the_limit_is_refused(stage: Stage):
    client, _ = stage.pair()
    client >> query("SELECT '" + "x" * ((1 << 20) - 45) + "', public.a, public.b, public.c")
    client << error("54000") + IDLE


def test_much_grows_in_one_burst(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT " + ", ".join(["public.a"] * 20_000)) + query("SELECT 1")
    server << query("SELECT " + ", ".join(["tenant_one.a"] * 20_000)) + query("SELECT 1")


def test_a_refused_statement_behind_a_changed_one(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT public.f()") + query("SELECT forbidden FROM public.x")
    server << query("SELECT tenant_one.f()") + query("tenant_proxy refused this statement")
    server >> result("1") + error("42601") + IDLE
    client << result("1") + error("42501") + IDLE


# --- the way back ---------------------------------------------------------------------------------


def test_positions_are_those_of_the_client_s_text(stage: Stage):
    client, server = stage.pair()
    sql = "SELECT 'é', x FROM public.a, public.b WHERE public.a.y"
    sent = sql.replace("public.", "tenant_one.")
    client >> query(sql)
    server << query(sent)
    for at in (sent.index("x"), sent.index("tenant_one.b"), sent.index("one.b"), sent.index("WHERE")):
        server >> failed("m", at + 1)
    server >> IDLE
    expected = (sql.index("x"), sql.index("public.b"), sql.index("public.b"), sql.index("WHERE"))
    same(client, b"".join(failed("m", at + 1) for at in expected) + IDLE)


def test_positions_of_others_stay(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT x FROM nowhere") + query("SELECT public.x")
    server.take()
    server >> failed("m", 15) + IDLE
    same(client, failed("m", 15) + IDLE)
    server >> failed("m", 19) + IDLE
    same(client, failed("m", 15) + IDLE)


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("name", ["", "mine"])
@pytest.mark.parametrize("step", ["parse", "bind", "describe", "execute"])
def test_positions_at_each_step_of_the_extended_protocol(stage: Stage, session, name, step):
    client, server = stage.session_pair(translates=True) if session else stage.pair()
    client >> parse(name, "SELECT public.f(), x") + SYNC
    server.take()
    if step == "parse":
        server >> failed("m", 24) + IDLE
        same(client, failed("m", 20) + IDLE)
        return
    server >> PARSED + IDLE
    client << PARSED + IDLE
    if step == "describe":
        client >> describe(name) + SYNC
        server.take()
        server >> failed("m", 24) + IDLE
        # in session mode the relay does not know statements by their names there
        same(client, failed("m", 24 if session else 20) + IDLE)
        return
    client >> bind(name, portal="p") + execute("p") + SYNC
    server.take()
    server >> (BOUND if step == "execute" else b"") + failed("m", 24) + IDLE
    same(client, (BOUND if step == "execute" else b"") + failed("m", 20) + IDLE)


def test_a_portal_of_another_statement_is_not_mixed_up(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT public.f(), x") + bind("", portal="p") + execute("p") + SYNC
    server.take()
    server >> PARSED + BOUND + complete("SELECT 1") + IDLE
    client.take()
    client >> parse("", "SELECT nothing.f(), x") + bind("", portal="p") + execute("p") + SYNC
    server.take()
    server >> PARSED + BOUND + failed("m", 24) + IDLE
    same(client, PARSED + BOUND + failed("m", 24) + IDLE)


def test_names_in_errors_and_notices_are_those_that_the_client_knows(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    server.take()
    server >> notice('relation "tenant_one.a" in "tp_catalog.pg_class"') + notice("nothing special")
    server >> failed(
        f'"tp_information_schema.tables" and {SPACE}.jobs of schema "tenant_one", not my_tp_catalog',
        schema="tp_catalog",
        D="tp_catalog_sys.pg_class",
        q="SELECT tenant_one.a, tp_information_schema.x",
        p="37",
    )
    server >> IDLE
    same(
        client,
        notice('relation "public.a" in "pg_catalog.pg_class"')
        + notice("nothing special")
        + failed(
            '"information_schema.tables" and jobs of schema "public", not my_tp_catalog',
            schema="pg_catalog",
            D="pg_catalog.pg_class",
            q="SELECT public.a, information_schema.x",
            p="33",
        )
        + IDLE,
    )


def test_a_pool_that_changes_nothing_is_told_everything_as_it_is(stage: Stage):
    pool = stage.pool()
    client = stage.client(pool=pool)
    client >> query("SELECT 1")
    server = stage.server()
    server.take()
    server >> notice("tp_catalog") + result("1")
    same(client, notice("tp_catalog") + result("1"))


@pytest.mark.parametrize("bytes_each", [1, 3, 1000])
def test_channels_lose_what_the_proxy_put_in_front(stage: Stage, bytes_each):
    client, server = stage.session_pair(translates=True, prefix=NAMES.prefix)
    client >> query("SELECT 1")
    server.take()
    said = (
        notification(7, f"{SPACE}.jobs", f"about {SPACE}.jobs")
        + notification(7, "others")
        + row(f"{SPACE}.jobs")
        + notification(7, SPACE)
        + notification(8, f"{SPACE}.")
        + complete("SELECT 1")
        + IDLE
    )
    for at in range(0, len(said), bytes_each):
        server >> said[at : at + bytes_each]
    same(
        client,
        notification(7, "jobs", f"about {SPACE}.jobs")
        + notification(7, "others")
        + row(f"{SPACE}.jobs")
        + notification(7, SPACE)
        + notification(8, "")
        + complete("SELECT 1")
        + IDLE,
    )


# --- rules that change, rules that are not known --------------------------------------------------------


@pytest.mark.parametrize("name", ["", "mine"])
def test_a_statement_is_judged_anew_when_the_rules_have_changed(stage: Stage, name):
    client, server = stage.pair()
    pool = stage.first_pool()
    client >> parse(name, "SELECT public.f()", 23) + SYNC
    server.take()
    server >> PARSED + IDLE
    client << PARSED + IDLE
    stage.engine.pool_names(pool, 2, True, NAMES.prefix, b"")
    client >> bind(name, b"1") + execute() + SYNC
    known_as = "tp_2" if name else ""
    server << parse(known_as, "SELECT scope2.f()", 23) + bind(known_as, b"1") + execute() + SYNC
    server >> PARSED + BOUND + complete("SELECT 1") + IDLE
    client << BOUND + complete("SELECT 1") + IDLE
    # nothing more to do the second time
    client >> bind(name, b"1") + execute() + SYNC
    server << bind(known_as, b"1") + execute() + SYNC
    server >> BOUND + complete("SELECT 1") + IDLE
    client << BOUND + complete("SELECT 1") + IDLE
    # and by rules that change nothing the text is the client's own again
    stage.engine.pool_names(pool, 9, True, NAMES.prefix, b"")
    client >> describe(name) + SYNC
    again = "tp_3" if name else ""
    server << parse(again, "SELECT public.f()", 23) + describe(again) + SYNC


def test_a_statement_that_the_new_rules_refuse(stage: Stage):
    client, server = stage.pair()
    client >> parse("mine", "SELECT 1") + SYNC
    server.take()
    server >> PARSED + IDLE
    client.take()
    stage.hooks.judge = lambda session, scope, sql, client: error("42501")  # type: ignore[method-assign]
    stage.engine.pool_names(stage.first_pool(), 2, True, b"", b"")
    client >> bind("mine") + execute() + SYNC
    client << error("42501") + IDLE


def test_nothing_is_judged_before_it_is_known_how(stage: Stage):
    pool = stage.pool(scope=0)
    client = stage.client(pool=pool)
    stage.servers_log_in = False
    client >> query("SELECT public.f()") + query("SELECT 2")
    assert stage.hooks.judged == []
    server = stage.server()
    # as the dialer does when a server has said what there is
    stage.engine.pool_names(pool, 1, True, b"", b"")
    stage.engine.server_login(server.id)
    stage.engine.server_ready(server.id, server.pid, 0)
    stage.engine.poke()
    server << query("SELECT tenant_one.f()") + query("SELECT 2")
    server >> result("1") + result("2")
    client << result("1") + result("2")


def test_the_encoding_of_a_client_is_part_of_its_scope(stage: Stage):
    scopes: list[int] = []
    judge = stage.hooks.judge

    def noted(session: Session, scope: int, sql: bytes | None, client: int) -> int | bytes | None:
        scopes.append(scope)
        return judge(session, scope, sql, client)

    stage.hooks.judge = noted  # type: ignore[method-assign]
    client, server = stage.pair()
    client >> query("SET client_encoding = latin1")
    server.take()
    server >> message(b"S", text("client_encoding") + text("LATIN1")) + complete("SET") + IDLE
    server.take()
    server >> complete("SELECT 0") + IDLE  # the settings that were asked for
    client.take()
    client >> query("SELECT 1")
    server.take()
    server >> message(b"S", text("client_encoding") + text("UTF8")) + result("1")
    client.take()
    client >> query("BEGIN")
    server.take()
    server >> complete("BEGIN") + OPEN
    client.take()
    assert scopes == [1, 1 + (1 << 24), 1]
