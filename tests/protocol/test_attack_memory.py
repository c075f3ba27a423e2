"""What a client sends decides neither how much memory is read nor whose."""

from __future__ import annotations

import struct

from tests.protocol import rig as r


def test_split_row_description_before_a_faked_reply_leaks_nothing(make_rig):
    rig = make_rig()
    other, mine = rig.client(), rig.client()
    # another client's result passes through the same receive buffer
    other.send(r.query("SELECT secret"))
    rig.server().send(r.row("SECRET" * 10_000), r.done(), r.IDLE)
    assert b"SECRET" in other.take()

    mine.send(r.parse("SELECT wide", "s"), r.SYNC)
    rig.server().take()
    rig.server().send(r.PARSED, r.IDLE)
    mine.take()
    mine.send(r.describe("s"), r.close("s"), r.SYNC)
    assert r.kinds(rig.server().take()) == "DS"
    description = r.message("T", struct.pack("!H", 1) + b"name" * 10_000)
    rig.server().send(r.message("t", b"\0\0"), description[:1000])
    first = mine.take()
    assert b"SECRET" not in first
    rig.server().send(description[1000:], r.IDLE)
    assert first + mine.take() == r.message("t", b"\0\0") + description + r.CLOSED + r.IDLE


def test_a_burst_inside_a_split_row_description_is_answered_behind_it(make_rig):
    rig = make_rig()
    mine = rig.client()
    mine.send(r.parse("SELECT wide", "s"), r.SYNC)
    rig.server().take()
    rig.server().send(r.PARSED, r.IDLE)
    mine.take()
    mine.send(r.describe("s"), r.FLUSH)
    description = r.message("T", struct.pack("!H", 1) + b"name" * 10_000)
    rig.server().send(r.message("t", b"\0\0"), description[:1000])
    mine.send(r.close("s"), r.SYNC)
    rig.server().send(description[1000:], r.IDLE)
    assert mine.take() == r.message("t", b"\0\0") + description + r.CLOSED + r.IDLE


def test_flush_is_not_longer_than_what_was_sent(make_rig):
    rig = make_rig()
    other, mine = rig.client(), rig.client()
    other.send(r.query("SELECT '" + "SECRET" * 1000 + "'"))
    rig.server().take()
    rig.server().send(r.done(), r.IDLE)
    mine.send(r.query("BEGIN"))
    rig.server().take()
    rig.server().send(r.done("BEGIN"), r.OPEN)
    mine.take()
    mine.send(b"H" + struct.pack("!I", 9000))
    assert b"SECRET" not in rig.server().take()
    assert r.split(mine.take())[0][0] == "E"


def test_sync_with_a_body_is_refused_without_a_server_too(make_rig):
    rig = make_rig()
    mine = rig.client()
    mine.send(b"S" + struct.pack("!I", 9000))
    assert r.kinds(mine.take()) == "E"
