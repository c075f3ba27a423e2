"""A job begins and ends by a statement each where nothing came between, and else as well."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from tenant_proxy.auth.scram import build_verifier
from tenant_proxy.catalog import audit
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import JobState
from tenant_proxy.catalog.states import State
from tenant_proxy.catalog.together import NotTogether, Together
from tenant_proxy.lifecycle import at_once, jobs
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.verbs import Verbs

VERIFIER = str(build_verifier("secret"))
GRANT: dict[str, Any] = {
    "login": "alice",
    "level": "owner",
    "role": "",
    "expires_at": None,
    "addresses": [],
    "max_clients": 0,
}


@contextmanager
def counted(monkeypatch):
    """How often a statement did it, and how often it could not."""
    seen = {"together": 0, "apart": 0}
    real = Together.make

    async def make(self, connection, wanted):
        try:
            rows = await real(self, connection, wanted)
        except NotTogether:
            seen["apart"] += 1
            raise
        seen["together"] += 1
        return rows

    monkeypatch.setattr(Together, "make", make)
    yield seen


async def whole(verbs: Verbs) -> list[str]:
    """The log, which must be in order; the actions on a tenant, and its logins, in turn."""
    async with verbs.context.store.read() as connection:
        assert (await audit.verify(connection)).ok
    return [one.action for one in reversed(await verbs.audit_log(limit=1000))]


async def test_an_onboarding_is_four_statements_and_the_tenants_own(verbs, monkeypatch):
    with counted(monkeypatch) as seen:
        made = await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    assert seen == {"together": 4, "apart": 0}
    assert made.tenant == await verbs.tenant_get("acme")
    assert (made.tenant.state, made.granted.access.pending) == (State.ACTIVE, False)
    assert await whole(verbs) == [
        "tenant.create",
        "tenant.provision",
        "tenant.ready",
        "login.create",
        "access.grant",
        "tenant.activate",
    ]
    ready = next(one for one in await verbs.audit_log(limit=10) if one.action == "tenant.ready")
    assert ready.before == {"state": "provisioning", "provisioned_at": None}
    assert ready.after is not None
    assert ready.after["state"] == "ready"
    assert datetime.fromisoformat(ready.after["provisioned_at"]) == made.tenant.provisioned_at
    job = await jobs.job(verbs.context, made.granted.job)
    assert (job.state, job.position, job.steps) == (JobState.DONE, 1, ["server"])


async def test_a_tenant_that_is_changed_meanwhile(verbs, monkeypatch):
    """Between the beginning and the end of its job; what was changed stays."""
    await verbs.tenant_create(NewTenant(name="acme"))
    ended = at_once.end

    async def end(kind, run, names, point):
        await Verbs(verbs.context.acting_as("bert")).tenant_set("acme", labels={"seen": "yes"})
        await ended(kind, run, names, point)

    monkeypatch.setattr(at_once, "end", end)
    with counted(monkeypatch) as seen:
        tenant = await verbs.tenant_provision("acme")
    assert seen == {"together": 1, "apart": 1}
    assert (tenant.state, tenant.labels) == (State.READY, {"seen": "yes"})
    assert await whole(verbs) == ["tenant.create", "tenant.provision", "tenant.set", "tenant.ready"]


async def test_a_tenant_that_was_read_too_early(verbs, monkeypatch):
    """What it was then does not let a job begin; what it is does."""
    draft = await verbs.tenant_create(NewTenant(name="acme"))
    await verbs.tenant_provision("acme")
    job = await jobs.start(verbs.context, "grant", draft, GRANT, transient={"verifier": VERIFIER})
    assert (await jobs.run(verbs.context, job)).state is JobState.DONE
    assert [one.login for one in await verbs.access_list(tenant="acme")] == ["alice"]


async def test_a_lease_that_is_lost_meanwhile(verbs, monkeypatch):
    await verbs.tenant_create(NewTenant(name="acme"))
    ended = at_once.end

    async def end(kind, run, names, point):
        async with verbs.context.store.read() as connection:
            await connection.execute("UPDATE job SET lease_owner = 'other'")
        await ended(kind, run, names, point)

    monkeypatch.setattr(at_once, "end", end)
    with pytest.raises(Failure, match="worked on by another process"):
        await verbs.tenant_provision("acme")
    assert (await verbs.tenant_get("acme")).state is State.PROVISIONING
    assert await whole(verbs) == ["tenant.create", "tenant.provision"]


async def test_of_two_grants_of_a_new_login_one_has_its_password(verbs, town, monkeypatch):
    for name in ("acme", "beta"):
        await verbs.tenant_create(NewTenant(name=name))
        await verbs.tenant_provision(name)
    start, both = jobs.start, asyncio.Event()

    async def when_both_have_looked(*given, **more):
        if waiting:
            both.set()
        waiting.append(given)
        await both.wait()
        return await start(*given, **more)

    waiting: list[object] = []
    monkeypatch.setattr(jobs, "start", when_both_have_looked)
    grants = [verbs.access_grant(name, NewAccess(login="alice")) for name in ("acme", "beta")]
    granted = await asyncio.gather(*grants)
    passwords = [one.password for one in granted if one.password is not None]
    assert len(passwords) == 1
    with town.connect(user="alice", password=passwords[0]) as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("alice",)
    assert [one.tenant for one in await verbs.access_list(login="alice")] == ["acme", "beta"]
    assert sum(one.is_default for one in await verbs.access_list(login="alice")) == 1
    await whole(verbs)


async def test_many_at_once_have_a_whole_log(verbs):
    async def one(name: str) -> None:
        await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=name))

    await asyncio.gather(*(one(f"t{number}") for number in range(12)))
    actions = await whole(verbs)
    assert len(actions) == 12 * 6
    assert {one.state for one in await verbs.tenant_list()} == {State.ACTIVE}
