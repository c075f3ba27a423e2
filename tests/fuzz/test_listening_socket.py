"""Random bytes to the listening socket: the proxy survives, and others do not notice.

A short run is part of `make test`; `make fuzz` goes on for minutes.  A failure prints hypothesis' seed.
"""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fix_proxy import Proxy
from tests.fuzz.meddler import Meddler
from tests.wire_client import (
    SYNC,
    WireClient,
    bind,
    close_statement,
    copy_data,
    describe_portal,
    describe_statement,
    execute,
    function_call,
    message,
    parse,
    query,
    startup,
)

SHORT = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=8_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))

#: what clients send, whole
well_formed = st.one_of(
    st.sampled_from(
        [
            "SELECT 1",
            "",
            "BEGIN",
            "COMMIT",
            "SELECT 1/0",
            "SELEC",
            "COPY scratch FROM STDIN",
            "SELECT * FROM beta.orders",
        ]
    ).map(query),
    st.builds(
        parse,
        st.sampled_from(["SELECT 1", "SELECT $1::int", "BEGIN", "SELEC"]),
        st.sampled_from(["", "a", "b"]),
    ),
    st.builds(
        lambda name, values: bind(*values, name=name),
        st.sampled_from(["", "a", "b"]),
        st.lists(st.sampled_from(["1", "x", None]), max_size=2),
    ),
    st.sampled_from(["", "a"]).map(describe_statement),
    st.sampled_from(["", "p"]).map(describe_portal),
    st.builds(execute, st.sampled_from(["", "p"]), st.integers(0, 2)),
    st.sampled_from(["", "a"]).map(close_statement),
    st.binary(max_size=40).map(copy_data),
    st.sampled_from(["c", "f", "H", "S"]).map(message),
    st.just(SYNC),
    st.builds(lambda oid: function_call(oid, b"1", arg_format=0), st.sampled_from([177, 0, 4_000_000_000])),
)

#: one message with a wrong length, type or body
mutated = st.builds(
    lambda kind, size, body: bytes([kind]) + struct.pack("!I", size) + body,
    st.one_of(st.sampled_from(list(b"QPBDECSHFdcfXp")), st.integers(0, 255)),
    st.one_of(st.integers(0, 40), st.sampled_from([0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 1 << 20])),
    st.binary(max_size=60),
)

startups = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda version, pairs, cut: startup(pairs, version)[: cut or None],
        st.sampled_from([196608, 196610, 80877102, 80877103, 80877104, 131072, 0]),
        st.dictionaries(
            st.sampled_from(
                ["user", "database", "options", "search_path", "replication", "_pq_.x", "", "tenant"]
            ),
            st.sampled_from(["acme_app", "", "-c", "-c x", "\\", "x" * 300, "beta", "true"]),
            max_size=5,
        ),
        st.integers(0, 60),
    ),
)


def assert_unharmed(proxy: Proxy, witness: WireClient) -> None:
    """The client that was there goes on, and a new one comes in."""
    assert witness.value("SELECT item FROM orders WHERE id = 1") == "anvil"


def send_before_login(proxy: Proxy, data: bytes) -> None:
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass


def send_after_login(proxy: Proxy, parts: list[bytes], cuts: list[int]) -> None:
    """Parts in one stream, cut where `cuts` says, and the end of the stream behind them."""
    # the proxy may have closed it by then
    with proxy.wire() as c, contextlib.suppress(OSError):
        data, at = b"".join(parts), 0
        for cut in cuts:
            c.sock.sendall(data[at : at + cut])
            at += cut
        c.sock.sendall(data[at:])
        c.sock.shutdown(socket.SHUT_WR)
        while c.sock.recv(65536):
            pass


def run_before_login(proxy: Proxy, how: settings) -> None:
    with proxy.wire() as witness:

        @how
        @given(startups)
        def fuzz(data: bytes) -> None:
            send_before_login(proxy, data)
            assert_unharmed(proxy, witness)

        fuzz()


def run_after_login(proxy: Proxy, how: settings) -> None:
    with proxy.wire() as witness:

        @how
        @given(
            st.lists(st.one_of(well_formed, well_formed, mutated), max_size=8),
            st.lists(st.integers(1, 30), max_size=6),
        )
        def fuzz(parts: list[bytes], cuts: list[int]) -> None:
            send_after_login(proxy, parts, cuts)
            assert_unharmed(proxy, witness)

        fuzz()


def test_before_login(each_mode):
    run_before_login(each_mode, SHORT)


def test_after_login(each_mode):
    run_after_login(each_mode, SHORT)


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_before_login_for_long(each_mode):
    run_before_login(each_mode, LONG)


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_after_login_for_long(each_mode):
    run_after_login(each_mode, LONG)


# --- in the place of the server ------------------------------------------------------


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_a_servers_answers_changed_on_the_way(own_pg, own_proxy):
    """One byte of what the server sends is changed: the client's connection may end, the proxy not."""
    with Meddler(own_pg.host, own_pg.port) as meddler:
        clusters = [
            {
                "name": "main",
                "host": "127.0.0.1",
                "port": meddler.port,
                "database": "app",
                "tls": {"mode": "disable"},
            },
            {"name": "well", "host": own_pg.host, "port": own_pg.port, "database": "app"},
        ]
        tenants = [{"name": "acme", "cluster": "main"}, {"name": "beta", "cluster": "well"}]
        pool = {"retry_min_s": 0.01, "retry_max_s": 0.01}
        proxy = own_proxy(own_pg, clusters=clusters, tenants=tenants, pool=pool)
        with proxy.wire("beta_app") as witness:

            @settings(LONG, max_examples=1_000)
            @given(st.integers(0, 1500), st.integers(1, 255))
            def fuzz(at: int, flip: int) -> None:
                meddler.change(at, flip)
                with contextlib.suppress(Exception), WireClient(proxy.host, proxy.port) as c:
                    c.sock.settimeout(0.5)
                    c.log_in()
                    c.query("SELECT * FROM orders")
                    c.extended("SELECT * FROM orders WHERE id = $1", "1")
                assert witness.value("SELECT item FROM orders WHERE id = 1") == "bolt"

            fuzz()
