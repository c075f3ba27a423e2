"""Broken messages.  A client that breaks the protocol gets FATAL 08P01 and its connection is closed, a server
that does is closed and its client told 08006; nobody else notices either."""

import struct

import pytest

from tenant_proxy.wire.messages import message
from tests.protocol.stage import Stage
from tests.protocol.wire import (
    BOUND,
    CLOSED,
    COPY_IN,
    IDLE,
    NO_DATA,
    OPEN,
    PARSED,
    SYNC,
    close,
    columns,
    complete,
    copy_data,
    describe,
    error,
    execute,
    fatal,
    notice,
    parse,
    query,
    result,
    row,
    startup,
)

VIOLATION = fatal("08P01")


def with_length(code: bytes, length: int, body: bytes = b"") -> bytes:
    """A message whose length word says `length`, right or not."""
    return code + struct.pack("!I", length & 0xFFFFFFFF) + body


@pytest.fixture
def stage():
    """With epoll alone: how the bytes come is the same otherwise, and there are many cases."""
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def bystander(stage: Stage):
    """In the middle of something on a server of their own."""
    server = stage.idle_server()
    client = stage.client()
    client >> query("SELECT 'something'")
    yield
    assert server.take() == query("SELECT 'something'")
    server >> result("something")
    client << result("something")


TYPES = {
    "query": b"Q",
    "parse": b"P",
    "bind": b"B",
    "execute": b"E",
    "describe": b"D",
    "close": b"C",
    "sync": b"S",
    "flush": b"H",
    "function call": b"F",
    "copy data": b"d",
    "copy done": b"c",
    "copy fail": b"f",
}

BAD_LENGTHS = {
    **{
        f"{name}, length {n}": with_length(code, n, b"\0" * 8) for name, code in TYPES.items() for n in (0, 3)
    },
    **{f"{name}, negative": with_length(code, -1, b"\0" * 8) for name, code in TYPES.items()},
    **{f"{name}, huge": with_length(code, 0x40000000, b"\0" * 8) for name, code in TYPES.items()},
    **{
        f"{name}, above its limit": with_length(TYPES[name], 10_001, b"\0" * 8)
        for name in ("execute", "describe", "close", "sync", "flush", "copy done")
    },
}

BAD_TYPES = {
    f"type {code!r}": bytes([code]) + struct.pack("!I", 4)
    for code in (0, 1, ord("A"), ord("R"), ord("Z"), ord("a"), ord("p"), ord("v"), 127, 128, 255)
} | {"a startup packet": startup(user="again"), "HTTP": b"GET / HTTP/1.1\r\n\r\n"}

BAD_BODIES = {
    "query without terminator": message(b"Q", b"SELECT 1"),
    "query with nothing": message(b"Q", b""),
    "query with a NUL in it": message(b"Q", b"SELECT 1\0; SELECT 2\0"),
    "query with something behind": message(b"Q", b"SELECT 1\0x"),
    "parse with nothing": message(b"P", b""),
    "parse with a name alone": message(b"P", b"name\0"),
    "parse without terminator of its name": message(b"P", b"name"),
    "parse without terminator of its query": message(b"P", b"\0SELECT 1"),
    "parse without types": message(b"P", b"\0SELECT 1\0"),
    "parse with half a number of types": message(b"P", b"\0SELECT 1\0\0"),
    "parse with too few types": message(b"P", b"\0SELECT 1\0\0\2\0\0\0\x17"),
    "parse with too many types": message(b"P", b"\0SELECT 1\0\0\0\0\0\0\x17"),
    "parse with 65535 types that are not there": message(b"P", b"\0SELECT 1\0\xff\xff"),
    "parse with something behind": message(b"P", b"\0SELECT 1\0\0\0x"),
    "describe with nothing": message(b"D", b""),
    "describe without name": message(b"D", b"S"),
    "describe without terminator": message(b"D", b"Sname"),
    "describe with something behind": message(b"D", b"Sname\0x"),
    "describe with a NUL in its name": message(b"D", b"Sna\0me\0"),
    "describe of something else": message(b"D", b"Xname\0"),
    "close with nothing": message(b"C", b""),
    "close without terminator": message(b"C", b"Sname"),
    "close with something behind": message(b"C", b"Sname\0x"),
    "close of something else": message(b"C", b"Xname\0"),
    "execute with nothing": message(b"E", b""),
    "execute without count": message(b"E", b"\0"),
    "execute without terminator": message(b"E", b"portal\1\1\1\1"),
    "execute with half a count": message(b"E", b"\0\0\0"),
    "execute with something behind": message(b"E", b"\0\0\0\0\0x"),
    "sync with a body": message(b"S", b"x"),
    "sync with a long body": message(b"S", b"x" * 5000),
    "flush with a body": message(b"H", b"x"),
    "flush with a long body": message(b"H", b"x" * 5000),
    "function call with nothing": message(b"F", b""),
    "function call without arguments": message(b"F", b"\0\0\6\x3e"),
}
#: of a Bind the proxy reads the names, the rest streams through it
BAD_BINDS = {
    "bind with nothing": message(b"B", b""),
    "bind without terminator of the portal": message(b"B", b"portal"),
    "bind without statement": message(b"B", b"portal\0"),
    "bind without terminator of the statement": message(b"B", b"portal\0name"),
    "bind with endless names": message(b"B", b"x" * 100_000 + b"\0\0"),
}


def each(*tables):
    cases = {name: said for table in tables for name, said in table.items()}
    return pytest.mark.parametrize("said", cases.values(), ids=cases.keys())


@each(BAD_LENGTHS, BAD_TYPES, BAD_BODIES, BAD_BINDS)
def test_without_a_server(stage: Stage, bystander, said: bytes):
    client = stage.client()
    client >> said
    client << VIOLATION
    assert client.ended
    assert client.end == "PROTOCOL"


@each(BAD_LENGTHS, BAD_TYPES, BAD_BODIES)
def test_in_a_session_at_rest(stage: Stage, bystander, said: bytes):
    client, server = stage.session_pair()
    client >> said
    client << VIOLATION
    assert client.ended
    # nothing of it has reached the server, which serves on
    server << b""
    assert server.state == "idle"


@each(BAD_LENGTHS, BAD_TYPES, BAD_BODIES, BAD_BINDS)
def test_in_a_transaction(stage: Stage, bystander, said: bytes):
    client, server = stage.pair()
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    client >> said
    client << VIOLATION
    assert client.ended
    assert server.take() == query("BEGIN")
    assert server.end == "UNCLEAN"


@each(BAD_TYPES, BAD_BODIES)
def test_behind_a_good_message_in_the_same_read(stage: Stage, bystander, said: bytes):
    client, server = stage.pair()
    client >> query("SELECT 1") + said
    client << VIOLATION
    assert client.ended
    assert server.end == "UNCLEAN"


@each(BAD_LENGTHS, BAD_TYPES)
def test_while_skipping_to_sync(stage: Stage, said: bytes):
    client = stage.client()
    client >> parse("", "SELECT forbidden")
    client << error("42501")
    client >> said
    client << VIOLATION
    assert client.ended


@each(BAD_LENGTHS, BAD_TYPES, BAD_BODIES, BAD_BINDS)
def test_in_pieces(stage: Stage, said: bytes):
    client = stage.client()
    for at in (*range(min(len(said), 12)), len(said)):
        client.unsaid += said[at : at + 1] if at < 12 else said[12:]
        stage.work()
    client << VIOLATION
    assert client.ended


@pytest.mark.parametrize(
    "whole",
    [
        query("SELECT 1"),
        parse("a", "SELECT $1", 23),
        describe("a"),
        close("a"),
        execute("a"),
        SYNC,
        copy_data(b"x"),
    ],
    ids=lambda whole: chr(whole[0]),
)
def test_cut_short_anywhere(stage: Stage, bystander, whole: bytes):
    """A lost connection: nobody is there to be told, and nothing of the message has effect."""
    for cut in range(1, len(whole)):
        client = stage.client()
        client >> whole[:cut]
        client.stops_sending()
        assert client.is_cut_off()
        assert client.end == "GONE"
    assert stage.hooks.judged.count("SELECT 1") == 0


def test_nobody_is_told_in_the_middle_of_a_row(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    server >> columns("a") + row("x" * 1000)[:500]
    client.take()
    client >> b"?"
    client >> b"????"
    assert client.is_cut_off()
    assert server.end == "UNCLEAN"


# --- before and during the login ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        struct.pack("!II", 0, 3 << 16),
        struct.pack("!II", 7, 3 << 16),
        struct.pack("!II", 10_001, 3 << 16),
        struct.pack("!iI", -1, 3 << 16),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0",
        query("SELECT 1"),
        struct.pack("!II", 19, 3 << 16) + b"user\0x\0data",
        struct.pack("!II", 16, 3 << 16) + b"user\0\0\0\0",
        struct.pack("!III", 12, 80877102, 1),
        struct.pack("!II", 8, 80877103) + struct.pack("!II", 9, 3 << 16) + b"\0",
    ],
    ids=[
        "length 0",
        "length 7",
        "too long",
        "negative",
        "HTTP",
        "zeros",
        "a query",
        "without terminator",
        "with something behind",
        "cancel request without key",
        "more behind SSLRequest",
    ],
)
def test_startup_packets(stage: Stage, bystander, said: bytes):
    client = stage.connect()
    client >> said
    client << VIOLATION
    assert client.ended


@pytest.mark.parametrize(
    "said",
    [
        query("SELECT 1"),
        with_length(b"p", 3),
        with_length(b"p", -1),
        with_length(b"p", 65_536),
        b"\0\0\0\0\0",
        startup(user="again"),
    ],
    ids=["a query", "length 3", "negative", "too long", "zeros", "another startup packet"],
)
def test_instead_of_a_password(stage: Stage, bystander, said: bytes):
    client = stage.connect()
    client >> startup(user="someone", wait="yes")
    client >> said
    client << VIOLATION
    assert client.ended


def test_too_much_before_the_login_is_through(stage: Stage):
    """What comes early waits, but not without bound."""
    stage.opens_servers = False
    stage.wants(stage.pool(session_mode=True))
    client = stage.connect()
    client >> startup(user="someone") + query("x" * 100_000)
    client << VIOLATION
    assert client.ended


# --- from servers -----------------------------------------------------------------------------------------


BAD_ANSWERS = {
    "length 0": with_length(b"C", 0),
    "length 3": with_length(b"Z", 3, b"I"),
    "negative": with_length(b"D", -1, b"\0" * 20),
    "longer than any message": with_length(b"D", 0x40000000, b"\0" * 20),
    "unknown type": message(b"?", b""),
    "NUL": b"\0" * 10,
    "not this protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "ready without status": message(b"Z", b""),
    "ready with another status": message(b"Z", b"X"),
    "ready with more": message(b"Z", b"II"),
    "a reply to another request": PARSED,
    "bind complete": BOUND,
    "close complete": CLOSED,
    "no data": NO_DATA,
    "authentication": message(b"R", b"\0\0\0\3"),
    "a huge error": with_length(b"E", 0x3FFFFFFF, b"S" * 20),
    "a huge ready": with_length(b"Z", 0x3FFFFFFF, b"I" * 20),
    "copy in the clients direction": message(b"f", b"no\0"),
}


@each(BAD_ANSWERS)
def test_a_server_that_breaks_the_protocol(stage: Stage, bystander, said: bytes):
    client, server = stage.pair()
    client >> query("SELECT 1")
    server >> said
    client << fatal("08006")
    assert client.ended
    server.take()
    assert server.ended
    assert server.end == "PROTOCOL"


@each(BAD_ANSWERS)
def test_what_came_before_still_reaches_the_client(stage: Stage, said: bytes):
    """In the same read as the broken message, and with the last row half sent already."""
    client, server = stage.pair()
    client >> query("SELECT 1") + query("SELECT 2")
    answer = columns("a") + row("x" * 1000)
    server >> answer[:-500]
    server >> answer[-500:] + complete("SELECT 1") + IDLE + notice("careful") + said
    client << answer + complete("SELECT 1") + IDLE + notice("careful") + fatal("08006")
    assert client.ended


UNASKED = [row("1"), complete("SELECT 1"), IDLE, PARSED, columns("a"), copy_data(b"x"), COPY_IN]


@pytest.mark.parametrize("said", [*UNASKED, message(b"?", b"")], ids=lambda said: chr(said[0]))
def test_an_idle_server_that_answers_unasked(stage: Stage, said: bytes):
    client, server = stage.pair()
    server >> said
    assert server.end == "PROTOCOL"
    client >> query("SELECT 1")
    stage.server() << query("SELECT 1")


@pytest.mark.parametrize("said", UNASKED, ids=lambda said: chr(said[0]))
def test_a_server_that_answers_a_session_unasked(stage: Stage, said: bytes):
    client, server = stage.session_pair()
    server >> said
    client << fatal("08006")
    assert client.ended


@pytest.mark.parametrize(
    "said", [with_length(b"R", 3), with_length(b"S", 70_000, b"x"), with_length(b"K", -1)]
)
def test_a_login_that_breaks_the_protocol(stage: Stage, said: bytes):
    stage.servers_log_in = False
    client = stage.client()
    client >> query("SELECT 1")
    server = stage.server()
    stage.servers_log_in = True
    server >> said
    assert server.end == "PROTOCOL"
    # the client waits for the next one
    stage.server() << query("SELECT 1")
