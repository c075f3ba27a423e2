"""Messages that the cold side reads and writes."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_proxy.errors import ClientProtocolError, ServerProtocolError, compose_error, server_lost
from tenant_proxy.wire import messages

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def first_packet(code: int, body: bytes) -> bytes:
    return struct.pack("!II", len(body) + 8, code) + body


# --- written ----------------------------------------------------------------------


def test_a_length_counts_itself_and_the_body():
    assert messages.message(b"X", b"") == b"X\0\0\0\x04"
    assert messages.message(b"d", b"abc") == b"d\0\0\0\x07abc"


def test_texts_end_with_nul():
    assert messages.query("SELECT 'ä'") == b"Q\0\0\0\x10SELECT '\xc3\xa4'\0"
    assert messages.command_complete("SELECT 1") == b"C\0\0\0\x0dSELECT 1\0"
    assert messages.parameter_status("TimeZone", "UTC") == b"S\0\0\0\x11TimeZone\0UTC\0"


def test_key_data_has_a_key_of_any_length():
    assert messages.backend_key_data(-1, b"1234") == b"K\0\0\0\x0c\xff\xff\xff\xff1234"
    assert messages.backend_key_data(1, b"k" * 32)[:9] == b"K\0\0\0\x28\0\0\0\x01"


def test_requests_without_a_type():
    assert messages.ssl_request() == struct.pack("!II", 8, 80877103)
    assert messages.cancel_request(7, b"1234") == struct.pack("!IIi", 16, 80877102, 7) + b"1234"
    assert messages.cancel_request(7, b"k" * 32)[:4] == b"\0\0\0\x2c"


def test_negotiate_protocol_lists_what_is_not_known():
    assert messages.negotiate_protocol(2, []) == b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0"
    assert messages.negotiate_protocol(2, ["_pq_.a"]) == b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.a\0"


# --- first packets -------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=8))
def test_what_is_written_as_a_startup_message_is_read_as_it_was(parameters):
    packet = messages.read_startup(messages.startup_message(parameters))
    assert (packet.major, packet.minor) == (3, 0)
    assert packet.parameters == parameters


def test_protocol_versions_and_extensions():
    packet = messages.read_startup(first_packet(3 << 16 | 9999, b"user\0me\0_pq_.a\0b\0\0"))
    assert (packet.major, packet.minor) == (3, 9999)
    assert packet.extensions == ("_pq_.a",)
    # what another major version means by the rest is not known
    assert messages.read_startup(first_packet(2 << 16, b"anything")).major == 2


def test_bytes_that_are_not_utf8_survive():
    packet = messages.read_startup(first_packet(3 << 16, b"user\0m\xfc\0\0"))
    assert packet.parameters["user"].encode("utf-8", "surrogateescape") == b"m\xfc"


@pytest.mark.parametrize("size", [4, 32, 256])
def test_a_cancel_request(size):
    packet = messages.read_startup(messages.cancel_request(-5, b"k" * size))
    assert (packet.code, packet.pid, packet.key) == (messages.CANCEL_REQUEST, -5, b"k" * size)


def test_requests_for_encryption():
    assert messages.read_startup(messages.ssl_request()).code == messages.SSL_REQUEST
    assert messages.read_startup(first_packet(80877104, b"")).code == messages.GSSENC_REQUEST


@pytest.mark.parametrize(
    "packet",
    [
        first_packet(3 << 16, b""),
        first_packet(3 << 16, b"user\0me"),
        first_packet(3 << 16, b"user\0me\0"),
        first_packet(3 << 16, b"user\0me\0\0\0"),
        first_packet(3 << 16, b"user\0me\0\0x\0"),
        first_packet(3 << 16, b"user\0me\0alone\0\0"),
        first_packet(3 << 16, b"\0value\0\0"),
        struct.pack("!II", 12, 3 << 16) + b"\0",
        messages.cancel_request(1, b"123"),
        messages.cancel_request(1, b"k" * 257),
    ],
    ids=[
        "nothing",
        "without terminators",
        "without the last terminator",
        "with one too many",
        "with something behind",
        "a name without value",
        "a value without name",
        "another length",
        "a short key",
        "a long key",
    ],
)
def test_broken_first_packets(packet):
    with pytest.raises(ClientProtocolError):
        messages.read_startup(packet)


@given(st.binary(min_size=8, max_size=60))
def test_any_first_packet_is_read_or_broken(packet):
    try:
        messages.read_startup(packet[:4].replace(packet[:4], struct.pack("!I", len(packet))) + packet[4:])
    except ClientProtocolError:
        pass


# --- from servers ----------------------------------------------------------------------


def test_fields_of_an_error():
    fields = messages.error_fields(compose_error(server_lost())[5:])
    assert (fields["S"], fields["V"], fields["C"]) == ("FATAL", "FATAL", "08006")
    assert fields["M"] == "the database server closed the connection unexpectedly"


def test_fields_of_nonsense():
    assert messages.error_fields(b"") == {}
    assert messages.error_fields(b"\0\0\0") == {}
    assert messages.error_fields(b"C") == {"C": ""}
    assert messages.error_fields(b"M\xff\xfe") == {"M": "\ufffd\ufffd"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | VALUES, max_size=10))
def test_columns_of_a_row(values):
    cells = b"".join(
        b"\xff\xff\xff\xff" if value is None else struct.pack("!i", len(value.encode())) + value.encode()
        for value in values
    )
    assert messages.data_row(struct.pack("!H", len(values)) + cells) == values


@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"\0\x01", b"\0\x01\0\0\0", b"\0\x01\0\0\0\x05abcd", b"\0\x02\0\0\0\x01a"],
    ids=["nothing", "half a number", "no column", "half a size", "a short value", "a column too few"],
)
def test_a_truncated_row(body):
    with pytest.raises(ServerProtocolError):
        messages.data_row(body)


@given(st.binary(max_size=60))
def test_any_row_is_read_or_truncated(body):
    try:
        messages.data_row(body)
    except ServerProtocolError:
        pass
