"""Results as messages, read back by hand and by libpq's rules (docs 53.7)."""

import struct

from tenant_proxy.admin.context import INT4, TEXT, AdminResult
from tenant_proxy.admin.wire import result_messages


def messages(data):
    found = []
    while data:
        kind, size = data[:1], struct.unpack("!I", data[1:5])[0]
        found.append((kind, data[5 : size + 1]))
        data = data[size + 1 :]
    return found


def test_a_table():
    result = AdminResult(
        columns=[("name", TEXT), ("n", INT4)], rows=[["ä", "1"], [None, ""]], notices=["look"], tag="SHOW"
    )
    assert messages(result_messages(result)) == [
        (b"N", b"SNOTICE\0VNOTICE\0C00000\0Mlook\0\0"),
        (
            b"T",
            b"\0\x02"
            + b"name\0" + struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0)
            + b"n\0" + struct.pack("!IhIhih", 0, 0, 23, 4, -1, 0),
        ),
        (b"D", b"\0\x02\0\0\0\x02\xc3\xa4\0\0\0\x011"),
        (b"D", b"\0\x02\xff\xff\xff\xff\0\0\0\0"),
        (b"C", b"SHOW\0"),
    ]  # fmt: skip


def test_a_command_without_rows():
    assert messages(result_messages(AdminResult(tag="RELOAD"))) == [(b"C", b"RELOAD\0")]


def test_an_empty_query():
    assert messages(result_messages(AdminResult(tag=""))) == [(b"I", b"")]


def test_results_of_several_statements_follow_each_other():
    result = AdminResult(tag="SET", then=AdminResult(tag="BEGIN"))
    assert messages(result_messages(result)) == [(b"C", b"SET\0"), (b"C", b"BEGIN\0")]


def test_no_value_can_break_the_framing():
    result = AdminResult(columns=[("a\0b", TEXT)], rows=[["x\0y"]], tag="SHOW")
    (_, names), (_, row), _ = messages(result_messages(result))
    assert names.startswith(b"\0\x01a?b\0")
    assert row == b"\0\x01\0\0\0\x03x?y"
