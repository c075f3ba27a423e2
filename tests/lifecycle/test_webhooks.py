"""Webhooks: told of each change that they want, signed, again until they take it; where they may not go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.config.schema import Webhooks
from tenant_proxy.lifecycle import outbound
from tenant_proxy.lifecycle.records import NewTenant
from tenant_proxy.lifecycle.upkeep import next_time, upkeep
from tenant_proxy.lifecycle.verbs import Verbs
from tenant_proxy.lifecycle.webhooks import MAX_ATTEMPTS, pause_s
from tests.lifecycle.serving import serving

HERE = Webhooks(allowed_networks=["127.0.0.0/8"])


class Hook(BaseHTTPRequestHandler):
    seen: ClassVar[list[tuple[dict[str, Any], dict[str, str], bytes]]]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.seen.append((json.loads(body), headers, body))
        self.send_response(self.status)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[tuple[str, type[Hook]]]:
    class Own(Hook):
        seen: ClassVar = []

    with serving(Own) as address:
        yield f"{address}/told?by=us", Own


@pytest.fixture
async def verbs(new_context) -> Verbs:
    return Verbs(await new_context(secret={"value": "s3cret"}, webhooks=HERE.model_dump()))


async def make_due(verbs: Verbs) -> None:
    async with verbs.context.store.read() as connection:
        await connection.execute("UPDATE webhook_delivery SET next_at = now() WHERE state = 'waiting'")


async def test_what_is_done_is_told(verbs, hook):
    url, seen = hook
    made = await verbs.webhook_add("audit", url, ["tenant.*", "plan.create"])
    await verbs.tenant_create(NewTenant(name="acme"))
    await verbs.tenant_delete("acme")
    await verbs.token_create("x", "reader")  # which nobody asked for
    assert await next_time(verbs.context) is not None
    done = await upkeep(verbs.context)
    assert any("webhook audit: tenant.create of acme delivered" in one for one in done)
    events = {event["type"]: (event, headers, body) for event, headers, body in seen.seen}
    assert {"tenant_proxy.tenant.create"} <= set(events)
    assert all(name.startswith("tenant_proxy.tenant.") for name in events)
    event, headers, body = events["tenant_proxy.tenant.create"]
    # a CloudEvent 1.0, structured
    assert headers["content-type"] == "application/cloudevents+json"
    assert (event["specversion"], event["source"], event["subject"]) == ("1.0", "tenant_proxy", "tenant/acme")
    assert event["data"]["actor"] == "anna"
    assert event["data"]["after"]["name"] == "acme"
    # signed as Standard Webhooks has it
    key = base64.b64decode(made.secret.removeprefix("whsec_"))
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    signature = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{signature}"
    assert headers["webhook-id"] == event["id"]
    # each once
    seen.seen.clear()
    await upkeep(verbs.context)
    assert seen.seen == []
    assert {one.state for one in await verbs.webhook_deliveries("audit")} == {"delivered"}
    # the secret is nowhere
    async with verbs.context.store.read() as connection:
        rows = [
            dict(row) for row in await connection.fetch("SELECT w::text, a::text FROM webhook w, audit a")
        ]
    assert made.secret.removeprefix("whsec_") not in str(rows)


async def test_a_change_that_is_undone_is_not_told(verbs, hook):
    url, _ = hook
    await verbs.webhook_add("audit", url)
    async with verbs.context.rehearsing() as rehearsal:
        await Verbs(rehearsal).tenant_create(NewTenant(name="acme"))
    assert [one.event for one in await verbs.webhook_deliveries("audit")] == ["webhook.add"]


async def test_what_is_not_taken_is_sent_again_and_given_up_in_the_end(verbs, hook):
    url, seen = hook
    seen.status = 500
    await verbs.webhook_add("audit", url, ["tenant.create"])
    await verbs.tenant_create(NewTenant(name="acme"))
    await upkeep(verbs.context)
    await upkeep(verbs.context)  # not before its time
    (one,) = await verbs.webhook_deliveries("audit")
    assert (one.state, one.attempts, one.status, one.error) == ("waiting", 1, 500, "it answered 500")
    seen.status = 302  # redirects are not followed
    await make_due(verbs)
    await upkeep(verbs.context)
    (one,) = await verbs.webhook_deliveries("audit")
    assert (one.state, one.attempts, one.status) == ("waiting", 2, 302)
    for _ in range(MAX_ATTEMPTS - 2):
        await make_due(verbs)
        await upkeep(verbs.context)
    (one,) = await verbs.webhook_deliveries("audit")
    assert (one.state, one.attempts) == ("failed", MAX_ATTEMPTS)
    assert len({headers["webhook-id"] for _, headers, _ in seen.seen}) == 1
    assert len(seen.seen) == MAX_ATTEMPTS
    assert [4 <= pause_s(1) <= 6, 16 <= pause_s(2) <= 24, pause_s(12) <= 9.6 * 3600] == [True] * 3


async def test_one_that_wants_no_more(verbs, hook):
    url, seen = hook
    seen.status = 410
    await verbs.webhook_add("audit", url, ["tenant.*"])
    await verbs.tenant_create(NewTenant(name="acme"))
    await upkeep(verbs.context)
    await verbs.tenant_create(NewTenant(name="beta"))
    assert [one.state for one in await verbs.webhook_deliveries("audit")] == ["failed"]
    assert (await verbs.webhook_list())[0].gone_at is not None
    await verbs.webhook_remove("audit")
    assert await verbs.webhook_list() == []


async def test_tests(verbs, hook):
    url, seen = hook
    await verbs.webhook_add("audit", url)
    assert (await verbs.webhook_test("audit")).state == "delivered"
    assert seen.seen[0][0]["type"] == "tenant_proxy.webhook.test"
    seen.status = 404
    done = await verbs.webhook_test("audit")
    assert (done.state, done.status, done.error) == ("failed", 404, "it answered 404")
    with pytest.raises(Failure, match="no webhook"):
        await verbs.webhook_test("nobody")


async def test_without_a_secret_there_are_none(new_context):
    with pytest.raises(Failure, match="`secret`"):
        await Verbs(await new_context()).webhook_add("audit", "https://example.org/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "https://",
        "https://user:secret@example.org/",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://exa mple.org/",
        "https://example.org/\r\nX: y",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_address(url):
    with pytest.raises(Failure) as failed:
        outbound.check(url)
    assert failed.value.code == "invalid"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.0.1",
        "0.0.0.0",
        "100.64.0.1",
        "::1",
        "::",
        "fe80::1%lo",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
    ],
)
def test_addresses_that_are_not_public(address, monkeypatch):
    """Whatever a name is said to be; also where one of several is public."""
    asked = []

    def answers(host: str, port: int, **_: Any) -> list[Any]:
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))
        return [public, (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    monkeypatch.setattr(socket, "create_connection", lambda *_: asked.append(1))
    with pytest.raises(Failure, match="no public address"):
        outbound.post("https://hooks.example.org/", b"", {}, Webhooks())
    assert asked == []


def test_public_ones_must_be_https(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(Failure, match="must be https"):
        outbound.post("http://hooks.example.org/", b"", {}, Webhooks())


def test_the_address_that_was_looked_at_is_the_one_that_is_asked(hook, monkeypatch):
    """A name may be another address a moment later."""
    url, seen = hook
    port = int(url.split(":")[2].split("/")[0])
    turns = iter(["127.0.0.1", "10.0.0.1", "10.0.0.1"])

    def answers(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if host == "hooks.example.org":
            host = next(turns)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    answer = outbound.post(f"http://hooks.example.org:{port}/x", b"{}", {}, HERE)
    assert answer.status == 200
    assert seen.seen[0][1]["host"] == f"hooks.example.org:{port}"
