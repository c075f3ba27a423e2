"""Who has not logged in takes nothing from those who want to."""

from __future__ import annotations

import socket

from tenant_proxy.wire import messages
from tests.protocol import rig as r


def test_silent_connections_make_room(make_rig):
    rig = make_rig()
    mine = rig.client()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours:
        rig.engine.adopt_client(theirs.detach(), b"", True)
        assert rig.engine.open_counts()[:2] == (2, 1)
        assert not rig.engine.end_slow_logins(3_600_000_000)
        rig.engine.sweep(3_600_000_000)
        assert rig.engine.end_slow_logins(0)
        assert rig.engine.open_counts()[:2] == (1, 0)
        assert r.kinds(ours.recv(1000)) == "E"
    mine.send(r.SYNC)
    assert mine.take() == r.IDLE


def test_bytes_that_are_no_utf8_go_on_as_they_came():
    packet = messages.startup_message({"user": "a", "DateStyle": "\udcff"})
    assert messages.read_startup(packet).parameters["DateStyle"] == "\udcff"
    assert b"DateStyle\0\xff\0" in packet
