"""libpq (by psycopg) and asyncpg log in against `ClientAuth`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from tenant_proxy.auth import verify
from tenant_proxy.auth.client_auth import ClientAuth
from tenant_proxy.auth.scram import build_verifier
from tenant_proxy.auth.secret import Secret
from tenant_proxy.auth.tls import TlsInfo
from tenant_proxy.devel.postgres import TlsFiles
from tests.e2e.auth_peers import PASSWORD, AuthOnlyServer, auth_only_server, make_certificate

USER = "alice"
SECRETS = {
    "plain": PASSWORD,
    "scram": str(build_verifier(PASSWORD)),
    "md5": verify.md5_hash(PASSWORD.encode(), USER).decode(),
}


def authenticator(method: str, text: str | None):
    """Makes a `ClientAuth` per connection; only alice exists."""
    secret = Secret.parse(text)

    def make(user: str, tls: TlsInfo | None) -> ClientAuth:
        return ClientAuth(
            method, user, secret if user == USER else None, tls=tls, mock_key=b"key", database="d", defer=True
        )

    return make


async def connect(server: AuthOnlyServer, *, user: str = USER, password: str = PASSWORD, **more: Any) -> None:
    """psycopg, in a thread; libpq's own TLS and SCRAM."""

    def run() -> None:
        options = {"sslmode": "disable", "connect_timeout": "10"} | more
        psycopg.connect(
            host="127.0.0.1", port=server.port, user=user, password=password, dbname="d", **options
        ).close()

    await asyncio.to_thread(run)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("scram-sha-256", "plain"),
        ("scram-sha-256", "scram"),
        ("md5", "plain"),
        ("md5", "md5"),
        ("md5", "scram"),
        ("password", "plain"),
        ("password", "md5"),
        ("password", "scram"),
    ],
)
async def test_login(method, kind):
    async with auth_only_server(authenticator(method, SECRETS[kind])) as server:
        await connect(server)
        with pytest.raises(psycopg.OperationalError, match='authentication failed for user "alice"'):
            await connect(server, password="wrong")
        with pytest.raises(psycopg.OperationalError, match='authentication failed for user "nobody"'):
            await connect(server, user="nobody")
        assert len(server.logins) == 1
        assert [error.sqlstate for error in server.errors] == ["28P01", "28P01"]


async def test_asyncpg():
    async with auth_only_server(authenticator("scram-sha-256", SECRETS["scram"])) as server:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=server.port,
            user=USER,
            password=PASSWORD,
            database="d",
            ssl=False,
            timeout=10,
        )
        connection.terminate()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(
                host="127.0.0.1",
                port=server.port,
                user=USER,
                password="no",
                database="d",
                ssl=False,
                timeout=10,
            )


async def test_trust_and_reject():
    async with auth_only_server(authenticator("trust", None)) as server:
        await connect(server)
    async with auth_only_server(authenticator("reject", PASSWORD)) as server:
        with pytest.raises(psycopg.OperationalError, match="rejects connection"):
            await connect(server)


class TestChannelBinding:
    @pytest.mark.parametrize("kind", ["plain", "scram"])
    async def test_required(self, certificate, kind):
        async with auth_only_server(authenticator("scram-sha-256", SECRETS[kind]), certificate) as server:
            await connect(server, sslmode="require", channel_binding="require")
            assert server.end_point is not None

    async def test_switched_off_by_the_client(self, certificate):
        async with auth_only_server(authenticator("scram-sha-256", SECRETS["scram"]), certificate) as server:
            await connect(server, sslmode="require", channel_binding="disable")

    async def test_another_certificate(self, certificate):
        """As if somebody in the middle had shown its own."""
        async with auth_only_server(authenticator("scram-sha-256", SECRETS["scram"]), certificate) as server:
            server.end_point = b"x" * 48
            with pytest.raises(psycopg.OperationalError, match="channel binding check failed"):
                await connect(server, sslmode="require")

    async def test_ed25519(self, tmp_path: Path):
        """libpq fails if it is offered what is not defined for the certificate."""
        tls = make_certificate(tmp_path, eddsa=True)
        async with auth_only_server(authenticator("scram-sha-256", SECRETS["scram"]), tls) as server:
            await connect(server, sslmode="require")
            with pytest.raises(psycopg.OperationalError, match="channel binding"):
                await connect(server, sslmode="require", channel_binding="require")
            server.end_point = b"x" * 32
            with pytest.raises(psycopg.OperationalError):
                await connect(server, sslmode="require")


class TestCertificate:
    async def test_login(self, certificate, tmp_path: Path):
        alice, bob = make_certificate(tmp_path, "alice"), make_certificate(tmp_path, "bob")
        authorities = tmp_path / "ca.crt"
        authorities.write_text(alice.cert.read_text() + bob.cert.read_text())
        async with auth_only_server(authenticator("cert", None), certificate, authorities) as server:
            await connect(server, sslmode="require", sslcert=str(alice.cert), sslkey=str(alice.key))
            with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
                await connect(server, sslmode="require", sslcert=str(bob.cert), sslkey=str(bob.key))
            with pytest.raises(psycopg.OperationalError, match="requires a valid client certificate"):
                await connect(server, sslmode="require", sslcert="", sslkey="")
            assert len(server.logins) == 1
