"""The client is a Door as the verbs are, and the command line works by it."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys

import pytest

from tenant_proxy.api.client import Client
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Level, Plan, Spec
from tenant_proxy.catalog.states import State
from tenant_proxy.cli import main
from tenant_proxy.lifecycle.door import Door
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.verbs import Verbs
from tests.fix_lifecycle import each_major

#: of a file where the command runs
NOT_BY_THE_API = {"archive_show"}


def test_it_has_the_methods_of_the_verbs():
    names = {name for name, _ in inspect.getmembers(Door, inspect.isfunction) if not name.startswith("_")}
    for name in names:
        for other in (Client, Verbs):
            wanted = list(inspect.signature(getattr(Door, name)).parameters.values())
            found = inspect.signature(getattr(other, name)).parameters
            for one in wanted:
                assert found[one.name].default == one.default or one.name == "self", f"{other} {name} {one}"
    missing = {
        name
        for name, _ in inspect.getmembers(Verbs, inspect.iscoroutinefunction)
        if not name.startswith("_") and name not in names
    }
    assert missing == NOT_BY_THE_API


def test_it_takes_little_to_begin():
    """Commands by the API have no use for what works on servers, and takes longest to import."""
    script = "import sys, tenant_proxy.api.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    heavy = {"asyncpg", "pglast", "cryptography", "fastapi", "tenant_proxy.guard"}
    assert heavy & set(done.stdout.split()) == set()


async def test_a_life_by_the_client(api, town):
    client = api.client()
    await client.plan_put(Plan(name="standard", spec=Spec(max_clients=5)))
    onboarded = await client.tenant_onboard(
        NewTenant(name="acme", plan="standard", labels={"a": "b"}), NewAccess(login="alice")
    )
    password = onboarded.granted.password
    with town.connect("alice", password) as conn:
        conn.execute("CREATE TABLE orders (id int)")
    assert (await client.tenant_show("acme")).effective["max_clients"].value == 5
    found = await client.tenant_list(states=[State.ACTIVE], labels={"a": "b"}, prefix="ac", limit=5)
    assert [one.name for one in found] == ["acme"]
    assert (await client.tenant_set("acme", spec={"max_clients": 3})).spec.max_clients == 3
    assert (await client.tenant_provision("acme")).state is State.ACTIVE
    granted = await client.access_grant("acme", NewAccess(login="bob", level=Level.READONLY))
    assert granted.access.level is Level.READONLY
    assert len(await client.access_list(tenant="acme")) == 2
    assert (await client.access_rotate("bob")).retires_at is not None
    assert (await client.login_set("bob", max_clients=3)).max_clients == 3
    await client.role_put("acme", "clerk", {"orders": ["select"]})
    assert [one.name for one in await client.role_list("acme")] == ["clerk"]
    await client.role_delete("acme", "clerk")
    await client.access_revoke("acme", "bob")
    assert (await client.tenant_suspend("acme", "unpaid")).reason == "unpaid"
    await client.tenant_resume("acme")
    await client.tenant_rename("acme", "anvil")
    await client.tenant_delete("anvil", grace_s=60.0)
    assert (await client.tenant_restore("anvil")).state is State.SUSPENDED
    job = (await client.job_list(limit=1))[0]
    assert await client.job_show(job.id) == job
    assert await client.job_resume(job.id) == job
    assert (await client.audit_verify()).ok
    made = await client.token_create("ci", "reader")
    assert [one.name for one in await client.token_list() if one.id == made.token.id] == ["ci"]
    await client.token_revoke("ci")
    await client.close()


async def test_failures_come_as_they_are(api, town):
    client = api.client()
    with pytest.raises(Failure, match='no tenant "acme"') as missing:
        await client.tenant_get("acme")
    assert missing.value.code == "not_found"
    await client.tenant_create(NewTenant(name="acme"))
    with pytest.raises(Failure) as conflict:
        await client.tenant_activate("acme")
    with pytest.raises(Failure) as same:
        await api.verbs.tenant_activate("acme")
    assert conflict.value.to_json() == same.value.to_json()
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA acme")
    with pytest.raises(Failure) as failed:
        await client.tenant_provision("acme")
    assert failed.value.job is not None
    assert "adopt" in failed.value.hint
    with pytest.raises(Failure) as forbidden:
        await api.client("reader").tenant_create(NewTenant(name="beta"))
    assert forbidden.value.code == "forbidden"
    with pytest.raises(Failure, match="can't be reached"):
        await Client("http://127.0.0.1:1", "x").plan_list()
    api.tokens["wrong"] = "x"
    with pytest.raises(Failure, match="token"):
        await api.client("wrong").plan_list()
    with pytest.raises(Failure, match="address"):
        Client("ftp://x", "x")


@each_major
async def test_the_command_line_by_url(api, town, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("TENANT_PROXY_CONFIG", raising=False)
    monkeypatch.setenv("TENANT_PROXY_URL", api.url)
    monkeypatch.setenv("TENANT_PROXY_TOKEN", api.tokens["admin"])

    async def run(command: str, status: int = 0) -> str:
        found = await asyncio.to_thread(main, command.split())
        said = capsys.readouterr()
        assert found == status, said.out + said.err
        # the server here writes its log to the same place
        printed = "".join(line for line in said.out.splitlines(True) if "[info" not in line)
        return printed + said.err if status else printed

    assert "CREATE SCHEMA" in await run("tenant onboard acme --dry-run")
    assert (await run("tenant onboard acme")).startswith("postgresql://acme:")
    assert "acme" in await run("tenant list")
    assert json.loads(await run("tenant show acme --json"))["tenant"]["state"] == "active"
    assert "the log is whole" in await run("audit verify")
    assert "done" in await run("job list")
    for verb, told in {
        "clone acme copy": "pg_dump",
        "suspend acme": "UPDATE tenant",
        "delete acme": "UPDATE tenant",
        "set acme --label a=b": "UPDATE tenant",
    }.items():
        assert told in await run(f"tenant {verb} --dry-run")
    assert [tenant.name for tenant in await api.verbs.tenant_list(states=[State.ACTIVE])] == ["acme"]
    assert "tenant copy is ready" in await run("tenant clone acme copy")
    assert "nothing was kept" in await run("tenant move copy --confirm --yes")
    await run("tenant delete copy --yes")
    assert "none left" in await run("tenant erase copy --now --yes")
    assert json.loads(await run("tenant erasure copy"))["record"]["tenant"] == "copy"
    assert "nothing was found" in await run("tenant scan acme --login acme")
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA legacy; CREATE TABLE legacy.t (id int); GRANT ALL ON legacy.t TO PUBLIC")
    await run("tenant create old --schema legacy")
    assert "PUBLIC" in await run("tenant scan old", 1)
    archive = tmp_path / "acme.tar"
    assert "tables with" in await run(f"tenant export acme {archive}")
    assert "tenant again is ready" in await run(f"tenant import {archive} again")
    (tmp_path / "V001__notes.up.sql").write_text("CREATE TABLE note (id int)")
    assert "acme" in await run(f"migrate status -d {tmp_path}", 1)
    assert "2 tenants done" in await run(f"migrate up -d {tmp_path}")
    await run(f"migrate status -d {tmp_path}")
    assert "has no .down.sql" in await run(f"migrate down -d {tmp_path} --to 0 --yes", 1)
    assert "not by the API" in await run("migrate exec -- true", 1)
    assert "nothing was used" in await run("usage show")
    assert await run("usage export --format stripe") == ""
    assert (await run("webhook add audit https://example.org/")).startswith("whsec_")
    assert "example.org" in await run("webhook list")
    assert "nothing yet" not in await run("webhook deliveries audit")
    await run("webhook remove audit --yes")
    made = (await run("token create ci --role reader")).strip()
    assert made.startswith("tpx_")
    assert "never" in await run("token list")
    monkeypatch.setenv("TENANT_PROXY_TOKEN", made)
    assert "may not" in await run("tenant suspend acme", 1)
    (tmp_path / "t.yaml").write_text("plans: [{name: big}]\ntenants: [{name: beta, plan: big}]\n")
    monkeypatch.setenv("TENANT_PROXY_TOKEN", api.tokens["admin"])
    await run(f"apply -f {tmp_path / 't.yaml'} --yes")
    assert "beta" in await run("tenant list --plan big")
    assert "good no longer" in await run("token revoke ci --yes")
    monkeypatch.delenv("TENANT_PROXY_TOKEN")
    assert "there is no token" in await run("tenant list", 2)
    monkeypatch.delenv("TENANT_PROXY_URL")
    assert "--url" in await run("tenant list", 2)
