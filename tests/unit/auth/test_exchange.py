"""Both ends against each other: every method with every kind of secret on each side."""

import pytest

from tenant_proxy.auth import verify
from tenant_proxy.auth.scram import build_verifier
from tenant_proxy.auth.secret import Secret
from tenant_proxy.auth.server_auth import ServerAuth
from tenant_proxy.auth.tls import TlsInfo
from tenant_proxy.errors import ProxyError
from tests.unit.auth.conversation import (
    ITERATIONS,
    PASSWORD,
    USER,
    VERIFIER,
    client_auth,
    converse,
    verifier_secret,
)

END_POINT = b"e" * 32
MD5 = verify.md5_hash(PASSWORD.encode(), USER).decode()

SECRETS = {"plain": PASSWORD, "scram": str(VERIFIER), "md5": MD5, "nobody": None}
CLIENTS = {"password": PASSWORD, "md5 hash": MD5, "wrong": "wrong"}
#: (method, secret, client) that let in
GOOD = {
    ("scram-sha-256", "plain", "password"),
    ("scram-sha-256", "scram", "password"),
    ("md5", "plain", "password"),
    ("md5", "plain", "md5 hash"),
    ("md5", "md5", "password"),
    ("md5", "md5", "md5 hash"),
    ("md5", "scram", "password"),
    ("password", "plain", "password"),
    ("password", "md5", "password"),
    ("password", "scram", "password"),
}


@pytest.mark.parametrize("defer", [False, True], ids=["", "deferred"])
@pytest.mark.parametrize("tls", [None, TlsInfo(), TlsInfo(END_POINT)], ids=["plain", "no-end-point", "tls"])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("method", ["scram-sha-256", "md5", "password"])
def test_all(method, secret, client, tls, defer):
    proxy_side = client_auth(method, Secret.parse(SECRETS[secret]), tls=tls, defer=defer)
    client_side = ServerAuth(
        USER, password=Secret.parse(CLIENTS[client]), channel_binding=tls and tls.end_point, defer=defer
    )

    def run() -> None:
        message = proxy_side.start()
        while message:
            answer = client_side.on_auth(message[5:])
            if client_side.deferred is not None:
                client_side.deferred()
                answer = client_side.resume()
            if answer is None:
                return
            message = proxy_side.on_message(answer[5:])
            if proxy_side.deferred is not None:
                proxy_side.deferred()
                message = proxy_side.resume()

    if (method, secret, client) in GOOD:
        run()
        assert proxy_side.done
        client_side.on_auth(b"\0\0\0\0")
        assert client_side.done
    else:
        with pytest.raises(ProxyError):
            run()
        assert not proxy_side.done
        assert not client_side.done


@pytest.mark.parametrize("user", ["ünï", "with,comma", "with=equals", 'with"quote', "x" * 63])
def test_names(user):
    for method in ("scram-sha-256", "md5", "password"):
        converse(ServerAuth(user, password=PASSWORD), client_auth(method, Secret.plain(PASSWORD), user))


@pytest.mark.parametrize(
    "password",
    [
        " ",
        "I\u00adX",
        "a\u0340",
        "p,q=r",
        "\u00a0",
        "x" * 1000,
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ],
)
def test_passwords(password):
    for method in ("scram-sha-256", "md5", "password"):
        for secret in (
            Secret.plain(password),
            Secret.parse(str(build_verifier(password, iterations=ITERATIONS))),
        ):
            converse(ServerAuth(USER, password=password), client_auth(method, secret))


class TestPassThrough:
    """client -> proxy -> server, no password at the proxy: the same verifier on both sides."""

    @pytest.mark.parametrize("method", ["scram-sha-256", "md5", "password"])
    @pytest.mark.parametrize("tls", [None, TlsInfo(END_POINT)], ids=["plain", "tls"])
    def test_login(self, method, tls):
        proxy = client_auth(method, verifier_secret())
        converse(ServerAuth(USER, password=PASSWORD), proxy)
        assert proxy.keys is not None
        backend = ServerAuth(USER, keys=proxy.keys, channel_binding=tls and tls.end_point)
        converse(backend, client_auth(secret=verifier_secret(), tls=tls))

    def test_again_and_again(self):
        """The keys last: backends are opened long after the client has gone."""
        proxy = client_auth(secret=verifier_secret())
        converse(ServerAuth(USER, password=PASSWORD), proxy)
        for _ in range(3):
            converse(ServerAuth(USER, keys=proxy.keys), client_auth(secret=verifier_secret()))

    def test_another_verifier_of_the_same_password(self):
        proxy = client_auth(secret=verifier_secret())
        converse(ServerAuth(USER, password=PASSWORD), proxy)
        other = Secret.parse(str(build_verifier(PASSWORD, iterations=ITERATIONS)))
        with pytest.raises(ProxyError, match="could not log in"):
            converse(ServerAuth(USER, keys=proxy.keys), client_auth(secret=other))
