"""Further services: plug-ins by entry point, and webhooks; both taken back when provisioning is undone."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar

import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Spec
from tenant_proxy.catalog.states import State
from tenant_proxy.lifecycle import services
from tenant_proxy.lifecycle.records import NewTenant
from tenant_proxy.lifecycle.verbs import Verbs
from tests.lifecycle.serving import serving

calls: list[tuple[str, str]] = []
#: webhooks of these tests are on this machine
HERE: dict[str, Any] = {"webhooks": {"allowed_networks": ["127.0.0.0/8"]}}


class Bucket:
    async def provision(self, tenant: Any, config: Any) -> dict[str, str]:
        calls.append(("provision", tenant.name))
        return {"bucket": f"{tenant.name}-files"}

    async def unprovision(self, tenant: Any, config: Any) -> None:
        calls.append(("unprovision", tenant.name))


class Broken(Bucket):
    async def provision(self, tenant: Any, config: Any) -> dict[str, str]:
        raise RuntimeError("of somebody else's making, with a secret in it")


@pytest.fixture(autouse=True)
def plug_ins(monkeypatch) -> None:
    calls.clear()
    points = EntryPoints(
        EntryPoint(name, f"{__name__}:{kind}", services.GROUP)
        for name, kind in (("bucket", "Bucket"), ("broken", "Broken"))
    )
    monkeypatch.setattr("importlib.metadata.entry_points", points.select)
    monkeypatch.setattr(EntryPoint, "load", lambda point: globals()[point.attr])


class Hook(BaseHTTPRequestHandler):
    seen: ClassVar[list[tuple[dict[str, Any], str, bytes]]]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((json.loads(body), self.headers.get(services.SIGNATURE, ""), body))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b'{"queue": "made"}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[tuple[str, type[Hook]]]:
    class Own(Hook):
        seen: ClassVar = []

    with serving(Own) as address:
        yield f"{address}/", Own


async def test_a_plug_in_provisions_with_the_tenant(verbs):
    await verbs.tenant_create(NewTenant(name="acme", spec=Spec(services=["bucket"])))
    await verbs.tenant_provision("acme")
    assert calls == [("provision", "acme")]
    (job,) = await verbs.job_list()
    assert job.result == {"services": {"bucket": {"bucket": "acme-files"}}}


async def test_one_that_breaks_undoes_all(verbs, town):
    await verbs.tenant_create(NewTenant(name="acme", spec=Spec(services=["bucket", "broken"])))
    with pytest.raises(Failure, match="RuntimeError") as failed:
        await verbs.tenant_provision("acme")
    assert "secret" not in str(failed.value.to_json())
    assert calls == [("provision", "acme"), ("unprovision", "acme"), ("unprovision", "acme")]
    assert (await verbs.tenant_get("acme")).state is State.FAILED
    assert "acme" not in town.schemas()
    await verbs.tenant_set("acme", spec={"services": ["bucket"]})
    assert (await verbs.tenant_provision("acme")).state is State.READY


async def test_webhooks_are_signed_and_must_say_yes(new_context, hook):
    url, seen = hook
    verbs = Verbs(await new_context(secret={"value": "s3cret"}, **HERE))
    await verbs.tenant_create(NewTenant(name="acme", spec=Spec(services=[url])))
    seen.status = 500
    with pytest.raises(Failure, match="answered 500"):
        await verbs.tenant_provision("acme")
    # taking back fails too: somebody has to look, and undo once it answers
    (job,) = await verbs.job_list()
    assert job.state.value == "failed"
    seen.status = 200
    assert (await verbs.job_undo(job.id)).state.value == "undone"
    assert (await verbs.tenant_provision("acme")).state is State.READY
    said, signature, body = seen.seen[-1]
    assert (said["action"], said["tenant"]["name"]) == ("provision", "acme")
    assert signature == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()


async def test_a_webhook_that_is_away_is_waited_for(new_context):
    verbs = Verbs(await new_context(**HERE))
    await verbs.tenant_create(NewTenant(name="acme", spec=Spec(services=["http://127.0.0.1:1/"])))
    with pytest.raises(Failure, match="can't be reached") as failed:
        await verbs.tenant_provision("acme")
    assert failed.value.job is not None
    assert (await verbs.tenant_get("acme")).state is State.PROVISIONING


async def test_a_webhook_of_this_machine_must_be_allowed(verbs, hook):
    """Whoever writes plans could otherwise have the control process ask what only it can reach."""
    url, seen = hook
    await verbs.tenant_create(NewTenant(name="acme", spec=Spec(services=[url])))
    with pytest.raises(Failure, match="no public address"):
        await verbs.tenant_provision("acme")
    assert seen.seen == []
