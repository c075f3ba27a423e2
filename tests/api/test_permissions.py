"""Every role at every operation, at its own tenant and at another's."""

from __future__ import annotations

import json

import pytest

from tenant_proxy.api.app import bare_document
from tenant_proxy.api.permissions import MATRIX, Principal, Role, authorize
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Plan
from tenant_proxy.lifecycle.records import NewAccess, NewTenant

BODIES = {
    "plan_put": {},
    "tenant_create": {"name": "gamma"},
    "tenant_onboard": {"tenant": {"name": "gamma"}, "access": {"login": "gamma"}},
    "tenant_set": {},
    "tenant_rename": {"name": "delta"},
    "tenant_clone": {"name": "delta"},
    "tenant_move": {"cluster": "other"},
    "access_grant": {"login": "newcomer"},
    "login_set": {},
    "role_put": {"grants": {}},
    "tenant_export": {"archive": "some.tar"},
    "tenant_import": {"archive": "none.tar"},
    "migrate": {"what": "up", "files": {"1_a.up.sql": "CREATE TABLE t (id int)"}},
    "migrate_status": {"files": {"1_a.up.sql": "CREATE TABLE t (id int)"}},
    "token_create": {"name": "one", "role": "reader"},
    "webhook_add": {"name": "one", "url": "https://example.org/"},
}
#: what is refused for its own reasons: of a tenant that is active, a job that is done, or no archive
NOT_DONE = {
    "tenant_restore",
    "tenant_move",
    "tenant_erase",
    "tenant_adopt",
    "tenant_import",
    "erasure_record",
}
NOT_DONE |= {"archive_get", "job_undo"}
QUERIES = {
    "usage_show": "?since=2026-11-01T00:00:00Z&until=2026-12-01T00:00:00Z",
    "usage_invoices": "?month=2026-11",
}
#: what some operations answer who may, beside 200 and 404, of a tenant that is active and a job that is done
REFUSED = {
    "tenant_restore": {409},
    "tenant_adopt": {409},
    "tenant_erase": {409},
    "tenant_import": {409, 422},
    "tenant_export": {409},
    "job_resume": {409},
    "job_undo": {409},
    "tenant_move_confirm": {204, 409},
    "archive_put": {201, 409},
    "archive_delete": {204, 409},
}


def test_the_table_is_whole():
    named = {
        operation["operationId"] for item in bare_document()["paths"].values() for operation in item.values()
    }
    assert set(MATRIX) == named
    for role in Role:
        with pytest.raises(Failure, match="may not"):
            authorize(Principal("x", role), "something_new", None)


async def test_the_matrix(api):
    verbs = api.verbs
    for name in ("acme", "beta"):
        await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=name))
    api.tokens["tenant_admin"] = (await verbs.token_create("own", "tenant_admin", tenant="acme")).secret
    paths = {
        operation["operationId"]: (method.upper(), path)
        for path, item in bare_document()["paths"].items()
        for method, operation in item.items()
    }
    rehearsed = {
        operation["operationId"]
        for item in bare_document()["paths"].values()
        for operation in item.values()
        if any(one["name"] == "dry_run" for one in operation.get("parameters", ()))
    }
    answered: dict[str, set[int]] = {}
    wrong: list[str] = []
    await verbs.plan_put(Plan(name="p"))
    await verbs.token_create("nobody", "reader")
    await verbs.webhook_add("nobody", "https://example.org/")
    jobs = {job.tenant_name: job.id for job in reversed(await verbs.job_list())}
    for name, (method, path) in paths.items():
        for role in Role:
            for of in ("acme", "beta"):
                target = path.format(
                    tenant=of,
                    login=of,
                    plan="p",
                    role="clerk",
                    job=jobs[of],
                    token="nobody",
                    webhook="nobody",
                    archive="none.tar",
                    name="nobody",
                )
                may = role in MATRIX[name]
                bound = any(one in path for one in ("{tenant}", "{login}", "{job}"))
                if role is Role.TENANT_ADMIN and of == "beta" and bound:
                    may = False
                # what may be done is asked for as well, and what would change something is rehearsed
                query = "?dry_run=true" if name in rehearsed else QUERIES.get(name, "")
                reply = await api.ask(method, target + query, BODIES.get(name), role.value, Prefer="wait=60")
                wanted = {200, 404} | REFUSED.get(name, set()) if may else {403}
                if reply.status not in wanted:
                    wrong.append(f"{role} {method} {target}: {reply.status} {reply.text}")
                if may:
                    answered.setdefault(name, set()).add(reply.status)
    assert wrong == []
    # nearly all of them are done, and not only not refused for who asks
    assert {name for name, found in answered.items() if not found & {200, 201, 204}} == NOT_DONE
    assert {tenant.name for tenant in await verbs.tenant_list()} == {"acme", "beta"}


async def test_a_tenants_admin_sees_its_tenant_alone(api):
    verbs = api.verbs
    for name in ("acme", "beta"):
        await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=name))
    api.tokens["own"] = (await verbs.token_create("own", "tenant_admin", tenant="acme")).secret
    tenants = (await api.ask("GET", "/v1/tenants", token="own")).json["items"]
    assert [one["name"] for one in tenants] == ["acme"]
    jobs = (await api.ask("GET", "/v1/jobs?tenant=beta", token="own")).json["items"]
    assert {one["tenant_name"] for one in jobs} == {"acme"}
    log = (await api.ask("GET", "/v1/audit?name=beta", token="own")).json["items"]
    assert {(one["kind"], one["name"]) for one in log} == {("tenant", "acme")}
    for path in (
        "/v1/tenants/beta",
        "/v1/tenants/nowhere",
        "/v1/logins/beta",
        "/v1/logins/nobody",
        "/v1/jobs/999",
    ):
        assert (await api.ask("GET", path, token="own")).status == 403
    # and what it may, it can
    granted = await api.ask("POST", "/v1/tenants/acme/access", {"login": "alice"}, "own")
    assert granted.status == 201
    assert (await api.ask("POST", "/v1/logins/alice/rotate", None, "own")).status == 200


async def test_a_login_of_two_tenants_is_not_one_tenants_to_give_a_password(api):
    """It would open the other tenant too."""
    verbs = api.verbs
    for name in ("acme", "beta"):
        await verbs.tenant_onboard(
            NewTenant(name=name), NewAccess(login="alice" if name == "beta" else "acme")
        )
    api.tokens["own"] = (await verbs.token_create("own", "tenant_admin", tenant="acme")).secret
    assert (await api.ask("POST", "/v1/tenants/acme/access", {"login": "alice"}, "own")).status == 403
    await verbs.access_grant("acme", NewAccess(login="alice"))
    for method, path in (("POST", "/v1/logins/alice/rotate"), ("GET", "/v1/logins/alice")):
        assert (await api.ask(method, path, token="own")).status == 403
    assert (await api.ask("PATCH", "/v1/logins/alice", {"disabled": True}, "own")).status == 403


async def test_tokens(api):
    verbs = api.verbs
    await verbs.tenant_create(NewTenant(name="acme"))
    own = (await verbs.token_create("own", "tenant_admin", tenant="acme")).secret
    assert (await api.ask("GET", "/v1/whoami", token=own)).json == {
        "actor": "token:own",
        "role": "tenant_admin",
        "tenant": "acme",
    }
    made = await api.ask("POST", "/v1/tokens", {"name": "ci", "role": "admin"})
    secret = made.json["secret"]
    assert (await api.ask("GET", "/v1/plans", token=secret)).status == 200
    # nowhere else is it
    listed = await api.ask("GET", "/v1/tokens")
    log = await api.ask("GET", "/v1/audit")
    async with verbs.context.store.read() as connection:
        rows = json.dumps([dict(row) for row in await connection.fetch("SELECT * FROM token")], default=str)
    assert secret not in listed.text + log.text + rows
    assert [one["used_at"] is None for one in listed.json["items"] if one["name"] == "ci"] == [False]
    await api.ask("DELETE", "/v1/tokens/ci")
    assert (await api.ask("GET", "/v1/plans", token=secret)).status == 401
    for wrong in ("", "tpx_", "tpx_wrong", secret[:-1], "a.b.c", "x" * 10_000):
        assert (await api.ask("GET", "/v1/plans", token=wrong)).status == 401
    # a token ends with its tenant, also when another has the name then
    await verbs.tenant_delete("acme")
    assert (await api.ask("GET", "/v1/whoami", token=own)).status == 401
    await verbs.tenant_create(NewTenant(name="acme"))
    assert (await api.ask("GET", "/v1/whoami", token=own)).status == 401
    with pytest.raises(Failure, match="tenant_admin has a tenant"):
        await verbs.token_create("x", "tenant_admin")


async def test_expired_tokens(api):
    from datetime import UTC, datetime, timedelta

    old = await api.verbs.token_create("old", "admin", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await api.ask("GET", "/v1/whoami", token=old.secret)).status == 401
