"""The API as it is served: by a proxy's control process."""

from __future__ import annotations

import http.client
import json
import socket

import psycopg

from tenant_proxy.catalog import tokens
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
