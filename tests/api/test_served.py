"""The API as it is served: by a proxy's control process."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl

import psycopg
import pytest

from tenant_proxy.api import app
from tenant_proxy.catalog import tokens
from tenant_proxy.catalog.failures import Failure
from tests.wire_client import wait_until


def test_a_proxy_serves_it(catalog_dsn, own_proxy):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    own_proxy(catalog={"dsn": {"value": catalog_dsn}}, api={"enabled": True, "port": port})

    def ask(path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    wait_until(lambda: ask("/healthz")[0] == 200, "it is served", 20)
    secret = tokens.make()
    with psycopg.connect(catalog_dsn) as conn:
        conn.execute(
            "INSERT INTO tenant_proxy.token (name, hash, role) VALUES ('ci', %s, 'reader')",
            [tokens.digest(secret)],
        )
    status, body = ask("/v1/whoami", Authorization=f"Bearer {secret}")
    assert (status, json.loads(body)["actor"]) == (200, "token:ci")
    assert ask("/v1/whoami")[0] == 401


async def test_it_speaks_tls(new_context, certificates):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pem = certificates.proxy
    context = await new_context(api={"cert": str(pem.cert), "key": str(pem.key)})
    serving = asyncio.create_task(app.serve(context, "127.0.0.1", port, signals=False))
    trusting = ssl.create_default_context(cafile=str(certificates.ca))

    def ask(connection: http.client.HTTPConnection) -> int:
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def by_tls() -> int:
        return ask(http.client.HTTPSConnection("localhost", port, timeout=10, context=trusting))

    for _ in range(50):
        if await asyncio.to_thread(by_tls) == 200:
            break
        await asyncio.sleep(0.1)
    assert await asyncio.to_thread(by_tls) == 200
    plain = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    assert await asyncio.to_thread(ask, plain) == 0
    serving.cancel()
    await asyncio.wait([serving])


async def test_a_certificate_needs_its_key(new_context, certificates, tmp_path):
    for given in ({"cert": str(certificates.proxy.cert)}, {"cert": str(tmp_path / "x"), "key": "y"}):
        context = await new_context(api=given)
        with pytest.raises(Failure, match=r"api\.key|can't be read"):
            await app.serve(context, "127.0.0.1", 0, signals=False)
