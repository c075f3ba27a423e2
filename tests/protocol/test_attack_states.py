"""A server is given away clean and awake, or not at all."""

from __future__ import annotations

import socket

import pytest

from tenant_proxy.model import Effect
from tests.protocol import rig as r

COPY_IN = r.message("G", b"\0\0\0")
COPY_DATA = r.message("d", b"1\n")
COPY_DONE = r.message("c")


def taken_by(rig: r.Rig, other: r.End) -> bool:
    """Whether another client gets the (only) server now."""
    other.send(r.query("SELECT other"))
    return b"SELECT other" in rig.server().take()


def test_a_server_paused_for_a_slow_reader_is_read_again_for_the_next_client(make_rig):
    rig = make_rig(send_buffer_bytes=4096)
    slow, other = rig.client(), rig.client()
    slow.send(r.query("SELECT much"))
    rig.server().take()
    rig.server().send(r.row("x" * 100_000))
    # the end comes in the read that finds the client's socket full
    rig.server().send(r.row("x" * 120_000), r.done(), r.IDLE)
    other.send(r.query("SELECT 1"))
    assert b"SELECT 1" in rig.server().take()
    rig.server().send(r.done(), r.IDLE)
    assert r.kinds(other.take()) == "CZ"
    assert r.kinds(slow.take()) == "DDCZ"


def test_sync_in_a_copy_does_not_free_the_server(make_rig):
    rig = make_rig()
    mine, other = rig.client(), rig.client()
    mine.send(r.parse("COPY t FROM STDIN"), r.bind(), r.EXECUTE, r.SYNC)
    rig.server().take()
    rig.server().send(r.PARSED, r.BOUND, COPY_IN)
    mine.send(r.SYNC)
    mine.send(COPY_DATA, COPY_DONE)
    # the COPY's transaction is open until the server has seen a Sync of its own
    rig.server().send(r.done("COPY 1"))
    mine.send(r.FLUSH)
    rig.server().take()
    assert not taken_by(rig, other)
    mine.send(r.SYNC)
    rig.server().send(r.IDLE)
    assert b"SELECT other" in rig.server().take()


def test_a_client_that_leaves_after_sync_in_a_copy_takes_the_server_along(make_rig):
    rig = make_rig()
    mine = rig.client()
    mine.send(r.parse("COPY t FROM STDIN"), r.bind(), r.EXECUTE, r.SYNC)
    rig.server().take()
    rig.server().send(r.PARSED, r.BOUND, COPY_IN)
    mine.send(r.SYNC)
    mine.send(COPY_DATA, COPY_DONE)
    rig.server().send(r.done("COPY 1"))
    mine.send(r.TERMINATE)
    assert rig.servers[0].closed or rig.figures()["idle"] == 0


def test_two_copies_in_one_query(make_rig):
    rig = make_rig()
    mine, other = rig.client(), rig.client()
    mine.send(r.query("COPY a FROM STDIN; COPY b FROM STDIN"))
    for _ in range(2):
        rig.server().send(COPY_IN)
        # swallowed by a server that takes CopyData
        mine.send(COPY_DATA, r.SYNC, COPY_DONE)
        rig.server().send(r.done("COPY 1"))
    rig.server().send(r.IDLE)
    rig.server().take()
    assert r.kinds(mine.take()) == "GCGCZ"
    assert taken_by(rig, other)


def test_a_client_held_back_in_a_failing_copy_goes_on(make_rig):
    rig = make_rig(send_buffer_bytes=1 << 16)
    mine = rig.client()
    mine.send(r.query("COPY t FROM STDIN"))
    rig.server().take()
    rig.server().send(COPY_IN)
    data = r.message("d", b"x" * 60_000)
    for _ in range(400):
        try:
            if mine.sock.send(data) != len(data):
                break
        except BlockingIOError:
            break
        rig.pump()
    mine.take()
    # the server says no without having read all
    rig.server().send(r.error(), r.IDLE)
    assert r.kinds(mine.take())[-2:] == "EZ"
    rig.server().take()
    left = rig.server().take()
    while left:
        left = rig.server().take()
    # the client's socket is read empty: it can write again
    rig.pump()
    assert mine.sock.send(b"") == 0
    got = 0
    for _ in range(20):
        try:
            got += mine.sock.send(data)
        except BlockingIOError:
            break
        rig.pump()
    assert got > 0


def test_a_skipped_parse_does_not_leave_another_clients_unnamed_statement(make_rig):
    rig = make_rig()
    other, mine = rig.client(), rig.client()
    other.send(r.parse("DELETE FROM others"), r.bind(), r.EXECUTE, r.SYNC)
    rig.server().send(r.PARSED, r.BOUND, r.done("DELETE 1"), r.IDLE)
    rig.server().take()
    # the server skips the Parse behind an error, and keeps the other's statement
    mine.send(r.describe("", "P"), r.parse("SELECT mine"), r.SYNC)
    rig.server().take()
    rig.server().send(r.error("34000"), r.IDLE)
    mine.take()
    mine.send(r.bind(), r.EXECUTE, r.SYNC)
    assert r.kinds(mine.take()) == "EZ"
    assert rig.server().take() == b""


def test_a_parse_refused_in_a_failed_transaction_is_not_forgotten(make_rig):
    rig = make_rig()
    first, mine = rig.client(), rig.client()
    first.send(r.parse("SELECT 1", "a"), r.SYNC)
    rig.server().send(r.PARSED, r.IDLE)
    mine.send(r.query("BEGIN"))
    rig.server().send(r.done("BEGIN"), r.OPEN)
    mine.send(r.query("oops"))
    rig.server().send(r.error(), r.FAILED)
    rig.server().take()
    mine.send(r.parse("SELECT 1", "b"), r.SYNC)
    # a new Parse of a name that the server has would fail for another reason: it is closed first
    assert r.kinds(rig.server().take()) == "CPS"
    rig.server().send(r.CLOSED, r.error("25P02"), r.FAILED)
    mine.send(r.query("ROLLBACK"))
    rig.server().send(r.done("ROLLBACK"), r.IDLE)
    rig.server().take()
    first.send(r.bind("a"), r.EXECUTE, r.SYNC)
    assert r.kinds(rig.server().take()) == "PBES"


def test_an_eviction_that_the_server_skipped_costs_it_its_place(make_rig):
    rig = make_rig(max_prepared=1)
    mine = rig.client()
    mine.send(r.parse("SELECT 1", "a"), r.SYNC)
    rig.server().send(r.PARSED, r.IDLE)
    mine.take()
    mine.send(r.describe("", "P"), r.parse("SELECT 2", "b"), r.SYNC)
    rig.server().take()
    rig.server().send(r.error("34000"), r.IDLE)
    # the server still has the first, the proxy can't know
    assert rig.servers[0].closed


@pytest.mark.parametrize("how", ["simple", "unnamed", "named"])
def test_discard_all_that_fails_costs_the_server_its_place(make_rig, how):
    rig = make_rig()
    # not alone in its text, so that it is the server's to answer
    rig.verdicts["DISCARD ALL"] = r.ALLOWED | Effect.DEALLOCATES | Effect.DISCARDS_ALL | Effect.MULTI
    mine = rig.client()
    mine.send(r.parse("SELECT 1", "a"), r.SYNC)
    rig.server().send(r.PARSED, r.IDLE)
    mine.take()
    if how == "simple":
        mine.send(r.query("DISCARD ALL"))
        rig.server().send(r.error("57014"), r.IDLE)
    else:
        name = "d" if how == "named" else ""
        mine.send(r.parse("DISCARD ALL", name), r.bind(name), r.EXECUTE, r.SYNC)
        rig.server().send(r.PARSED, r.BOUND, r.error("57014"), r.IDLE)
    assert "E" in r.kinds(mine.take())
    assert rig.servers[0].closed


@pytest.mark.parametrize("how", ["simple", "unnamed", "named"])
def test_after_discard_all_statements_are_parsed_anew(make_rig, how):
    rig = make_rig(servers=2)
    rig.verdicts["DISCARD ALL"] = r.ALLOWED | Effect.DEALLOCATES | Effect.DISCARDS_ALL | Effect.MULTI
    first, mine = rig.client(), rig.client()
    first.send(r.parse("SELECT 1", "a"), r.SYNC)
    rig.server().send(r.PARSED, r.IDLE)
    first.take()
    rig.server().take()
    if how == "simple":
        mine.send(r.query("DISCARD ALL"))
        rig.server().send(r.done("DISCARD ALL"), r.IDLE)
    else:
        name = "d" if how == "named" else ""
        mine.send(r.parse("DISCARD ALL", name), r.bind(name), r.EXECUTE, r.SYNC)
        rig.server().send(r.PARSED, r.BOUND, r.done("DISCARD ALL"), r.IDLE)
    rig.server().take()
    first.send(r.bind("a"), r.EXECUTE, r.SYNC)
    assert r.kinds(rig.server().take()) == "PBES"


def test_a_bound_discard_all_that_never_ran(make_rig):
    rig = make_rig()
    rig.verdicts["DISCARD ALL"] = r.ALLOWED | Effect.DEALLOCATES | Effect.DISCARDS_ALL
    first, mine = rig.client(), rig.client()
    first.send(r.parse("SELECT 1", "a"), r.SYNC)
    rig.server().send(r.PARSED, r.IDLE)
    mine.send(r.parse("DISCARD ALL", "d"), r.bind("d"), r.SYNC)
    rig.server().send(r.PARSED, r.BOUND, r.IDLE)
    rig.server().take()
    if rig.servers[0].closed:
        return
    first.send(r.bind("a"), r.EXECUTE, r.SYNC)
    assert r.kinds(rig.server().take()) == "BES"


def test_settings_that_could_not_be_read_are_not_lost(make_rig):
    rig = make_rig(servers=2)
    rig.verdicts["SET search_path = ''"] = r.ALLOWED | Effect.SETTINGS
    mine = rig.client()
    mine.send(r.query("SET search_path = ''"))
    server = rig.server()
    server.send(r.done("SET"), r.IDLE)
    assert b"ask" in server.take()
    # as by a late cancel, or statement_timeout
    server.send(r.error("57014"), r.IDLE)
    mine.take()
    mine.send(r.query("SELECT after"))
    if mine.closed:
        return
    # on the server that has them
    assert b"SELECT after" in server.take()


def test_no_cancel_for_the_proxys_own_question(make_rig):
    rig = make_rig()
    rig.verdicts["SET x = 1"] = r.ALLOWED | Effect.SETTINGS
    mine = rig.client()
    mine.send(r.query("SET x = 1"))
    assert rig.engine.find_cancel(mine.link, b"key!")
    rig.engine.cancel_done(rig.server().link)
    rig.server().send(r.done("SET"), r.IDLE)
    assert rig.engine.find_cancel(mine.link, b"key!") is None


def test_a_login_does_not_leave_a_switch_open_on_an_idle_server(make_rig):
    rig = make_rig(servers=1)
    rig.greets_by_server = True
    rig.client({"application_name": "one"})
    assert rig.figures()["idle"] == 1
    assert rig.server().take() == b""


def test_an_answered_flood_does_not_grow_without_end(make_rig):
    rig = make_rig(send_buffer_bytes=1 << 16)
    rig.verdicts["bad"] = r.error(text="x" * 500)
    mine = rig.client()
    mine.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
    piece = r.query("bad") * 100
    for _ in range(500):
        try:
            if mine.sock.send(piece) < len(piece):
                break
        except BlockingIOError:
            break
        rig.pump()
    else:
        pytest.fail("the client is read on and on though it reads nothing")
    # and it goes on when it reads
    while mine.take():
        pass
    mine.sock.setblocking(True)
    mine.send(piece)
    mine.sock.setblocking(False)
    assert mine.take().endswith(r.IDLE)


def test_statements_of_a_client_are_bounded_in_bytes(make_rig):
    rig = make_rig(max_statement_bytes=1 << 16, max_prepared=1000)
    mine = rig.client()
    for i in range(40):
        mine.send(r.parse("SELECT " + str(i) + "x" * 60_000, f"s{i}"), r.SYNC)
        if "E" in r.kinds(mine.take()):
            return
        rig.server().send(r.PARSED, r.IDLE)
        rig.server().take()
    pytest.fail("2.4 MB of statements where one may have 64 kB")


def test_session_mode_hides_a_former_clients_unnamed_statement(make_rig):
    rig = make_rig(session_mode=True)
    first = rig.client()
    first.send(r.parse("SELECT secret"), r.SYNC)
    rig.server().take()
    rig.server().send(r.PARSED, r.IDLE)
    first.take()
    first.send(r.TERMINATE)
    assert b"DISCARD ALL" in rig.server().take()
