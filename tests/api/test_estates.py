"""Archives and migrations by the API: what is sent and fetched, and that names lead nowhere else."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.lifecycle.records import NewAccess, NewTenant

WORDS = "correct horse"


async def test_a_tenant_goes_and_comes_back(api, town, tmp_path):
    """Exported here, erased, imported under another name; nothing stays with the API, all is logged."""
    client = api.client()
    onboarded = await client.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    with town.connect("alice", onboarded.granted.password) as conn:
        conn.execute("CREATE TABLE orders (id int); INSERT INTO orders SELECT generate_series(1, 1000)")
    told: list[str] = []
    client.watcher = lambda what, done, total: told.append(what)
    path = tmp_path / "acme.tar"
    job = await client.tenant_export("acme", str(path), pass_phrase=WORDS)
    assert job.result is not None
    assert (job.result["tables"], job.result["rows"], job.result["path"]) == (1, 1000, str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await api.verbs.archive_show(str(path), pass_phrase=WORDS)).tenant == "acme"
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []

    await client.tenant_delete("acme")
    await client.tenant_erase("acme", at_once=True)
    with pytest.raises(Failure, match="pass phrase"):
        await client.tenant_import(str(path), "beta", pass_phrase="other")
    job = await client.tenant_import(str(path), "beta", labels={"from": "acme"}, pass_phrase=WORDS)
    assert job.tenant_name == "beta"
    with town.connect() as conn:
        assert conn.execute("SELECT count(*), sum(id) FROM beta.orders").fetchone() == (1000, 500500)
    assert (await client.tenant_get("beta")).labels == {"from": "acme"}
    assert "download" in told
    assert "upload" in told
    assert (await api.ask("GET", "/v1/archives")).json == {"items": []}
    done = [one.action for one in await client.audit_log(kind="archive")]
    assert set(done) == {"archive.read", "archive.put", "archive.delete"}
    assert WORDS not in str([one.to_json() for one in await client.job_list()])


async def test_names_lead_nowhere_else(api, tmp_path):
    await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
    (tmp_path / "secret").write_text("x")
    for name in ("..%2Fsecret", "%2E%2E%2Fsecret", ".hidden", "a%00", "..", "%2Fetc%2Fpasswd"):
        for method in ("GET", "PUT", "DELETE"):
            reply = await api.ask(method, f"/v1/archives/{name}", raw=b"x" if method == "PUT" else None)
            assert reply.status in (404, 405, 422), f"{method} {name}: {reply.status} {reply.text}"
    for name in ("../secret", "/tmp/x", "a/b", ".a", ""):
        body = {"archive": name}
        assert (await api.ask("POST", "/v1/tenants/acme/export", body)).status == 422
        assert (await api.ask("POST", "/v1/imports", body)).status == 422
    for name in ("../V001__a.sql", "a.txt", "/V001__a.sql", ".V001__a.sql"):
        for path in ("/v1/migrations", "/v1/migrations/status"):
            assert (await api.ask("POST", path, {"files": {name: "SELECT 1"}})).status == 422
    assert (tmp_path / "secret").read_text() == "x"
    assert not [one for one in (tmp_path / "kept").rglob("*") if one.is_file()]


async def test_an_archive_that_is_there_stays_as_it_is(api):
    await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
    assert (await api.ask("PUT", "/v1/archives/a.tar", raw=b"first")).status == 201
    assert (await api.ask("PUT", "/v1/archives/a.tar", raw=b"other")).status == 409
    assert (await api.ask("POST", "/v1/tenants/acme/export", {"archive": "a.tar"})).status == 409
    reply = await api.ask("GET", "/v1/archives/a.tar")
    assert (reply.text, reply.headers["content-type"]) == ("first", "application/x-tar")
    reply = await api.ask("POST", "/v1/imports", {"archive": "a.tar"}, Prefer="wait=30")
    assert (reply.status, reply.json["code"]) == (422, "invalid")
    assert (await api.ask("DELETE", "/v1/archives/a.tar")).status == 204
    assert (await api.ask("GET", "/v1/archives/a.tar")).status == 404


async def test_what_is_too_long_or_breaks_off_leaves_nothing(serve_api, tmp_path):
    api = await serve_api(lifecycle={"directory": str(tmp_path / "kept"), "archive_bytes": 1000})
    source = tmp_path / "long.tar"
    source.write_bytes(b"x" * 3_000_000)
    with pytest.raises(Failure, match="more than 1000 bytes"):
        await api.client().tenant_import(str(source))
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    connection.putrequest("PUT", "/v1/archives/half.tar")
    for name, value in (("Authorization", f"Bearer {api.tokens['admin']}"), ("Content-Length", "900")):
        connection.putheader(name, value)
    connection.endheaders(b"x" * 10)
    connection.close()
    assert (await api.ask("GET", "/v1/archives")).json == {"items": []}
    with pytest.raises(Failure, match="No such file"):
        await api.client().tenant_import(str(tmp_path / "none.tar"))


async def test_where_nothing_is_kept(serve_api, tmp_path):
    api = await serve_api(lifecycle={})
    await api.verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
    with pytest.raises(Failure, match="keeps no archives") as failed:
        await api.client().tenant_export("acme", str(tmp_path / "a.tar"))
    assert "lifecycle" in failed.value.hint
    assert (await api.ask("GET", "/v1/archives")).json == {"items": []}


async def test_migrations(api, town, tmp_path: Path):
    client = api.client()
    for name in ("acme", "beta"):
        await client.tenant_onboard(NewTenant(name=name), NewAccess(login=name))
    directory = tmp_path / "sql"
    directory.mkdir()
    (directory / "V001__notes.up.sql").write_text("CREATE TABLE note (id int)")
    (directory / "V001__notes.down.sql").write_text("DROP TABLE note")
    standings, versions = await client.migrate_status(str(directory))
    assert [(one.version, one.name) for one in versions] == [(1, "notes")]
    assert {one.tenant: one.pending for one in standings} == {"acme": (1,), "beta": (1,)}
    job = await client.migrate("up", directory=str(directory), tenants=["acme"])
    assert job.result is not None
    assert job.result["done"] == 1
    await client.migrate("up", directory=str(directory))
    standings, _ = await client.migrate_status(str(directory), ["beta"])
    assert [(one.tenant, one.version, one.pending) for one in standings] == [("beta", 1, ())]
    (directory / "V002__wrong.up.sql").write_text("CREATE TABLE note (id int)")
    with pytest.raises(Failure, match=r"tenants? failed"):
        await client.migrate("up", directory=str(directory))
    (directory / "V002__wrong.up.sql").unlink()
    with pytest.raises(Failure, match="`to`"):
        await client.migrate("down", directory=str(directory))
    await client.migrate("down", directory=str(directory), to=0)
    with town.connect() as conn:
        assert conn.execute("SELECT count(*) FROM pg_class WHERE relname = 'note'").fetchone() == (0,)
    with pytest.raises(Failure, match="not by the API"):
        await client.migrate("exec", command=["true"])
    with pytest.raises(Failure, match="no directory"):
        await client.migrate("up", directory=str(tmp_path / "none"))
