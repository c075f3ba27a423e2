"""TLS as a layer over bytes: both ends in memory, and what passes between them in pieces."""

import ssl

import pytest

from tenant_proxy.config.schema import ClientTls, ServerTls
from tenant_proxy.net.tls import ALPN, TlsLayer, client_context, server_context


class Ends:
    """A client's and a server's layer, joined by what `pass_on` carries."""

    def __init__(
        self,
        client: ssl.SSLContext,
        server: ssl.SSLContext,
        *,
        host: str | None = "localhost",
        piece: int = 0,
    ) -> None:
        self.established: list[str] = []
        self.piece = piece
        self.server = TlsLayer(
            server, server_side=True, on_established=lambda _: self.established.append("server")
        )
        self.client = TlsLayer(
            client,
            server_side=False,
            server_hostname=host,
            on_established=lambda _: self.established.append("client"),
        )
        self.heard = {"client": b"", "server": b""}
        self.pass_on(self.client.start(), "server")

    def pass_on(self, records: bytes, to: str) -> None:
        """Feeds records to an end, and what that makes of it to the other, until both are silent."""
        other = "client" if to == "server" else "server"
        layer = getattr(self, to)
        step = self.piece or len(records) or 1
        for at in range(0, len(records), step):
            self.heard[to] += layer.feed(records[at : at + step])
            answer = layer.take_out()
            if answer:
                self.pass_on(answer, other)


@pytest.fixture
def for_clients(certificates):
    def make(**more) -> ssl.SSLContext:
        pem = certificates.proxy
        made = client_context(ClientTls(mode="allow", cert=str(pem.cert), key=str(pem.key), **more))
        assert made is not None
        return made

    return make


@pytest.fixture
def for_servers(certificates):
    def make(mode: str = "verify-full", **more) -> ssl.SSLContext:
        made = server_context(ServerTls(mode=mode, ca=str(certificates.ca), **more))  # type: ignore[arg-type]
        assert made is not None
        return made

    return make


@pytest.mark.parametrize("piece", [0, 1, 100])
def test_a_handshake_and_bytes_both_ways(for_clients, for_servers, piece):
    ends = Ends(for_servers(), for_clients(), piece=piece)
    assert sorted(ends.established) == ["client", "server"]
    assert ends.client.alpn == ends.server.alpn == ALPN
    ends.pass_on(ends.client.seal(b"a question"), "server")
    ends.pass_on(ends.server.seal(b"an answer"), "client")
    assert ends.heard == {"server": b"a question", "client": b"an answer"}


def test_much_at_once(for_clients, for_servers):
    ends = Ends(for_servers(), for_clients())
    ends.pass_on(ends.client.seal(b"x" * 1_000_000), "server")
    assert ends.heard["server"] == b"x" * 1_000_000


@pytest.mark.parametrize("piece", [0, 1, 100])
def test_many_records_at_once(for_clients, for_servers, piece):
    ends = Ends(for_servers(), for_clients(), piece=piece)
    records = b"".join(ends.client.seal(bytes([number]) * number) for number in range(50))
    ends.pass_on(records, "server")
    assert ends.heard["server"] == b"".join(bytes([number]) * number for number in range(50))


def test_no_session_is_resumed(for_clients, for_servers):
    ends = Ends(for_servers(), for_clients())
    ends.pass_on(ends.server.seal(b"an answer"), "client")
    session = ends.client.ssl_object.session
    assert session is None or not session.has_ticket


def test_bytes_right_behind_the_handshake(for_clients, for_servers):
    """A client's last record and its first bytes in one read."""
    server = TlsLayer(for_clients(), server_side=True, on_established=lambda _: None)
    client = TlsLayer(
        for_servers(), server_side=False, server_hostname="localhost", on_established=lambda _: None
    )
    server.feed(client.start())
    assert client.feed(server.take_out()) == b""
    assert server.feed(client.take_out() + client.seal(b"early")) == b"early"


def test_goodbyes(for_clients, for_servers):
    ends = Ends(for_servers(), for_clients())
    last = ends.server.seal(b"last words")
    ends.server.close()
    heard = ends.client.feed(last + ends.server.take_out())
    # what came with the end is not lost
    assert heard == b"last words"
    assert ends.client.closed


def test_no_goodbye_before_the_handshake(for_clients):
    layer = TlsLayer(for_clients(), server_side=True, on_established=lambda _: None)
    layer.close()
    assert layer.take_out() == b""


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x00\x05hello", b"GET / HTTP/1.1\r\n\r\n", b"\x16" + b"\xff" * 100]
)
def test_garbage(for_clients, garbage):
    layer = TlsLayer(for_clients(), server_side=True, on_established=lambda _: None)
    with pytest.raises(ssl.SSLError):
        layer.feed(garbage)
    assert not layer.established


def test_a_record_that_was_changed_on_its_way(for_clients, for_servers):
    ends = Ends(for_servers(), for_clients())
    record = bytearray(ends.client.seal(b"a question"))
    record[-1] ^= 1
    with pytest.raises(ssl.SSLError):
        ends.server.feed(bytes(record))


# --- who is who -----------------------------------------------------------------------


def test_the_name_that_a_client_asks_for(for_clients, for_servers):
    ends = Ends(for_servers(), for_clients(), host="acme.tenants.test")
    assert ends.server.sni == "acme.tenants.test"


def test_a_client_that_asks_for_none(for_clients, for_servers):
    ends = Ends(for_servers("require"), for_clients(), host=None)
    assert ends.server.sni is None


def test_names_of_a_clients_certificate(certificates, for_clients, for_servers):
    pem = certificates.acme_app
    ends = Ends(
        for_servers(cert=str(pem.cert), key=str(pem.key)), for_clients(client_ca=str(certificates.ca))
    )
    assert ends.server.peer_names() == ("acme_app", ())
    # addresses are no names
    cn, names = ends.client.peer_names()
    assert (cn, names) == ("proxy", ("localhost", "*.tenants.test"))


def test_a_client_without_certificate_where_one_may_be_shown(certificates, for_clients, for_servers):
    ends = Ends(for_servers(), for_clients(client_ca=str(certificates.ca)))
    assert ends.server.established
    assert ends.server.peer_names() == (None, ())


@pytest.mark.parametrize("which", ["forged", "expired"])
def test_a_clients_certificate_that_is_not_trusted(certificates, for_clients, for_servers, which):
    pem = getattr(certificates, which)
    with pytest.raises(ssl.SSLError):
        Ends(for_servers(cert=str(pem.cert), key=str(pem.key)), for_clients(client_ca=str(certificates.ca)))


@pytest.mark.parametrize(
    ("mode", "host", "ca", "works"),
    [
        ("require", "elsewhere", "other_ca", True),
        ("prefer", "elsewhere", "other_ca", True),
        ("verify-ca", "elsewhere", "ca", True),
        ("verify-ca", "localhost", "other_ca", False),
        ("verify-full", "localhost", "ca", True),
        ("verify-full", "127.0.0.1", "ca", True),
        ("verify-full", "elsewhere", "ca", False),
        ("verify-full", "localhost", "other_ca", False),
    ],
)
def test_what_a_servers_certificate_must_be(certificates, for_clients, mode, host, ca, works):
    context = server_context(ServerTls(mode=mode, ca=str(getattr(certificates, ca))))
    assert context is not None
    if works:
        assert Ends(context, for_clients(), host=host).client.established
    else:
        with pytest.raises(ssl.SSLError):
            Ends(context, for_clients(), host=host)


# --- contexts ----------------------------------------------------------------------------


def test_off_is_off(certificates):
    assert server_context(ServerTls(mode="disable")) is None
    assert client_context(ClientTls(mode="disable")) is None


def test_the_oldest_version(for_clients, for_servers):
    modern = for_clients(min_version="TLSv1.3")
    old = for_servers()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        Ends(old, modern)
    assert Ends(old, for_clients()).server.established


def test_a_key_that_is_not_the_certificates(certificates):
    with pytest.raises(ssl.SSLError):
        client_context(
            ClientTls(mode="allow", cert=str(certificates.proxy.cert), key=str(certificates.server.key))
        )
