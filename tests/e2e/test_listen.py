"""LISTEN in transaction mode: as in a session of one's own, and no backend is kept for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import either_isolation
from tests.pg_server import Server
from tests.wire_client import (
    SYNC,
    Message,
    WireClient,
    bind,
    describe_statement,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    types,
    wait_until,
)


@pytest.fixture(params=["dedicated", "shared"])
def each_isolation(request: pytest.FixtureRequest, proxies: Callable[..., Proxy], pg: Server) -> Proxy:
    return either_isolation(request.param, proxies, pg, 2)


def notice(reply: Message) -> tuple[int, str, str]:
    """A NotificationResponse: process id, channel, payload."""
    assert reply.type == "A"
    channel, payload, _ = reply.body[4:].split(b"\0")
    return int.from_bytes(reply.body[:4], "big"), channel.decode(), payload.decode()


def told(replies: list[Message]) -> list[tuple[str, str]]:
    return [notice(reply)[1:] for reply in replies if reply.type == "A"]


def hears(client: WireClient) -> tuple[str, str]:
    """What an idle client is told."""
    return notice(client.receive())[1:]


def tags(replies: list[Message]) -> list[str]:
    return [reply.body[:-1].decode() for reply in replies if reply.type == "C"]


def test_no_backend_is_kept(each_isolation, pg):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(each_isolation.wire()) for _ in range(20)]
        for client in clients:
            assert tags(client.query("LISTEN news")) == ["LISTEN"]
        assert each_isolation.admin("SHOW PINS") == []
        with each_isolation.wire() as sender:
            assert tags(sender.query("NOTIFY news, 'hello'")) == ["NOTIFY"]
            for client in clients:
                assert hears(client) == ("news", "hello")
        listeners = each_isolation.admin("SHOW LISTENERS")
        assert len(listeners) == 20
        assert {(row["tenant"], row["channels"], row["channel"]) for row in listeners} == {
            ("acme", 1, "news")
        }
        assert len({row["listener_pid"] for row in listeners}) == 1
        assert each_isolation.metric("tenant_proxy_listeners", tenant="acme") == 20
        assert each_isolation.metric("tenant_proxy_listening_servers") >= 1
        assert each_isolation.metric("tenant_proxy_notifications_total", tenant="acme") >= 20
        assert [row for row in each_isolation.admin("SHOW SERVERS") if row["state"] == "listening"]


def test_tenants_channels_are_their_own(each_isolation, request):
    with each_isolation.wire() as acme, each_isolation.wire("beta_app") as beta:
        if request.node.callspec.params["each_isolation"] == "shared":
            shares = each_isolation.admin("SHOW LANES")
            assert shares
        acme.query("LISTEN mine")
        beta.query("LISTEN theirs")
        assert told(beta.query("NOTIFY theirs, 'b'")) == [("theirs", "b")]
        assert told(acme.query("NOTIFY mine, 'a'")) == [("mine", "a")]


def test_it_counts_from_the_commit(each_isolation):
    with each_isolation.wire() as one, each_isolation.wire() as other:
        one.query("BEGIN")
        one.query("LISTEN news")
        other.query("NOTIFY news, 'too early'")
        one.query("NOTIFY news, 'own'")
        assert told(one.query("SELECT 1")) == []
        said = one.query("COMMIT")
        # between the answer and ReadyForQuery, as PostgreSQL does
        assert types(said) == "CAZ"
        assert told(said) == [("news", "own")]
        other.query("NOTIFY news, 'then'")
        assert hears(one) == ("news", "then")


def test_what_the_same_transaction_notified_before(each_isolation):
    with each_isolation.wire() as one:
        one.query("BEGIN")
        one.query("NOTIFY news, 'before'")
        one.query("LISTEN news")
        assert told(one.query("COMMIT")) == [("news", "before")]
        # but not what was notified before it
        one.query("UNLISTEN *")
        one.query("NOTIFY news, 'nobody'")
        assert told(one.query("LISTEN news")) == []
        assert told(one.query("NOTIFY news, 'heard'")) == [("news", "heard")]


@pytest.mark.parametrize(
    "statements",
    [
        ["BEGIN", "LISTEN news", "ROLLBACK"],
        ["BEGIN", "LISTEN news", "SELECT 1 / 0", "COMMIT"],
        ["BEGIN", "SAVEPOINT a", "LISTEN news", "ROLLBACK TO a", "COMMIT"],
        ["LISTEN news; SELECT 1 / 0"],
        ["LISTEN news", "UNLISTEN news"],
        ["LISTEN news", "UNLISTEN *"],
        ["LISTEN news", "DISCARD ALL"],
        ["BEGIN", "LISTEN news", "UNLISTEN news", "COMMIT"],
    ],
)
def test_it_is_undone(each_isolation, statements):
    with each_isolation.wire() as one, each_isolation.wire() as other:
        for sql in statements:
            one.query(sql)
        assert told(one.query("NOTIFY news, 'nobody listens'")) == []
        assert rows(one.query("SELECT pg_listening_channels()")) == []
        assert rows(other.query("SELECT 1")) == [("1",)]
        assert [row for row in each_isolation.admin("SHOW LISTENERS") if row["channel"] == "news"] == []


def test_unlisten_is_undone_too(each_isolation):
    with each_isolation.wire() as one:
        one.query("LISTEN a; LISTEN b")
        one.query("BEGIN; UNLISTEN a; ROLLBACK")
        one.query("BEGIN")
        one.query("SAVEPOINT s")
        one.query("UNLISTEN *")
        one.query("ROLLBACK TO s")
        one.query("COMMIT")
        assert told(one.query("NOTIFY a; NOTIFY b")) == [("a", ""), ("b", "")]
        one.query("UNLISTEN a")
        assert told(one.query("NOTIFY a; NOTIFY b")) == [("b", "")]


def test_said_again_in_one_transaction(each_isolation):
    with each_isolation.wire() as one:
        one.query("BEGIN; LISTEN a; UNLISTEN a; LISTEN a; COMMIT")
        assert told(one.query("NOTIFY a")) == [("a", "")]
        one.query("BEGIN; UNLISTEN *; LISTEN a; COMMIT")
        assert told(one.query("NOTIFY a")) == [("a", "")]
        one.query("BEGIN; LISTEN a; UNLISTEN *; COMMIT")
        assert told(one.query("NOTIFY a")) == []


def test_tags_and_several_statements(each_isolation):
    with each_isolation.wire() as one:
        said = one.query("LISTEN a; NOTIFY a, 'x'; SELECT 1; UNLISTEN b; NOTIFY c; LISTEN \"B c\"")
        assert tags(said) == ["LISTEN", "NOTIFY", "SELECT 1", "UNLISTEN", "NOTIFY", "LISTEN"]
        assert told(said) == [("a", "x")]
        assert rows(one.query("SELECT * FROM pg_listening_channels()")) == [("B c",), ("a",)]
        assert one.value("SELECT count(*) FROM pg_listening_channels() c WHERE c = 'a'") == "1"
        described = one.query("SELECT pg_listening_channels()")[0].body
        assert b"pg_listening_channels\0" in described
        one.ask(parse("SELECT pg_listening_channels()", "told"), SYNC)
        assert rows(one.ask(bind(name="told"), execute(), SYNC)) == [("B c",), ("a",)]
        assert tags(one.query("UNLISTEN a")) == ["UNLISTEN"]
        assert rows(one.ask(bind(name="told"), execute(), SYNC)) == [("B c",)]
        assert tags(one.query("UNLISTEN *")) == ["UNLISTEN"]
        assert rows(one.query("SELECT pg_listening_channels()")) == []
        assert rows(one.ask(bind(name="told"), execute(), SYNC)) == []


def test_in_the_extended_protocol(each_isolation):
    with each_isolation.wire() as one, each_isolation.wire() as other:
        said = one.ask(parse("LISTEN news", "l"), describe_statement("l"), bind(name="l"), execute(), SYNC)
        assert types(said) == "1tn2CZ"
        assert tags(said) == ["LISTEN"]
        one.ask(parse("UNLISTEN news", "u"), SYNC)
        for number in range(3):
            other.query(f"NOTIFY news, '{number}'")
            assert hears(one) == ("news", str(number))
            assert tags(one.ask(bind(name="u"), execute(), SYNC)) == ["UNLISTEN"]
            other.query("NOTIFY news, 'nobody'")
            # another backend may have served it in between
            other.query("SELECT 1")
            assert tags(one.ask(bind(name="l"), execute(), SYNC)) == ["LISTEN"]
        said = one.ask(parse("NOTIFY news, 'own'"), bind(), execute(), SYNC)
        assert types(said) == "12CAZ"
        said = one.ask(parse("SELECT pg_notify('news', $1)"), bind(b"mine"), execute(), SYNC)
        assert told(said) == [("news", "mine")]


def test_pipelined(each_isolation):
    with each_isolation.wire() as one:
        one.send(
            query("LISTEN a"),
            query("NOTIFY a, '1'"),
            query("SELECT 1"),
            query("LISTEN b"),
            query("NOTIFY b, '2'"),
        )
        said = one.until_ready(5)
        assert types(said) == "CZCAZTDCZCZCAZ"
        assert told(said) == [("a", "1"), ("b", "2")]
        one.send(query("BEGIN"), query("LISTEN c"), query("ROLLBACK"), query("NOTIFY c"), query("NOTIFY a"))
        assert told(one.until_ready(5)) == [("a", "")]


def test_whose_notification_it_is(each_isolation):
    """One's own has the process id of the greeting, another client's that of its own."""
    with each_isolation.wire() as one, each_isolation.wire() as other:
        one.query("LISTEN news")
        for _ in range(5):
            other.query("NOTIFY news, 'theirs'")
            said = one.query("NOTIFY news, 'mine'")
            found = {payload: pid for pid, _, payload in map(notice, [m for m in said if m.type == "A"])}
            assert found["mine"] == one.pid
            assert found["theirs"] == other.pid


def test_whose_it_is_though_another_tenant_has_the_backend_now(proxies, pg):
    """It has waited for it, and gets it before the notification is heard."""
    proxy = either_isolation("shared", proxies, pg, 1)
    with proxy.wire() as one, proxy.wire() as notifier, proxy.wire("beta_app") as waiting:
        one.query("LISTEN news")
        for _ in range(20):
            notifier.query("BEGIN; SELECT pg_notify('news', 'theirs')")
            waiting.send(query("SELECT 1"))
            wait_until(
                lambda: sum(int(row["shared_waiting"]) for row in proxy.admin("SHOW LANES")) == 1, "it waits"
            )
            notifier.query("COMMIT")
            assert notice(one.receive()) == (notifier.pid, "news", "theirs")
            waiting.until_ready()


def test_it_comes_before_the_answer_to_what_is_asked_behind_it(each_isolation):
    """PostgreSQL tells a session of what was committed before its statement, before that is answered."""
    with each_isolation.wire() as client, each_isolation.wire() as other:
        client.query("LISTEN news")
        for number in range(60):
            other.query(f"NOTIFY news, '{number}'")
            ask = [
                [query("SELECT 1")],
                [parse("SELECT 1"), bind(), execute(), SYNC],
                [query("NOTIFY elsewhere")],
                [query("SELECT 1; SELECT 2")],
            ]
            assert told(client.ask(*ask[number % 4])) == [("news", str(number))]
        client.query("BEGIN")
        other.query("NOTIFY news, 'within'")
        assert told(client.query("SELECT 1")) == []
        assert told(client.query("COMMIT")) == [("news", "within")]


def test_what_triggers_and_functions_notify(each_isolation):
    with each_isolation.wire() as one:
        one.query(
            "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_notify('changed', NEW.item); RETURN NEW; END $$"
        )
        one.query(
            "CREATE TABLE told (item text); CREATE TRIGGER tell AFTER INSERT ON told "
            "FOR EACH ROW EXECUTE FUNCTION tell()"
        )
        try:
            one.query("LISTEN changed")
            assert told(one.query("INSERT INTO told VALUES ('new')")) == [("changed", "new")]
        finally:
            one.query("DROP TABLE told; DROP FUNCTION tell()")


def test_not_inside_a_transaction(each_isolation):
    with each_isolation.wire() as one, each_isolation.wire() as other:
        one.query("LISTEN news")
        for begin in ("BEGIN", "BEGIN; SELECT 1"):
            one.query(begin)
            other.query("NOTIFY news, 'x'")
            other.query("SELECT pg_sleep(0.05)")
            assert told(one.query("SELECT 1")) == []
            assert types(one.query("COMMIT")) == "CAZ"
        one.query("BEGIN")
        other.query("NOTIFY news, 'y'")
        other.query("SELECT pg_sleep(0.05)")
        # which no server has had
        assert types(one.query("ROLLBACK")) == "CAZ"


def test_large_payloads_and_slow_readers(each_isolation):
    payload = "x" * 7999
    with each_isolation.wire() as deaf, each_isolation.wire() as other:
        deaf.query("LISTEN news")
        other.query("LISTEN news")
        assert told(other.query(f"NOTIFY news, '{payload}'")) == [("news", payload)]
        # one that does not read is not waited for, nor kept for without end
        for turn in range(30):
            said = other.query(
                "; ".join(f"NOTIFY news, '{turn}.{number}{payload[:7900]}'" for number in range(50))
            )
            assert len(told(said)) == 50
        wait_until(lambda: len(each_isolation.admin("SHOW LISTENERS")) == 1, "the slow reader is gone")
        assert other.value("SELECT 1") == "1"


def test_what_a_client_may_listen_to_is_bounded(each_isolation):
    with each_isolation.wire() as one:
        for start in range(0, 1000, 20):
            assert sqlstates(one.query("; ".join(f"LISTEN c{n}" for n in range(start, start + 20)))) == []
        assert sqlstates(one.query("LISTEN one_more")) == ["54000"]
        assert told(one.query("NOTIFY c999")) == [("c999", "")]
        one.query("UNLISTEN c0")
        assert sqlstates(one.query("LISTEN one_more")) == []


def test_the_loss_of_what_listens_is_told(each_isolation, pg):
    with each_isolation.wire() as one, each_isolation.wire() as idle:
        one.query("LISTEN news")
        (row,) = each_isolation.admin("SHOW LISTENERS")
        with pg.connect() as conn:
            conn.execute("SELECT pg_terminate_backend(%s)", [int(row["listener_pid"])])
        last = one.until_end()
        assert sqlstates(last) == ["57P01"]
        # who does not listen notices nothing
        assert idle.value("SELECT 1") == "1"
        with each_isolation.wire() as again:
            again.query("LISTEN news")
            assert told(again.query("NOTIFY news, 'back'")) == [("news", "back")]


def test_where_no_connection_can_listen_the_client_keeps_its_own(own_proxy, pg):
    cluster = {"name": "main", "host": pg.host, "port": pg.port, "database": "app", "max_backends": 1}
    proxy = own_proxy(pool={"mode": "transaction", "max": 1}, clusters=[cluster])
    with proxy.wire() as one:
        one.query("BEGIN")
        one.query("SELECT 1")
        one.send(query("LISTEN news"))
        assert sqlstates(one.until_ready()) == []
        said = one.query("NOTIFY news, 'x'")
        said += one.query("COMMIT")
        assert told(said) == [("news", "x")]
        assert [row["reason"] for row in proxy.admin("SHOW PINS")] == ["listen"]
        assert rows(one.query("SELECT * FROM pg_listening_channels()")) == [("news",)]
        one.ask(parse("SELECT * FROM pg_listening_channels()", "prepared"), SYNC)
        assert rows(one.ask(bind(name="prepared"), execute(), SYNC)) == [("news",)]


def test_a_client_that_keeps_its_backend_for_something_else(each_isolation):
    """It is told what it listens to now, however it was when the question was prepared."""
    with each_isolation.wire() as one:
        one.query("CREATE TEMP TABLE kept ()")
        one.ask(parse("SELECT * FROM pg_listening_channels()", "s"), SYNC)
        for statement, channels in (("SELECT 1", []), ("LISTEN news", [("news",)]), ("UNLISTEN *", [])) * 2:
            assert sqlstates(one.query(statement)) == []
            assert rows(one.ask(bind(name="s"), execute(), SYNC)) == channels


def test_other_encodings(each_isolation):
    with each_isolation.wire(client_encoding="LATIN1") as one, each_isolation.wire() as other:
        one.send(query('LISTEN "café"'.encode("latin-1")))
        one.until_ready()
        other.query("NOTIFY \"café\", 'crème'")
        reply = one.receive()
        assert reply.body[4:] == "café\0crème\0".encode("latin-1")


def test_a_thousand_listeners_on_few_backends(proxies, pg):
    proxy = proxies(pool={"mode": "transaction", "max": 2}, workers=2)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.wire()) for _ in range(1000)]
        for client in clients:
            client.send(query("LISTEN news"))
        for client in clients:
            assert sqlstates(client.until_ready()) == []
        with proxy.wire() as sender:
            for number in range(3):
                sender.query(f"NOTIFY news, '{number}'")
        for client in clients:
            assert [hears(client) for _ in range(3)] == [("news", str(number)) for number in range(3)]
        assert len(proxy.admin("SHOW LISTENERS")) == 1000
        servers = proxy.admin("SHOW SERVERS")
        assert len(servers) <= 2 + 2
        assert sum(row["state"] == "listening" for row in servers) <= 2

        # one of what listens is killed: each client is told that, or hears what comes behind
        with pg.connect() as conn:
            ear = int(proxy.admin("SHOW LISTENERS")[0]["listener_pid"])
            conn.execute("SELECT pg_terminate_backend(%s, 5000)", [ear])
        with proxy.wire() as other:
            assert sqlstates(other.query("LISTEN news")) == []
            assert told(other.query("NOTIFY news, 'behind'")) == [("news", "behind")]
        lost = 0
        for client in clients:
            reply = client.receive()
            if reply.type == "E":
                assert sqlstates([reply]) == ["57P01"]
                lost += 1
            else:
                assert notice(reply)[1:] == ("news", "behind")
        assert lost > 0


# --- drivers -----------------------------------------------------------------------------


def test_psycopg(each_isolation):
    heard: list[Any] = []
    with psycopg.connect(each_isolation.dsn(), autocommit=True) as conn:
        conn.add_notify_handler(heard.append)
        conn.execute("LISTEN news")
        conn.execute("NOTIFY news, 'mine'")
        assert [(one.channel, one.payload, one.pid) for one in heard] == [
            ("news", "mine", conn.pgconn.backend_pid)
        ]
        conn.execute("SELECT pg_notify('news', %s)", ["two"])
        assert heard[-1].payload == "two"


async def test_asyncpg(each_isolation):
    heard: asyncio.Queue[Any] = asyncio.Queue()

    def hear(*args: Any) -> None:
        heard.put_nowait(args[1:])

    one = await asyncpg.connect(each_isolation.url())
    other = await asyncpg.connect(each_isolation.url())
    try:
        await one.add_listener("news", hear)
        for number in range(10):
            await other.execute(f"NOTIFY news, '{number}'")
            async with one.transaction():
                await one.fetchval("SELECT 1")
        async with asyncio.timeout(10):
            assert [(await heard.get())[1:] for _ in range(10)] == [
                ("news", str(number)) for number in range(10)
            ]
        await one.remove_listener("news", hear)
        await one.reset()
    finally:
        await one.close()
        await other.close()


def test_many_that_come_and_go(each_isolation):
    """None is told what is another's, and none misses one of its own."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(each_isolation.wire()) for _ in range(8)]
        for turn in range(40):
            client = clients[turn % 8]
            client.query(f"LISTEN c{turn % 8}")
            said = client.query(f"NOTIFY c{turn % 8}, '{turn}'")
            assert told(said) == [(f"c{turn % 8}", str(turn))]
            if turn % 3 == 0:
                client.query("UNLISTEN *")
                assert told(client.query(f"NOTIFY c{turn % 8}")) == []
    wait_until(lambda: not each_isolation.admin("SHOW LISTENERS"), "all are gone")


def test_more_in_one_text_than_can_be_told_apart(each_isolation):
    with each_isolation.wire() as client:
        many = "; ".join(f"LISTEN c{number}" for number in range(30))
        assert tags(client.query(many)) == ["LISTEN"] * 30
        assert sqlstates(client.query(f"{many}; LISTEN more")) == ["54000"]
        assert len(rows(client.query("SELECT pg_listening_channels()"))) == 30


def test_what_others_say_on_an_ear_s_channel_is_nothing(proxies, pg):
    """Its name can be seen in pg_stat_activity; what is not the proxy's must not even confuse it."""
    said = (
        "SELECT substring(query from '\"(tp_[0-9a-f]+[.][0-9]+)\"') FROM pg_stat_activity"
        " WHERE query LIKE 'NOTIFY%'"
    )
    with proxies(pool={"mode": "transaction", "max": 2}).wire() as client, pg.connect() as conn:
        client.query("LISTEN jobs")
        channels = {name for (name,) in conn.execute(said) if name}
        assert channels
        for channel in channels:
            for payload in ("", "L", "L\u00b2 x y", "L1 \u00fc jobs", f"U{'9' * 5000} x y", "U1", "X1 a b"):
                conn.execute("SELECT pg_notify(%s, %s)", [channel, payload])
        assert told(client.query("NOTIFY jobs, 'heard'")) == [("jobs", "heard")]
        assert rows(client.query("SELECT pg_listening_channels()")) == [("jobs",)]
