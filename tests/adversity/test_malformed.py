"""Malformed, oversized, truncated and out-of-order messages end that connection, and nothing else."""

from __future__ import annotations

import struct

import pytest

from tests.wire_client import (
    SYNC,
    ConnectionEnded,
    Message,
    WireClient,
    cstr,
    errors,
    message,
    query,
    rows,
    sqlstates,
    types,
)


def raw(kind: bytes, size: int, body: bytes = b"") -> bytes:
    """A message with a length that may lie."""
    return kind + struct.pack("!i", size) + body


BROKEN = {
    "unknown type": message("z", b"hello"),
    "server's type": message("T", b"\0\0"),
    "type zero": raw(b"\0", 4),
    "type 0xff": raw(b"\xff", 4),
    "password after login": message("p", b"secret\0"),
    "length zero": raw(b"Q", 0),
    "length three": raw(b"Q", 3),
    "negative length": raw(b"Q", -1),
    "smallest length": raw(b"Q", -(2**31)),
    "largest length": raw(b"Q", 2**31 - 1, b"SELECT 1\0"),
    "largest sync": raw(b"S", 2**31 - 1, b"x"),
    "query without its end": message("Q", b"SELECT 1"),
    "empty query body": message("Q", b""),
    "query with more behind its end": message("Q", b"SELECT 1\0SELECT 2\0"),
    "parse without a name": message("P", b"x"),
    "parse without types": message("P", b"\0SELECT 1\0"),
    "parse with too few types": message("P", b"\0SELECT 1\0\0\5\0\0\0\1"),
    "parse with negative types": message("P", b"\0SELECT 1\0\xff\xff"),
    "parse with more behind": message("P", b"\0SELECT 1\0\0\0xxx"),
    "empty parse": message("P", b""),
    "bind without names": message("B", b""),
    "bind cut in formats": message("B", b"\0\0\0\2\0\1"),
    "bind cut in parameters": message("B", b"\0\0\0\0\0\1\0\0\0\xff"),
    "bind with a negative length": message("B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0"),
    "bind with more behind": message("B", b"\0\0\0\0\0\0\0\0xx"),
    "describe of nothing": message("D", b""),
    "describe of something else": message("D", b"Xname\0"),
    "describe without its end": message("D", b"Sname"),
    "close of something else": message("C", b"Xname\0"),
    "close without its end": message("C", b"Sname"),
    "execute without a limit": message("E", b"\0"),
    "execute without its end": message("E", b"name"),
    "sync with a body": message("S", b"x"),
    "flush with a body": message("H", b"x"),
    "function call cut": message("F", b"\0\0"),
    "function call with a lie": message("F", struct.pack("!IHHi", 177, 0, 1, 1000) + b"\0"),
    "copy fail without its end": message("f", b"reason"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_messages(each_mode, what):
    """An error as the server would have it, or the end of the connection; never a hang or a crash."""
    with each_mode.wire() as other:
        with each_mode.wire() as c:
            # where the server takes it for an ERROR it skips until Sync, and goes on
            c.send(BROKEN[what], SYNC, query("SELECT 'goes on'"))
            replies: list[Message] = []
            while not rows(replies):
                try:
                    replies.append(c.receive())
                except ConnectionEnded:
                    break
            assert set(sqlstates(replies)) <= {"08P01", "26000", "22023", "42601"}
        assert other.value("SELECT 'unharmed'") == "unharmed"


FATAL = [
    "unknown type",
    "server's type",
    "type zero",
    "type 0xff",
    "length zero",
    "length three",
    "negative length",
    "smallest length",
    "largest length",
    "largest sync",
]


@pytest.mark.parametrize("what", FATAL)
def test_what_loses_the_frame_ends_the_connection(each_mode, what):
    with each_mode.wire() as c:
        c.send(BROKEN[what])
        (error,) = errors(c.until_end())
        assert (error["S"], error["C"]) == ("FATAL", "08P01")
    with each_mode.wire() as c:
        assert c.value("SELECT 1") == "1"


@pytest.mark.parametrize("what", FATAL)
def test_in_a_transaction_the_backend_is_not_given_on(proxies, what):
    proxy = proxies(pool={"mode": "transaction", "max": 1, "queue_timeout_s": 10})
    with proxy.wire() as c:
        c.query("BEGIN; SET LOCAL my.flag = 'dirty'")
        c.send(BROKEN[what])
        assert sqlstates(c.until_end()) == ["08P01"]
    with proxy.wire() as c:
        assert c.value("SELECT current_setting('my.flag', true)") in ("", None)
        assert c.xact_status == "I"


def test_behind_statements_that_still_run(each_mode):
    """What was sent before is answered, or at least the error is: the stream stays well-formed."""
    with each_mode.wire() as c:
        c.send(query("SELECT 1"), query("SELECT pg_sleep(0.2)"), BROKEN["unknown type"])
        replies = c.until_end()
        assert sqlstates(replies) == ["08P01"]
        assert types(replies).endswith("E")


STARTUPS = {
    "length zero": struct.pack("!I", 0),
    "length seven": struct.pack("!I", 7) + b"\0\3\0",
    "length of 4 GB": struct.pack("!I", 0xFFFFFFFF) + b"\0\3\0\0",
    "longer than the limit": struct.pack("!II", 60_000, 196608) + b"user\0" + b"x" * 59_987,
    "no end": struct.pack("!II", 17, 196608) + b"user\0acme",
    "name without value": struct.pack("!II", 14, 196608) + b"user\0\0",
    "nothing": struct.pack("!II", 8, 196608),
    "only an end": struct.pack("!II", 9, 196608) + b"\0",
    "empty name": struct.pack("!II", 12, 196608) + b"\0x\0\0",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.0\r\n",
    "nul bytes": b"\0" * 1000,
    "ones": b"\xff" * 1000,
    "user twice": struct.pack("!II", 37, 196608) + b"user\0acme_app\0user\0postgres\0\0",
}


@pytest.mark.parametrize("what", STARTUPS)
def test_broken_startup_packets(proxy, what):
    with WireClient(proxy.host, proxy.port) as c:
        c.send(STARTUPS[what])
        c.sock.shutdown(1)  # nothing more will come
        replies = c.until_end()
        for error in errors(replies):
            assert error["S"] == "FATAL"
            assert error["C"] in ("08P01", "28000", "0A000", "08006", "3D000")
    with proxy.wire() as c:
        assert c.value("SELECT 1") == "1"


def test_a_farewell_before_the_startup_packet(proxy):
    """As node-postgres sends where `end` follows `connect` at once; PostgreSQL closes without a word."""
    with WireClient(proxy.host, proxy.port) as c:
        c.send(message("X"))
        assert c.until_end() == []


def test_a_startup_packet_within_the_limit(proxies):
    proxy = proxies(limits={"max_startup_bytes": 10_000})
    with proxy.wire(application_name="x" * 50, options="-c my.long=" + "y" * 9000) as c:
        assert len(c.value("SHOW my.long") or "") == 9000


def test_a_nul_byte_inside_a_statement(each_mode):
    """The server would see only what comes before it; the guard must not see another text."""
    with each_mode.wire() as c:
        c.send(message("Q", b"SELECT 1\0; SELECT * FROM beta.orders\0"))
        replies = c.until("ZE")
        assert sqlstates(replies) == ["08P01"] or types(replies) == "TDCZ"


def test_bytes_that_are_not_utf8(each_mode):
    with each_mode.wire() as c:
        for sql in (b"SELECT '\xff\xfe'", b"SELECT \xc3", b"\x80\x81", b"SELECT 1 -- \xff"):
            replies = c.ask(message("Q", cstr(sql)))
            assert sqlstates(replies) in (["22021"], ["42601"]), sql
        assert c.value("SELECT 1") == "1"


def test_deep_nesting(each_mode):
    """Parsers recurse; the guard's must fail with an error, not with the stack (54001)."""
    with each_mode.wire() as c:
        for depth in (1_000, 20_000, 200_000):
            for sql in (
                "SELECT " + "(" * depth + "1" + ")" * depth,
                "SELECT " + "1+" * depth + "1",
                "SELECT " + "-" * 3 + "\n" + "NOT " * depth + "true",
            ):
                replies = c.query(sql)
                assert sqlstates(replies) in ([], ["54001"], ["42601"], ["54000"], ["42501"]), depth
        assert c.value("SELECT 1") == "1"
