"""Listening sockets: every address form, and an error that says which address and why."""

import os
import socket

import pytest

from tenant_proxy.listeners import ListenError, open_listeners
from tests.pg_server import free_port


@pytest.fixture
def listen():
    opened = []

    def listen(*addresses, port=None, unix_dir=None):
        opened.extend(open_listeners(list(addresses), port or free_port(), 16, unix_dir))
        return opened

    yield listen
    for listener in opened:
        listener.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "0.0.0.0", "*"])
def test_ipv4_can_connect(listen, address):
    port = free_port()
    listen(address, port=port)
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")
@pytest.mark.parametrize("addresses", [["::1"], ["::"], ["*"], ["0.0.0.0", "::"]])
def test_ipv6_can_connect(listen, addresses):
    port = free_port()
    listeners = listen(*addresses, port=port)
    socket.create_connection(("::1", port), timeout=5).close()
    assert f":{port}" in listeners[-1].address


@pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="the system can't keep them")
def test_nobody_is_woken_for_a_connection_that_says_nothing_yet(listen):
    port = free_port()
    [listener] = listen("127.0.0.1", port=port)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        with pytest.raises(BlockingIOError):
            listener.sock.accept()
        client.send(b"x")
        listener.sock.settimeout(5)
        listener.sock.accept()[0].close()


def test_an_address_named_twice_is_bound_once(listen):
    assert len(listen("127.0.0.1", "127.0.0.1")) == 1


def test_a_port_in_use_is_named(listen):
    port = free_port()
    listen("127.0.0.1", port=port)
    with pytest.raises(ListenError, match=rf"could not listen on 127\.0\.0\.1:{port}: the address is in use"):
        open_listeners(["127.0.0.1"], port, 16)


def test_nothing_stays_open_when_one_address_fails(listen):
    port = free_port()
    with pytest.raises(ListenError):
        open_listeners(["127.0.0.1", "192.0.2.1"], port, 16)
    listen("127.0.0.1", port=port)


@pytest.mark.parametrize("address", ["no-such-host.invalid", "", "a" * 300, "300.1.1.1"])
def test_an_address_that_is_none_is_named(address):
    with pytest.raises(ListenError, match=f'could not listen on "{address}"'):
        open_listeners([address], free_port(), 16)


def test_a_unix_socket_is_for_everybody_and_goes_when_closed(listen, tmp_path):
    port = free_port()
    (listener,) = listen(port=port, unix_dir=str(tmp_path))
    path = tmp_path / f".s.PGSQL.{port}"
    assert listener.kind == "unix"
    assert path.stat().st_mode & 0o777 == 0o777
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert not path.exists()


def test_a_dead_processs_socket_file_is_replaced(listen, tmp_path):
    port = free_port()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / f".s.PGSQL.{port}"))
    listen(port=port, unix_dir=str(tmp_path))


def test_a_living_processs_socket_file_is_not(listen, tmp_path):
    port = free_port()
    listen(port=port, unix_dir=str(tmp_path))
    with pytest.raises(ListenError, match="in use"):
        open_listeners([], port, 16, str(tmp_path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / f".s.PGSQL.{port}"))


def test_another_file_in_its_place_is_left_alone(tmp_path):
    port = free_port()
    path = tmp_path / f".s.PGSQL.{port}"
    path.write_text("precious")
    with pytest.raises(ListenError, match="exists and is not a socket"):
        open_listeners([], port, 16, str(tmp_path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize("directory", ["/no/such/directory", "/tmp/" + "x" * 120])
def test_a_directory_that_can_not_be_used_is_named(directory):
    with pytest.raises(ListenError, match=f"could not listen on {directory}"):
        open_listeners([], free_port(), 16, directory)
