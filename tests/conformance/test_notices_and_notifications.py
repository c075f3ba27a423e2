"""NoticeResponse and NotificationResponse."""

from __future__ import annotations

from tests.wire_client import SYNC, WireClient, bind, execute, fields, parse, types


def test_notices_come_in_their_place(both):
    for c in both():
        replies = c.query("DROP TABLE IF EXISTS nothing_such; SELECT 1")
        assert types(replies) == "NCTDCZ"
        assert fields(replies[0])["C"] == "00000"
        assert fields(replies[0])["S"] == "NOTICE"


def test_notices_of_code(both):
    for c in both():
        replies = c.query("DO $$ BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second % %', 1, 'x'; END $$")
        assert [fields(m)["M"] for m in replies if m.type == "N"] == ["first", "second 1 x"]


def test_notices_in_a_batch(both):
    for c in both():
        replies = c.ask(parse("DROP VIEW IF EXISTS nothing_such"), bind(), execute(), SYNC)
        assert types(replies) == "12NCZ"


def test_client_min_messages(both):
    for c in both():
        c.query("SET client_min_messages = error")
        assert types(c.query("DROP TABLE IF EXISTS nothing_such")) == "CZ"


def test_an_error_raised_by_code(both):
    for c in both():
        replies = c.query(
            "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'TP001', DETAIL = 'why', HINT = 'how'; END $$"
        )
        said = fields(replies[0])
        assert {"C": "TP001", "M": "no", "D": "why", "H": "how"}.items() <= said.items()
        assert said["W"]


def test_own_notification(both_session):
    """Its pid is the one of BackendKeyData, which is that of pg_backend_pid()."""
    for c in both_session():
        assert c.value("SELECT pg_backend_pid()::text = " + f"'{c.pid}'") == "t"
        c.query("LISTEN news")
        replies = c.query("NOTIFY news, 'hello'")
        assert types(replies) == "CAZ"
        assert replies[1].body[:4] == c.pid.to_bytes(4, "big")
        assert replies[1].body[4:] == b"news\0hello\0"


def test_notification_of_another_session_while_idle(both_session):
    for c in both_session():
        c.query("LISTEN news")
        with WireClient.open(*c.address, search_path="acme") as other:
            other.query("SELECT pg_notify('news', 'from elsewhere')")
            reply = c.receive()
            assert reply.type == "A"
            assert reply.body[:4] == other.pid.to_bytes(4, "big")


def test_notifications_wait_for_the_end_of_the_transaction(both_session):
    for c in both_session():
        c.query("LISTEN news")
        c.query("BEGIN")
        with WireClient.open(*c.address, search_path="acme") as other:
            other.query("NOTIFY news")
        assert types(c.query("SELECT 1")) == "TDCZ"
        assert types(c.query("COMMIT")) == "CAZ"


def test_unlisten(both_session):
    for c in both_session():
        c.query("LISTEN news; LISTEN more; UNLISTEN news")
        assert types(c.query("NOTIFY news")) == "CZ"
        assert types(c.query("NOTIFY more")) == "CAZ"
        c.query("UNLISTEN *")
        assert types(c.query("NOTIFY more")) == "CZ"
