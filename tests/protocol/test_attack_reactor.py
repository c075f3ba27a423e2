"""The reactor lets go of what it has closed, and does not wake for nothing."""

from __future__ import annotations

import os
import resource
import select
import socket
import struct

from tests.protocol import rig as r


def wakes(rig: r.Rig) -> bool:
    """Whether the loop would call the engine at once, with nothing to do."""
    for _ in range(5):
        rig.pump()
    return bool(select.select([rig.epoll], [], [], 0)[0])


def test_a_connection_that_another_process_has_too_is_forgotten(make_rig):
    """As one that was handed to another worker: close() does not take it out of epoll."""
    rig = make_rig()
    mine = rig.client()
    copy = os.dup(rig.engine.fileno(mine.link))
    try:
        rig.engine.client_end(mine.link, 16)  # Reason.HANDED_OVER
        rig.pump()
        mine.sock.send(b"x")
        assert not wakes(rig)
    finally:
        os.close(copy)


def test_a_listener_that_another_process_has_too_is_forgotten(make_rig):
    rig = make_rig()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        rig.engine.add_listener(os.dup(listener.fileno()), False)
        rig.engine.stop_accepting()
        with socket.create_connection(listener.getsockname()):
            assert not wakes(rig)


def test_out_of_descriptors_does_not_spin(make_rig):
    rig = make_rig()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        rig.engine.add_listener(os.dup(listener.fileno()), False)
        with socket.create_connection(listener.getsockname()):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                assert not wakes(rig)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            # and goes on when there are some
            rig.engine.sweep(60_000_000)
            rig.pump()
            assert rig.engine.open_counts()[0] == 1


def test_what_the_loop_reads_ends_a_call_until_it_has_been_read(make_rig):
    """Else another worker's message would wait as long as clients keep this one busy."""
    rig = make_rig()
    theirs, mine = socket.socketpair()
    with theirs, mine:
        rig.engine.go_back_for(mine.fileno())
        assert not wakes(rig)
        theirs.send(b"x")
        assert wakes(rig)
        mine.recv(1)
        assert not wakes(rig)


def test_connections_are_all_accepted_though_one_at_a_time(make_rig):
    rig = make_rig()
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        listener.setblocking(False)
        rig.engine.add_listener(os.dup(listener.fileno()), False)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(150)]
        for _ in range(20):
            rig.pump()
        assert rig.engine.open_counts()[0] == len(clients)
        for client in clients:
            client.close()


def test_an_upcall_does_not_settle_in_the_middle_of_a_round(make_rig):
    """A failing connect ends in poke(): what is closed there is still to be dispatched."""
    rig = make_rig(servers=2)
    first, second = rig.client(), rig.client()
    for end in (first, second):
        end.send(r.query("BEGIN"))
        rig.server().send(r.done("BEGIN"), r.OPEN)
    waiting = rig.client()
    waiting.send(r.query("SELECT waits"))
    sockets = socket.socketpair()
    inside: list[bool] = []

    def on_connect(_pool: int) -> None:
        # as Dialer._failed does; and a client that has something to say
        rig.on_connect = lambda _pool: None
        started = len(rig.started)
        rig.engine.adopt_client(sockets[1].detach(), struct.pack("!II", 8, 196608), True)
        rig.engine.poke()
        inside.append(len(rig.started) > started)

    rig.on_connect = on_connect
    # both servers say goodbye in one round
    for server in list(rig.servers):
        server.sock.send(r.error("57P01"))
        server.sock.shutdown(socket.SHUT_WR)
    rig.pump()
    sockets[0].close()
    assert inside == [False]
    assert first.closed
    assert second.closed
