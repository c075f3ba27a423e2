"""What requests have in common: tags, keys, pages, jobs, and that secrets are said once."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from tenant_proxy.api import asking
from tenant_proxy.api.cursors import cursor_of, cursor_of_two
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Plan
from tenant_proxy.lifecycle.records import Every, NewAccess, NewTenant


async def test_tags(api):
    made = await api.ask("POST", "/v1/tenants", {"name": "acme"})
    tag = made.headers["etag"]
    assert made.headers["location"] == "/v1/tenants/acme"
    assert (await api.ask("GET", "/v1/tenants/acme", If_None_Match=tag)).status == 304
    changed = await api.ask("PATCH", "/v1/tenants/acme", {"labels": {"a": "b"}}, If_Match=tag)
    assert changed.status == 200
    assert changed.headers["etag"] != tag
    late = await api.ask("PATCH", "/v1/tenants/acme", {"labels": {"a": "c"}}, If_Match=tag)
    assert (late.status, late.json["code"]) == (412, "stale")
    assert (await api.ask("PATCH", "/v1/tenants/acme", {}, If_Match="nonsense")).status == 412
    plan = await api.ask("PUT", "/v1/plans/p", {}, If_None_Match="*")
    assert plan.status == 200
    assert (await api.ask("PUT", "/v1/plans/p", {}, If_None_Match="*")).status == 412
    assert (await api.ask("PUT", "/v1/plans/p", {"description": "x"}, If_Match='"99"')).status == 412


async def test_tags_at_all_that_changes_a_tenant(api):
    """Each verb with a tag of before changes nothing, also rehearsed; with the one that it has it does."""
    await api.ask("POST", "/v1/tenants", {"name": "acme"})
    old = (await api.ask("GET", "/v1/tenants/acme")).headers["etag"]
    changed = await api.ask("PATCH", "/v1/tenants/acme", {"labels": {"a": "b"}})
    new = changed.headers["etag"]
    for method, path, body in (
        ("POST", "/provision", None),
        ("POST", "/provision?dry_run=true", None),
        ("POST", "/activate", None),
        ("POST", "/suspend", {"reason": "x"}),
        ("POST", "/resume", None),
        ("POST", "/rename", {"name": "other"}),
        ("POST", "/restore", None),
        ("POST", "/move", {"cluster": "elsewhere"}),
        ("POST", "/adopt", None),
        ("POST", "/erase", None),
        ("PATCH", "?dry_run=true", {"labels": {"a": "c"}}),
        ("DELETE", "", None),
        ("DELETE", "?dry_run=true", None),
    ):
        late = await api.ask(method, f"/v1/tenants/acme{path}", body, If_Match=old)
        assert (late.status, late.json["code"]) == (412, "stale"), path
        assert late.headers["content-type"] == "application/problem+json"
    assert (await api.ask("GET", "/v1/tenants/acme")).headers["etag"] == new
    client = api.client()
    version = int(new.strip('"'))
    for late_verb in (client.tenant_delete, client.tenant_provision, client.tenant_erase):
        with pytest.raises(Failure, match="changed meanwhile"):
            await late_verb("acme", version=version - 1)
    version = (await client.tenant_provision("acme", version=version)).version
    for method, path in (("POST", "/activate"), ("POST", "/suspend"), ("POST", "/resume"), ("DELETE", "")):
        done = await api.ask(method, f"/v1/tenants/acme{path}", If_Match=f'"{version}"')
        assert done.status == 200, done.text
        shown = await api.ask("GET", "/v1/tenants/acme")
        assert done.headers["etag"] == shown.headers["etag"]
        version = shown.json["version"]


async def test_tags_of_what_is_deleted_and_of_what_has_none(api):
    await api.ask("PUT", "/v1/plans/p", {})
    await api.ask("PUT", "/v1/plans/p", {"description": "x"})
    assert (await api.ask("DELETE", "/v1/plans/p", If_Match='"1"')).status == 412
    tag = (await api.ask("GET", "/v1/plans/p")).headers["etag"]
    assert (await api.ask("DELETE", "/v1/plans/p", If_Match=tag)).status == 204
    # what can't be compared is not done
    await api.ask("POST", "/v1/webhooks", {"name": "told", "url": "https://example.org/"})
    assert (await api.ask("DELETE", "/v1/webhooks/told", If_Match='"1"')).status == 412
    assert (await api.ask("DELETE", "/v1/webhooks/told", If_Match="*")).status == 204
    # what is read alone is read once
    await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    for path in ("/v1/tenants/acme/details", "/v1/jobs/1", "/v1/logins/alice"):
        tag = (await api.ask("GET", path)).headers["etag"]
        assert (await api.ask("GET", path, If_None_Match=tag)).status == 304
    await api.ask("PATCH", "/v1/logins/alice", {"max_clients": 3})
    assert (await api.ask("POST", "/v1/logins/alice/rotate", If_Match=tag)).status == 412


async def test_tags_of_logins(api):
    """Where a login may come from is not what somebody has read who comes too late."""
    await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    tag = (await api.ask("GET", "/v1/logins/alice")).headers["etag"]
    first = await api.ask("PATCH", "/v1/logins/alice", {"addresses": ["10.0.0.0/8"]}, If_Match=tag)
    assert first.status == 200
    late = await api.ask("PATCH", "/v1/logins/alice", {"addresses": []}, If_Match=tag)
    assert (late.status, late.json["code"]) == (412, "stale")
    changed = await api.client().login_set("alice", max_clients=3, version=first.json["version"])
    assert changed.addresses == ["10.0.0.0/8"]


async def test_the_same_key_is_the_same_request(api):
    await api.verbs.tenant_create(NewTenant(name="acme"))
    await api.verbs.tenant_provision("acme")
    body = {"login": "alice", "password": "correct horse"}
    first = await api.ask("POST", "/v1/tenants/acme/access", body, Idempotency_Key="k1")
    again = await api.ask("POST", "/v1/tenants/acme/access", body, Idempotency_Key="k1")
    assert (first.status, again.status) == (201, 201)
    assert again.headers["idempotency-replayed"] == "true"
    # but a password is said once, and kept nowhere
    assert first.json["password"] == "correct horse"
    assert first.json["dsn"].startswith("postgresql://alice:")
    assert again.json == {**first.json, "password": None, "dsn": again.json["dsn"]}
    assert again.json["dsn"].startswith("postgresql://alice@")
    async with api.verbs.context.store.read() as connection:
        rows = await connection.fetch("SELECT * FROM idempotency")
        jobs = await connection.fetch("SELECT * FROM job")
    assert "horse" not in json.dumps([dict(row) for row in [*rows, *jobs]], default=str)
    other = await api.ask("POST", "/v1/tenants/acme/access", {"login": "bob"}, Idempotency_Key="k1")
    assert (other.status, other.json["code"]) == (422, "invalid")
    # a key is its caller's
    assert (await api.ask("POST", "/v1/tenants", {"name": "x"}, "reader", Idempotency_Key="k1")).status == 403
    assert (await api.ask("POST", "/v1/tenants", {"name": "x"}, Idempotency_Key="x" * 300)).status == 422


async def test_what_failed_may_be_tried_again_with_its_key(api):
    assert (await api.ask("POST", "/v1/tenants/acme/activate", Idempotency_Key="k")).status == 404
    await api.verbs.tenant_create(NewTenant(name="acme"))
    await api.verbs.tenant_provision("acme")
    assert (await api.ask("POST", "/v1/tenants/acme/activate", Idempotency_Key="k")).status == 200


async def test_two_at_once_with_one_key(api):
    asked = [api.ask("POST", "/v1/tenants", {"name": "acme"}, Idempotency_Key="k") for _ in range(5)]
    replies = await asyncio.gather(*asked)
    assert {reply.status for reply in replies} <= {201, 409}
    assert len(await api.verbs.audit_log(kind="tenant")) == 1


async def test_pages(api):
    for number in range(7):
        await api.verbs.tenant_create(NewTenant(name=f"t{number}"))
    names: list[str] = []
    cursor = ""
    for _ in range(4):
        page = (await api.ask("GET", f"/v1/tenants?limit=3{cursor}")).json
        names += [one["name"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert names == [f"t{number}" for number in range(7)]
    client = api.client()
    assert len(await client.audit_log(limit=5)) == 5
    assert [one.id for one in await client.audit_log(before=4)] == [3, 2, 1]
    assert (await api.ask("GET", "/v1/audit?cursor=!")).status == 422


async def _paged(api, path: str) -> list[list[dict]]:
    """All pages."""
    pages, cursor = [], ""
    while True:
        page = (await api.ask("GET", f"{path}{cursor}")).json
        pages.append(page["items"])
        if page["next"] is None:
            return pages
        cursor = f"&cursor={page['next']}"


async def test_pages_of_what_is_by_two_things(api, monkeypatch):
    """Who may reach what, and what was used: in the order that it has without pages, each once."""
    verbs = api.verbs
    begin, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)
    for name in ("acme", "beta"):
        await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=name))
        for login in ("rita", 'a "quoted", one', "zoë"):
            await verbs.access_grant(name, NewAccess(login=login))
        async with verbs.context.store.read() as connection:
            for hour in range(3):
                await connection.execute(
                    "INSERT INTO usage (tenant, hour, proxy, transactions) VALUES ($1, $2, 'p', 1)",
                    name,
                    begin + timedelta(hours=hour),
                )
    time = f"since={begin:%Y-%m-%dT%H:%M:%SZ}&until={end:%Y-%m-%dT%H:%M:%SZ}"
    for path, whole, sizes in (
        ("/v1/access?", await verbs.access_list(), [3, 3, 2]),
        ("/v1/tenants/acme/access?", await verbs.access_list(tenant="acme"), [3, 1]),
        ("/v1/access?login=rita&", await verbs.access_list(login="rita"), [2]),
        (f"/v1/usage?{time}&every=hour&", await verbs.usage_show(begin, end, every=Every.HOUR), [3, 3]),
        (f"/v1/usage?{time}&", await verbs.usage_show(begin, end), [2]),
    ):
        pages = await _paged(api, f"{path}limit=3")
        assert [len(page) for page in pages] == sizes, path
        assert [one for page in pages for one in page] == [one.to_json() for one in whole], path
    for path in ("/v1/access?", f"/v1/usage?{time}&"):
        for wrong in (
            "!",
            cursor_of("acme"),
            cursor_of('["acme"]'),
            cursor_of('[1, "a"]'),
            cursor_of('["x",1]'),
        ):
            assert (await api.ask("GET", f"{path}cursor={wrong}")).status == 422
    assert (await api.ask("GET", f"/v1/usage?{time}&cursor={cursor_of_two('now', 'acme')}")).status == 422
    # the client asks for one after the other
    monkeypatch.setattr(asking, "_PAGE", 3)
    client = api.client()
    accesses = await verbs.access_list()
    assert await client.access_list() == accesses
    assert await client.access_list(after=(accesses[2].tenant, accesses[2].login), limit=4) == accesses[3:7]
    used = await verbs.usage_show(begin, end, every=Every.HOUR)
    assert await client.usage_show(begin, end, every=Every.HOUR) == used
    assert await client.usage_show(begin, end, every=Every.HOUR, after=(used[1].since, "beta")) == used[2:]


async def test_pages_of_deliveries(api, monkeypatch):
    await api.verbs.webhook_add("told", "https://example.org/")
    for number in range(7):
        await api.verbs.tenant_create(NewTenant(name=f"t{number}"))
    whole = await api.verbs.webhook_deliveries("told")
    assert len(whole) >= 7
    pages = await _paged(api, "/v1/webhooks/told/deliveries?limit=3")
    assert [one["id"] for page in pages for one in page] == [one.id for one in whole]
    assert {len(page) for page in pages[:-1]} == {3}
    monkeypatch.setattr(asking, "_PAGE", 3)
    client = api.client()
    assert [one.id for one in await client.webhook_deliveries("told")] == [one.id for one in whole]
    found = await client.webhook_deliveries("told", before=whole[1].id, limit=4)
    assert [one.id for one in found] == [one.id for one in whole[2:6]]


async def test_long_work_is_a_job(api, town):
    await api.verbs.tenant_create(NewTenant(name="acme"))
    begun = await api.ask("POST", "/v1/tenants/acme/provision", Idempotency_Key="k")
    assert begun.status == 202
    place = begun.headers["location"]
    events = await api.ask("GET", f"{place}/events")
    last = json.loads(events.text.strip().split("data: ")[-1].split("\n")[0])
    assert last["state"] == "done"
    assert events.headers["content-type"].startswith("text/event-stream")
    assert (await api.ask("GET", place)).json["state"] == "done"
    assert (await api.ask("GET", "/v1/tenants/acme")).json["state"] == "ready"
    assert (await api.ask("POST", "/v1/tenants/acme/provision", Idempotency_Key="k")).json["id"] == last["id"]
    # what is refused before a job begins is refused at once
    assert (await api.ask("POST", "/v1/tenants/nobody/provision")).status == 404
    # a job that fails says so
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA beta")
    await api.verbs.tenant_create(NewTenant(name="beta"))
    failed = await api.ask("POST", "/v1/tenants/beta/provision", Prefer="wait=30")
    assert (failed.status, failed.json["code"]) == (409, "exists")
    assert "adopt" in failed.json["hint"]
    assert failed.json["job"]


async def test_rehearsals(api):
    body = {"tenant": {"name": "acme"}, "access": {"login": "acme"}}
    reply = await api.ask("POST", "/v1/onboard?dry_run=true", body)
    assert any("CREATE SCHEMA" in one for one in reply.json["sql"])
    assert await api.verbs.tenant_list() == []
    refused = await api.ask("DELETE", "/v1/archives/x.tar?dry_run=true")
    assert (refused.status, refused.json["detail"]) == (422, "that can't be rehearsed")


async def test_rehearsals_of_what_the_catalog_alone_is_told(api):
    await api.verbs.plan_put(Plan(name="gold"))
    await api.verbs.token_create("old", "reader")
    await api.verbs.webhook_add("told", "https://example.org/")
    granted = await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
    head = (await api.verbs.audit_verify()).head
    for method, path, body, told in (
        ("PUT", "/v1/plans/gold", {"spec": {"max_clients": 5}}, "UPDATE plan"),
        ("PUT", "/v1/plans/tin", {}, "INSERT INTO plan"),
        ("DELETE", "/v1/plans/gold", None, "DELETE FROM plan"),
        ("POST", "/v1/tokens", {"name": "x", "role": "auditor"}, "INSERT INTO token"),
        ("DELETE", "/v1/tokens/old", None, "DELETE FROM token"),
        ("POST", "/v1/webhooks", {"name": "x", "url": "https://example.org/x"}, "INSERT INTO webhook"),
        ("DELETE", "/v1/webhooks/told", None, "DELETE FROM webhook"),
        ("POST", "/v1/webhooks/told/test", None, "-- POST https://example.org/"),
        ("PATCH", "/v1/logins/acme", {"disabled": True, "expires_at": "never"}, "UPDATE login"),
    ):
        reply = await api.ask(method, f"{path}?dry_run=true", body)
        assert reply.status == 200, (path, reply.text)
        assert any(told in one for one in reply.json["sql"]), (path, reply.text)
    nothing = await api.ask("POST", f"/v1/jobs/{granted.granted.job}/resume?dry_run=true")
    assert nothing.json == {"sql": []}
    assert (await api.verbs.audit_verify()).head == head
    assert {one.state for one in await api.verbs.webhook_deliveries("told")} == {"waiting"}


async def test_secrets_are_not_in_what_is_refused(api):
    reply = await api.ask("POST", "/v1/tenants/acme/access", {"login": 5, "password": ["hunter2"]})
    assert reply.status == 422
    assert "hunter2" not in reply.text
    assert {one["at"] for one in reply.json["errors"]} == {"body.login", "body.password"}


async def test_who_asked_is_in_the_log(api):
    await api.client().plan_put(Plan(name="p"))
    assert (await api.verbs.audit_log(kind="plan"))[0].actor == "token:admin"


async def test_the_catalog_away(api, town):
    await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
    name = town.catalog_dsn.rsplit("/", 1)[1]
    with town.pg.connect(database="postgres") as conn:
        conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        reply = await api.ask("GET", "/v1/tenants")
        assert reply.status == 503, reply.text
        assert reply.headers["retry-after"]
        conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (await api.ask("GET", "/v1/tenants")).status == 200


async def test_who_guesses_tokens_is_kept_waiting(serve_api):
    api = await serve_api(api={"failures_per_minute": 3})
    assert [(await api.ask("GET", "/v1/whoami", token="guess")).status for _ in range(3)] == [401] * 3
    reply = await api.ask("GET", "/v1/whoami")
    assert reply.status == 429
    assert 0 < int(reply.headers["retry-after"]) <= 60
    assert reply.json["code"] == "too_many"


async def test_names_that_can_not_be_are_told_as_invalid(api):
    await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
    for method, path, body, told in (
        ("PUT", "/v1/tenants/acme/roles/clerk", {"grants": {"nowhere": ["SELECT"]}}, '"acme.nowhere"'),
        ("POST", "/v1/tenants/acme/access", {"login": "public"}, '"public"'),
        ("POST", "/v1/tenants", {"name": "beta", "schema": "pg_mine"}, '"pg_"'),
    ):
        said = await api.ask(method, path, body)
        assert (said.status, said.json["code"]) == (422, "invalid"), said.text
        assert told in said.json["detail"]
        assert "Failing row" not in said.text


@pytest.mark.parametrize(
    ("database", "spec", "lacking"),
    [
        (None, {"extensions": ["nonsense"]}, 'extension "nonsense"'),
        ("town_lacks", {"extensions": ["plpgsql", "../etc"]}, 'extension "../etc"'),
        (None, {"tablespace": "nowhere"}, 'tablespace "nowhere"'),
        ("town_lacks", {"tablespace": "nowhere"}, 'tablespace "nowhere"'),
        (None, {"tablespace": "pg_global"}, 'tablespace "pg_global"'),
        ("town_lacks", {"tablespace": "pg_global"}, 'tablespace "pg_global"'),
        # of others, who have not let the admin use it
        (None, {"tablespace": "pg_default"}, 'tablespace "pg_default"'),
        ("town_lacks", {"tablespace": "pg_default"}, 'tablespace "pg_default"'),
        (None, {"extensions": ["pg_stat_statements"]}, 'extension "pg_stat_statements"'),
        ("town_lacks", {"extensions": ["pg_stat_statements"]}, 'extension "pg_stat_statements"'),
    ],
)
async def test_what_a_server_does_not_have_is_told_without_its_files(api, database, spec, lacking):
    asked = {"tenant": {"name": "acme", "spec": spec, "database": database}, "access": {"login": "acme"}}
    for path in ("/v1/onboard?dry_run=true", "/v1/onboard"):
        said = await api.ask("POST", path, asked)
        assert (said.status, said.json["code"]) == (422, "invalid")
        assert lacking in said.json["detail"]
        assert said.json["hint"]
        assert "/" not in said.json.get("explanation", "")  # PostgreSQL's has the path of a file
    with pytest.raises(Failure, match=lacking):
        await api.client().tenant_provision("acme")


async def test_settings_that_a_server_does_not_take(api):
    """It was 201, and then nobody could log in."""
    await api.verbs.tenant_create(NewTenant(name="beta"))
    spec = {"settings": {"work_mem": "lots"}}
    onboarding = {"tenant": {"name": "acme", "spec": spec}, "access": {"login": "acme"}}
    for method, path, body in (
        ("POST", "/v1/onboard?dry_run=true", onboarding),
        ("POST", "/v1/onboard", onboarding),
        ("POST", "/v1/tenants", {"name": "acme", "spec": spec}),
        ("PATCH", "/v1/tenants/beta", {"spec": spec}),
        ("PUT", "/v1/plans/gold", {"spec": spec}),
    ):
        said = await api.ask(method, path, body)
        assert (said.status, said.json["code"]) == (422, "invalid"), said.text
        assert said.json["detail"] == 'settings.work_mem: invalid value for parameter "work_mem": "lots"'
        allowed = "an integer from 64 to 2147483647, counted in kB where no unit is given (B, kB, MB, GB, TB)"
        assert allowed in said.json["explanation"]
    assert [one["name"] for one in (await api.ask("GET", "/v1/tenants")).json["items"]] == ["beta"]
