"""Several who have read the same and change it at once: one of them does, with a real server between them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tests.api.conftest import Reply

AT_ONCE = 5


async def at_once(api, method: str, path: str, bodies: list[Any], **headers: str) -> list[Reply]:
    return list(await asyncio.gather(*(api.ask(method, path, body, **headers) for body in bodies)))


def one_alone(replies: list[Reply], path: str) -> Reply:
    """The one that was done; the others were told that it was changed, is being worked on, or is gone."""
    (done,) = [reply for reply in replies if reply.status < 300]
    others = sorted(reply.status for reply in replies if reply.status >= 300)
    assert set(others) <= {412, 409, 404}, (path, others)
    return done


async def test_of_a_tenant(api):
    made = await api.ask("POST", "/v1/tenants", {"name": "acme"})
    tag = made.headers["etag"]
    for method, path, bodies in (
        ("PATCH", "", [{"labels": {"a": str(number)}} for number in range(AT_ONCE)]),
        ("POST", "/provision", [None] * AT_ONCE),
        ("POST", "/activate", [None] * AT_ONCE),
        ("POST", "/suspend", [{"reason": str(number)} for number in range(AT_ONCE)]),
        ("POST", "/resume", [None] * AT_ONCE),
        ("DELETE", "", [None] * AT_ONCE),
        ("POST", "/restore", [None] * AT_ONCE),
        ("DELETE", "", [None] * AT_ONCE),
        ("POST", "/erase", [{"at_once": True}] * AT_ONCE),
    ):
        replies = await at_once(
            api, method, f"/v1/tenants/acme{path}", bodies, If_Match=tag, Prefer="wait=30"
        )
        one_alone(replies, path)
        tag = (await api.ask("GET", "/v1/tenants/acme")).headers.get("etag", "")
    assert tag == ""


async def test_of_a_name(api):
    made = await api.ask("POST", "/v1/tenants", {"name": "acme"})
    names = [{"name": f"acme_{number}"} for number in range(AT_ONCE)]
    one_alone(
        await at_once(api, "POST", "/v1/tenants/acme/rename", names, If_Match=made.headers["etag"]), "rename"
    )
    assert len((await api.ask("GET", "/v1/tenants")).json["items"]) == 1


async def test_of_a_plan(api):
    """Also of one that must not be there yet: all who asked at once were told that they had made it."""
    bodies = [{"description": str(number)} for number in range(AT_ONCE)]
    done = one_alone(await at_once(api, "PUT", "/v1/plans/p", bodies, If_None_Match="*"), "new")
    tag = done.headers["etag"]
    assert (await api.ask("GET", "/v1/plans/p")).json["description"] == done.json["description"]
    bodies = [{"description": f"{number}!"} for number in range(AT_ONCE)]
    done = one_alone(await at_once(api, "PUT", "/v1/plans/p", bodies, If_Match=tag), "set")
    assert (await api.ask("GET", "/v1/plans/p")).json["description"] == done.json["description"]
    tag = done.headers["etag"]
    one_alone(await at_once(api, "DELETE", "/v1/plans/p", [None] * AT_ONCE, If_Match=tag), "delete")


async def test_of_a_login(api):
    await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    tag = (await api.ask("GET", "/v1/logins/alice")).headers["etag"]
    bodies = [{"max_clients": number} for number in range(1, AT_ONCE + 1)]
    done = one_alone(await at_once(api, "PATCH", "/v1/logins/alice", bodies, If_Match=tag), "patch")
    assert (await api.ask("GET", "/v1/logins/alice")).headers["etag"] == done.headers["etag"]


@pytest.mark.parametrize("overlap_s", [0, 3600])
async def test_of_a_password(api, town, overlap_s):
    """The one who is told a password must be told the one that is good."""
    await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    tag = (await api.ask("GET", "/v1/logins/alice")).headers["etag"]
    path = "/v1/logins/alice/rotate"
    bodies = [{"overlap_s": overlap_s}] * AT_ONCE
    done = one_alone(await at_once(api, "POST", path, bodies, If_Match=tag), path)
    with town.connect("alice~2", done.json["password"]) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    # nor one after the other: what was read before is not what there is
    tag = (await api.ask("GET", "/v1/logins/alice")).headers["etag"]
    ends = await at_once(api, "POST", path, [{"end": True}] * AT_ONCE, If_Match=tag)
    one_alone(ends, path)
    late = await api.ask("POST", path, {}, If_Match=tag)
    assert (late.status, late.json["code"]) == (412, "stale")
    with town.connect("alice~2", done.json["password"]) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
