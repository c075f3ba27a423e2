"""TLS towards clients: modes of libpq, channel binding, certificates of clients."""

from __future__ import annotations

import socket
import ssl
import threading

import psycopg
import pytest

from tests.fix_proxy import Proxy
from tests.fix_tls import Certificates, Pem
from tests.wire_client import (
    GSS_CODE,
    SSL_CODE,
    ConnectionEnded,
    LoginFailed,
    WireClient,
    errors,
    special_request,
    startup,
)


@pytest.fixture
def tls_proxy(proxies, certificates):
    """Call with further options; TLS is allowed unless they say otherwise."""

    def make(mode: str = "allow", min_version: str = "TLSv1.2", **changes) -> Proxy:
        tls = {
            "mode": mode,
            "cert": str(certificates.proxy.cert),
            "key": str(certificates.proxy.key),
            "client_ca": str(certificates.ca),
            "min_version": min_version,
        }
        return proxies(listen={"tls": tls}, **changes)

    return make


def context(certificates: Certificates, identity: Pem | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(certificates.ca))
    if identity is not None:
        made.load_cert_chain(identity.cert, identity.key)
    return made


def open_tls(proxy: Proxy, made: ssl.SSLContext, **options) -> WireClient:
    options.setdefault("server_name", "localhost")
    return proxy.wire(options.pop("user", "acme_app"), tls=made, **options)


@pytest.mark.parametrize("direct", [False, True], ids=["after-request", "direct"])
def test_a_session_over_tls(tls_proxy, certificates, direct):
    with open_tls(tls_proxy(), context(certificates), direct=direct) as c:
        assert isinstance(c.sock, ssl.SSLSocket)
        if direct:
            assert c.sock.selected_alpn_protocol() == "postgresql"
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"


@pytest.mark.parametrize("sslmode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
def test_modes_of_libpq(tls_proxy, certificates, sslmode):
    proxy = tls_proxy()
    with proxy.connect(sslmode=sslmode, sslrootcert=str(certificates.ca)) as conn:
        used = conn.pgconn.ssl_in_use
        assert used == (sslmode not in ("disable", "allow"))


def test_direct_negotiation_of_libpq(tls_proxy, certificates):
    if psycopg.pq.version() < 170_000:
        pytest.skip("libpq before 17 has no sslnegotiation")
    settings = {"sslmode": "verify-full", "sslnegotiation": "direct", "sslrootcert": str(certificates.ca)}
    with tls_proxy().connect(**settings) as conn:
        assert conn.pgconn.ssl_in_use


def test_verify_full_notices_a_wrong_name(tls_proxy, certificates):
    with pytest.raises(psycopg.OperationalError, match="does not match"):
        tls_proxy().connect(
            sslmode="verify-full",
            sslrootcert=str(certificates.ca),
            host="elsewhere.test",
            hostaddr="127.0.0.1",
        )


def test_verify_ca_notices_a_wrong_authority(tls_proxy, certificates):
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        tls_proxy().connect(sslmode="verify-ca", sslrootcert=str(certificates.other_ca))


def test_required_tls(tls_proxy, certificates):
    proxy = tls_proxy("require")
    with pytest.raises(LoginFailed) as failed:
        proxy.wire()
    assert failed.value.fields["C"] == "28000"
    assert "TLS" in failed.value.fields["M"]
    with open_tls(proxy, context(certificates)) as c:
        assert c.value("SELECT 1") == "1"


def test_gss_is_declined_and_tls_follows(tls_proxy, certificates):
    proxy = tls_proxy()
    with WireClient(proxy.host, proxy.port) as c:
        c.send(special_request(GSS_CODE))
        assert c.sock.recv(1) == b"N"
        c.start_tls(context(certificates), server_name="localhost")
        c.log_in()
        assert c.value("SELECT 1") == "1"


def test_bytes_slipped_in_before_the_handshake_are_refused(tls_proxy):
    """Somebody on the wire could put statements in front of what TLS protects (CVE-2021-23214)."""
    proxy = tls_proxy()
    with WireClient(proxy.host, proxy.port) as c:
        c.send(special_request(SSL_CODE) + startup({"user": "acme_app", "database": "app"}))
        c.sock.settimeout(5)
        received = b""
        try:
            while data := c.sock.recv(4096):
                received += data
        except ConnectionResetError:
            pass
        assert b"SCRAM" not in received


def test_a_second_ssl_request_inside_tls(tls_proxy, certificates):
    proxy = tls_proxy()
    with WireClient(proxy.host, proxy.port) as c:
        c.start_tls(context(certificates), server_name="localhost")
        c.send(special_request(SSL_CODE))
        (error,) = errors(c.until_end())
        assert error["S"] == "FATAL"


def test_direct_tls_needs_the_protocols_name(tls_proxy, certificates):
    """Without ALPN anything that speaks TLS could be made to talk to a database (ALPACA)."""
    proxy = tls_proxy()
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as sock:
        made = context(certificates)
        try:
            with made.wrap_socket(sock, server_hostname="localhost") as wrapped:
                wrapped.sendall(startup({"user": "acme_app", "database": "app"}))
                assert b"SCRAM" not in wrapped.recv(4096)
        except (ssl.SSLError, ConnectionResetError):
            pass


def test_oldest_version(tls_proxy, certificates):
    proxy = tls_proxy(min_version="TLSv1.3")
    old = context(certificates)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        open_tls(proxy, old)
    with open_tls(proxy, context(certificates)) as c:
        assert isinstance(c.sock, ssl.SSLSocket)
        assert c.sock.version() == "TLSv1.3"


def test_a_broken_handshake_harms_nobody(tls_proxy, certificates):
    proxy = tls_proxy()
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        b"\x16\x03\x01\xff\xff",
        b"\x16",
    ):
        with WireClient(proxy.host, proxy.port) as c:
            c.send(special_request(SSL_CODE))
            assert c.sock.recv(1) == b"S"
            c.sock.sendall(garbage)
    with open_tls(proxy, context(certificates)) as c:
        assert c.value("SELECT 1") == "1"


def test_large_results_and_parameters_over_tls(tls_proxy, certificates):
    with open_tls(tls_proxy(), context(certificates)) as c:
        assert len(c.value("SELECT repeat('x', 20000000)") or "") == 20_000_000
        literal = "y" * 5_000_000
        assert c.value(f"SELECT length('{literal}')") == "5000000"


def test_cancel_over_tls(tls_proxy, certificates):
    """libpq 17 and later send CancelRequests through TLS when the connection has it."""
    if psycopg.pq.version() < 170_000:
        pytest.skip("libpq before 17 cancels in clear")
    with tls_proxy("require").connect(sslmode="require") as conn:
        timer = threading.Timer(0.2, conn.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("SELECT pg_sleep(15)")
        timer.join()


# --- channel binding --------------------------------------------------------------


def test_scram_plus(tls_proxy, certificates):
    settings = {"sslmode": "require", "channel_binding": "require"}
    with tls_proxy().connect(**settings) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_scram_plus_is_offered_only_over_tls(tls_proxy, certificates):
    proxy = tls_proxy()
    with proxy.wire() as clear, open_tls(proxy, context(certificates)) as encrypted:
        assert b"PLUS" not in clear.login_replies[0].body
        assert b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0" in encrypted.login_replies[0].body


def test_channel_binding_of_another_certificate(tls_proxy, certificates):
    """What a man in the middle would send: a proof bound to his own certificate."""
    proxy = tls_proxy()
    with WireClient(proxy.host, proxy.port) as c:
        c.start_tls(context(certificates), server_name="localhost")
        c.channel_binding = "p"
        c.tls_server_cert = b"the certificate of somebody else"
        with pytest.raises(LoginFailed) as failed:
            c.log_in()
        assert failed.value.fields["C"] in ("28000", "28P01")


def test_a_client_that_was_told_there_is_no_channel_binding(tls_proxy, certificates):
    """gs2 flag y: the client could have bound, and somebody has hidden PLUS from it (RFC 5802, 6)."""
    proxy = tls_proxy()
    with WireClient(proxy.host, proxy.port) as c:
        c.start_tls(context(certificates), server_name="localhost")
        c.tls_server_cert = b""
        c.channel_binding = "y"
        with pytest.raises(LoginFailed) as failed:
            c.log_in()
        assert failed.value.fields["S"] == "FATAL"


# --- certificates of clients --------------------------------------------------------

CERT_RULES = {
    "rules": [
        {"user": ["admin", "viewer"], "method": "scram-sha-256"},
        {"type": "hostssl", "user": ["acme_app", "beta_app"], "method": "cert"},
    ]
}


def test_a_certificate_in_place_of_a_password(tls_proxy, certificates):
    with open_tls(tls_proxy(auth=CERT_RULES), context(certificates, certificates.acme_app), password="") as c:
        assert c.value("SELECT current_user") == "acme_app"


def test_a_certificate_of_another_user(tls_proxy, certificates):
    with pytest.raises(LoginFailed) as failed:
        open_tls(tls_proxy(auth=CERT_RULES), context(certificates, certificates.beta_app), password="")
    assert failed.value.fields["C"] == "28000"


def test_no_certificate(tls_proxy, certificates):
    with pytest.raises(LoginFailed) as failed:
        open_tls(tls_proxy(auth=CERT_RULES), context(certificates), password="")
    assert failed.value.fields["C"] == "28000"
    assert "certificate" in failed.value.fields["M"]


@pytest.mark.parametrize("which", ["forged", "expired"])
@pytest.mark.parametrize("direct", [False, True], ids=["after-request", "direct"])
def test_a_certificate_that_is_not_valid(tls_proxy, certificates, which, direct):
    proxy = tls_proxy(auth=CERT_RULES)
    with pytest.raises((ssl.SSLError, ConnectionResetError, ConnectionEnded, LoginFailed, BrokenPipeError)):
        with open_tls(
            proxy, context(certificates, getattr(certificates, which)), password="", direct=direct
        ) as c:
            c.value("SELECT 1")


def test_the_certificate_method_without_tls(tls_proxy):
    with pytest.raises(LoginFailed) as failed:
        tls_proxy(auth=CERT_RULES).wire(password="")
    assert failed.value.fields["C"] == "28000"


def test_a_password_beside_a_certificate(tls_proxy, certificates):
    """A certificate that is shown but not asked for changes nothing."""
    proxy = tls_proxy()
    with open_tls(proxy, context(certificates, certificates.beta_app)) as c:
        assert c.value("SELECT current_user") == "acme_app"
    with pytest.raises(LoginFailed):
        open_tls(proxy, context(certificates, certificates.acme_app), password="wrong")


def test_many_tls_clients_at_once(tls_proxy, certificates):
    proxy = tls_proxy(workers=2)
    clients = [open_tls(proxy, context(certificates)) for _ in range(12)]
    for number, client in enumerate(clients):
        assert client.value(f"SELECT {number}") == str(number)
    for client in clients:
        client.terminate()
