"""`tenant-proxy check` against a real PostgreSQL: what is missing is found, and the SQL shown mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tenant_proxy.auth.scram import build_verifier
from tenant_proxy.catalog import migrate
from tenant_proxy.cli import catalog_check, main
from tenant_proxy.cli.clusters import Finding, examine
from tenant_proxy.config.load import load_text
from tenant_proxy.config.schema import Config
from tenant_proxy.config.transport import to_transport
from tenant_proxy.devel.postgres import Server, free_port
from tests.e2e.auth_peers import make_certificate
from tests.shims.conftest import install

#: two tenants as they should be
SOUND = """
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE ROLE acme_app LOGIN PASSWORD 'acme';
CREATE ROLE beta_app LOGIN PASSWORD 'beta';
CREATE ROLE beta_rw;
GRANT beta_rw TO beta_app;
CREATE SCHEMA acme AUTHORIZATION acme_app;
CREATE SCHEMA beta AUTHORIZATION beta_rw;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(settings={"max_connections": "30"}) as running:
        yield running


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """A database of its own per test; roles are the server's, and dropped."""
    server.psql("CREATE DATABASE app")
    server.psql(SOUND, database="app")
    yield "app"
    server.psql("DROP DATABASE app WITH (FORCE)")
    for role in server.psql("SELECT quote_ident(rolname) FROM pg_roles WHERE oid >= 16384").splitlines():
        server.psql(f"DROP ROLE {role}")


def config(server: Server, **changes: Any) -> Config:
    """The two sound tenants' configuration; `changes` replace sections, or keys of the cluster."""
    cluster = {
        "name": "main",
        "host": "127.0.0.1",
        "port": server.port,
        "database": "app",
        "max_backends": 20,
    }
    whole: dict[str, Any] = {
        "clusters": [cluster | changes.pop("cluster", {})],
        "tenants": [{"name": "acme"}, {"name": "beta", "role": "beta_rw"}],
        "users": [user("acme"), user("beta")],
        # most tests install nothing
        "policy": {"catalogs": "show"},
        "secret": {"value": "random"},
    }
    return load_text(json.dumps(whole | changes)).config


def user(tenant: str, **changes: Any) -> dict[str, Any]:
    return {"name": f"{tenant}_app", "tenant": tenant, "password": {"value": tenant}} | changes


async def found(configuration: Config) -> dict[str, Finding]:
    return {finding.code: finding for finding in await examine(configuration)}


@pytest.fixture
def alter(server: Server, database: str):
    return lambda sql: server.psql(sql, database=database)


# --- how it should be ---------------------------------------------------------------


async def test_all_is_well(server, database):
    assert await found(config(server)) == {}


async def test_nothing_is_left_behind_or_changed(server, database, alter):
    before = alter("SELECT count(*) FROM pg_class")
    await found(config(server))
    assert alter("SELECT count(*) FROM pg_class") == before
    assert alter("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenant-proxy check'") == "0"


@pytest.mark.parametrize(("policy", "severity"), [("auto", "warning"), ("hide", "error"), ("show", None)])
async def test_views_of_the_catalogs(server, database, alter, policy, severity):
    configuration = config(server, policy={"catalogs": policy})
    before = await found(configuration)
    assert [(code, one.severity) for code, one in before.items()] == (
        [("catalogs_missing", severity)] if severity else []
    )
    await install(server.dsn(database=database))
    assert await found(configuration) == {}
    alter("COMMENT ON SCHEMA tp_catalog IS 'tenant_proxy 0 for PostgreSQL 14, 0123'")
    after = await found(configuration)
    assert list(after) == (["catalogs_outdated"] if severity else [])
    for finding in (*before.values(), *after.values()):
        assert "`tenant-proxy catalog install --cluster main`" in finding.message


async def test_spaces_that_can_be_worked_out(server, database):
    configuration = config(server, policy={"catalogs": "auto"}, secret=None)
    assert list(await found(configuration)) == ["catalogs_missing"]
    await install(server.dsn(database=database))
    after = await found(configuration)
    assert [(code, one.severity) for code, one in after.items()] == [("secret_missing", "warning")]


# --- each thing that may be missing, and the SQL that mends it -------------------------

TAKE_ACME = "ALTER SCHEMA acme OWNER TO postgres;"

#: code -> (severity, tenant, what breaks it)
MENDED = {
    "schema_missing": ("error", "acme", "DROP SCHEMA acme"),
    "nologin": ("error", "acme", "ALTER ROLE acme_app NOLOGIN"),
    "expired": ("error", "acme", "ALTER ROLE acme_app VALID UNTIL '2001-01-01'"),
    "no_usage": ("error", "acme", TAKE_ACME + "GRANT CREATE ON SCHEMA acme TO acme_app"),
    "no_create": ("warning", "acme", TAKE_ACME + "GRANT USAGE ON SCHEMA acme TO acme_app"),
    "not_a_member": ("error", "beta", "REVOKE beta_rw FROM beta_app"),
    "no_connect": ("error", "acme", "REVOKE CONNECT ON DATABASE app FROM PUBLIC;"
                                    "GRANT CONNECT ON DATABASE app TO beta_app"),
    "superuser": ("warning", "acme", "ALTER ROLE acme_app SUPERUSER"),
    "bypassrls": ("warning", "beta", "ALTER ROLE beta_rw BYPASSRLS"),
    "createrole": ("warning", "acme", "ALTER ROLE acme_app CREATEROLE"),
    "makes_schemas": ("warning", "acme", "GRANT CREATE ON DATABASE app TO acme_app"),
    "powerful_role": ("warning", "acme", "GRANT pg_read_all_data TO acme_app"),
    "connection_limit": ("warning", "acme", "ALTER ROLE acme_app CONNECTION LIMIT 3"),
    "public_rights": ("warning", "acme", "GRANT USAGE ON SCHEMA acme TO PUBLIC"),
    "foreign_rights": ("warning", "acme", "GRANT USAGE ON SCHEMA acme TO beta_app"),
    "public_create": ("warning", "", "GRANT CREATE ON SCHEMA public TO PUBLIC"),
}  # fmt: skip


@pytest.mark.parametrize("code", MENDED)
async def test_what_is_missing_is_found_and_mended(server, database, alter, code):
    severity, tenant, break_it = MENDED[code]
    alter(break_it)
    findings = await found(config(server))
    assert findings.keys() == {code}
    assert (findings[code].severity, findings[code].cluster, findings[code].tenant) == (
        severity,
        "main",
        tenant,
    )
    alter(findings[code].sql)
    assert await found(config(server)) == {}


async def test_rights_by_way_of_a_group(server, database, alter):
    alter("CREATE ROLE helpers; GRANT USAGE ON SCHEMA acme TO helpers; GRANT helpers TO beta_rw")
    findings = await found(config(server))
    assert findings.keys() == {"foreign_rights"}
    assert 'as a member of "helpers"' in findings["foreign_rights"].message


async def test_a_role_that_is_missing(server, database, alter):
    tenants = [{"name": "acme"}, {"name": "gamma", "role": "gamma_rw"}]
    findings = await examine(config(server, tenants=tenants, users=[user("acme"), user("gamma")]))
    missing = [finding for finding in findings if finding.code == "role_missing"]
    assert {finding.sql for finding in missing} == {
        "CREATE ROLE \"gamma_app\" LOGIN PASSWORD '…';",
        'CREATE ROLE "gamma_rw" NOLOGIN;',
    }
    assert "schema_missing" in {finding.code for finding in findings}


async def test_names_are_quoted(server, database, alter):
    tenants = [{"name": "acme", "schema": 'we"ird'}]
    findings = await found(config(server, tenants=tenants, users=[user("acme")]))
    alter(findings["schema_missing"].sql)
    assert await found(config(server, tenants=tenants, users=[user("acme")])) == {}


async def test_a_wrong_password(server, database):
    findings = await found(config(server, users=[user("acme", password={"value": "hunter2"}), user("beta")]))
    assert findings.keys() == {"login_refused"}
    assert findings["login_refused"].sql == "ALTER ROLE \"acme_app\" PASSWORD '…';"
    assert "hunter2" not in str(findings)


async def test_the_checkers_own_password_is_not_the_proxys(server, database, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "acme")
    without = user("acme", password=None)
    rules = [{"method": "trust"}, {"type": "local", "method": "trust"}]
    findings = await found(config(server, users=[without, user("beta")], auth={"rules": rules}))
    assert findings.keys() == {"login_refused"}


async def test_with_a_verifier_alone_others_look(server, database):
    users = [user("acme", password=None, verifier={"value": str(build_verifier("acme"))}), user("beta")]
    findings = await found(config(server, users=users))
    assert [(f.code, f.severity) for f in findings.values()] == [("not_tried", "info")]


async def test_too_many_backends(server, database, alter):
    findings = await found(config(server, cluster={"max_backends": 28}))
    assert findings.keys() == {"max_connections"}
    assert (
        "takes 27 ordinary connections (max_connections 30, 3 reserved)"
        in findings["max_connections"].message
    )
    assert "max_connections = 31" in findings["max_connections"].sql


async def test_a_database_that_is_not_there(server, database):
    findings = await found(config(server, cluster={"database": "nowhere"}))
    assert findings["database_missing"].sql == 'CREATE DATABASE "nowhere";'


async def test_a_server_that_is_not_there(server):
    findings = await found(config(server, cluster={"port": free_port()}))
    assert findings.keys() == {"unreachable"}
    assert "can't be reached" in findings["unreachable"].message


async def test_a_host_that_is_not_there(server):
    assert (await found(config(server, cluster={"host": "nowhere.invalid"}))).keys() == {"unreachable"}


async def test_tls_that_the_server_does_not_have(server, database):
    findings = await found(config(server, cluster={"tls": {"mode": "require"}}))
    assert findings.keys() == {"tls_failed"}


async def test_tls_with_a_certificate_of_somebody_else(tmp_path):
    files = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other")
    with Server(tls=files) as server:
        server.psql("CREATE DATABASE app")
        server.psql(SOUND, database="app")
        trusting = {"host": "localhost", "tls": {"mode": "verify-full", "ca": str(files.cert)}}
        assert await found(config(server, cluster=trusting)) == {}
        trusting["tls"] = {"mode": "verify-full", "ca": str(other.cert)}
        assert (await found(config(server, cluster=trusting))).keys() == {"tls_failed"}


async def test_auth_query(server, database, alter):
    auth_query = {"enabled": True, "user": "asker", "password": {"value": "asker"}}
    asking = config(server, cluster={"auth_query": auth_query}, users=[])
    assert "auth_query_login" in await found(asking)
    alter("CREATE ROLE asker LOGIN PASSWORD 'asker'")
    findings = await found(asking)
    assert findings.keys() == {"auth_query_denied"}
    alter(findings["auth_query_denied"].sql)
    assert await found(asking) == {}


# --- the command ---------------------------------------------------------------------------


def test_the_commands_table(server, database, alter, tmp_path: Path, capsys):
    alter("DROP SCHEMA acme; GRANT USAGE ON SCHEMA beta TO PUBLIC")
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(to_transport(config(server))))
    file.chmod(0o600)
    assert main(["check", "-c", str(file)]) == 1
    out = capsys.readouterr().out
    assert f"main (127.0.0.1:{server.port}, database app), 2 tenants: 1 error, 1 warning" in out
    assert 'error      main      acme     the schema "acme" does not exist' in out
    assert 'CREATE SCHEMA "acme" AUTHORIZATION "acme_app";' in out
    alter('CREATE SCHEMA "acme" AUTHORIZATION "acme_app"')
    assert main(["check", "-c", str(file), "--json"]) == 0, "a warning alone is no failure"
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"]
    assert [finding["code"] for finding in answer["findings"]] == ["public_rights"]
    assert main(["check", "-c", str(file), "--offline"]) == 0


# --- the login of shared backends -------------------------------------------------------


def shared(server: Server) -> Config:
    return config(
        server,
        cluster={"service": {"user": "service", "password": {"value": "service"}}},
        isolation="shared",
        pool={"mode": "transaction"},
    )


FIT = (
    "CREATE ROLE service LOGIN NOINHERIT PASSWORD 'service';"
    "GRANT acme_app, beta_rw TO service WITH INHERIT FALSE, SET TRUE;"
)


async def test_the_service_login_step_by_step(server, database, alter):
    """Each finding's SQL leads on, until all is well."""
    codes = []
    for _ in range(6):
        findings = await examine(shared(server))
        if not findings:
            break
        codes += [finding.code for finding in findings]
        for finding in findings:
            alter(finding.sql.replace("…", "service"))
    assert codes == ["service_missing", "service_not_a_member", "service_not_a_member"]
    assert await found(shared(server)) == {}


@pytest.mark.parametrize(
    ("mistake", "code"),
    [
        ("ALTER ROLE service SUPERUSER", "service_superuser"),
        ("ALTER ROLE service BYPASSRLS", "service_bypassrls"),
        ("ALTER ROLE service CREATEROLE", "service_createrole"),
        ("ALTER ROLE service NOLOGIN", "service_nologin"),
        ("ALTER ROLE service PASSWORD 'other'", "service_login"),
        ("GRANT acme_app TO service WITH INHERIT TRUE", "service_inherits"),
        ("CREATE TABLE public.own (); ALTER TABLE public.own OWNER TO service", "service_owns"),
    ],
)
async def test_a_service_login_that_is_not_fit(server, database, alter, mistake, code):
    alter(FIT)
    alter(mistake)
    findings = await found(shared(server))
    assert code in findings
    alter(findings[code].sql.replace("…", "service"))
    assert code not in await found(shared(server))


async def test_an_extension_that_takes_all_tenants_off_shared_backends(server, database, alter):
    if alter("SELECT count(*) FROM pg_available_extensions WHERE name IN ('amcheck', 'tablefunc')") != "2":
        pytest.skip("this PostgreSQL is without its contrib extensions")
    alter(f"{FIT} CREATE EXTENSION citext SCHEMA public")
    assert await found(shared(server)) == {}
    alter("CREATE EXTENSION amcheck SCHEMA public; CREATE EXTENSION tablefunc SCHEMA public")
    findings = await examine(shared(server))
    assert [(one.severity, one.tenant, one.code) for one in findings] == 2 * [
        ("warning", "", "no_shared_backends")
    ]
    for one in findings:
        assert "in language c (extension " in one.message
        assert 'each of 2 tenants (acme …), which may read schema "public", gets no shared' in one.message
    assert await found(config(server)) == {}  # with backends of their own it changes nothing
    built = config(
        server,
        cluster={
            "service": {"user": "service", "password": {"value": "service"}},
            "admin": {"user": server.superuser, "password": {"value": server.password}},
        },
        isolation="shared",
        pool={"mode": "transaction"},
        tenants=[],
        users=[],
        catalog={"dsn": {"value": server.dsn(database="app")}},
    )
    (first, _) = await examine(built)
    assert "so every tenant of the catalog, which may read" in first.message
    for one in findings:
        alter(one.sql)
    assert await found(shared(server)) == {}


async def test_a_function_that_takes_all_tenants_off_shared_backends(server, database, alter):
    alter(
        f"{FIT} CREATE FUNCTION public.run(t text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE t; END';"
        "CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    findings = await examine(shared(server))
    assert [one.code for one in findings] == ["no_shared_backends"]
    assert "function public.run is not proven, so" in findings[0].message
    alter("ALTER FUNCTION public.run SET SCHEMA acme")
    assert await found(shared(server)) == {}


def of_the_catalog(server: Server, dsn: str, **changes: Any) -> Config:
    """Without tenants of the file: no login is known here, and the admin looks."""
    admin = {"user": server.superuser, "password": {"value": server.password}}
    return config(
        server, cluster={"admin": admin}, tenants=[], users=[], catalog={"dsn": {"value": dsn}}, **changes
    )


async def test_a_catalog_of_another_version(server, database):
    """What an upgrade needs: both commands are told, and nothing once they have been run."""
    server.psql("CREATE DATABASE town")
    dsn = server.dsn(database="town")
    policy = {"catalogs": "auto"}
    try:
        built = of_the_catalog(server, dsn, policy=policy)
        findings = {one.code: one for one in [*await catalog_check.examine(built), *await examine(built)]}
        assert set(findings) == {"catalog_outdated", "catalogs_missing"}
        assert "tenant-proxy db init" in findings["catalog_outdated"].message
        assert "tenant-proxy catalog install --cluster main" in findings["catalogs_missing"].message

        connection = await asyncpg.connect(dsn)
        await migrate.migrate(connection)
        assert await catalog_check.examine(built) == []
        await connection.execute("DELETE FROM tenant_proxy.migration WHERE version > 1")
        (finding,) = await catalog_check.examine(built)
        assert (finding.severity, "tenant-proxy db migrate" in finding.message) == ("error", True)
        await connection.close()
    finally:
        server.psql("DROP DATABASE town WITH (FORCE)")
    (finding,) = await catalog_check.examine(built)
    assert finding.code == "catalog_unreachable"


def test_the_catalog_is_shown(server, database, tmp_path, capsys):
    server.psql("CREATE DATABASE town")
    try:
        file = tmp_path / "tenant_proxy.json"
        built = to_transport(of_the_catalog(server, server.dsn(database="town")))
        file.write_text(json.dumps(built))
        assert main(["check", "-c", str(file)]) == 1
        shown = capsys.readouterr().out
    finally:
        server.psql("DROP DATABASE town WITH (FORCE)")
    assert f"catalog (127.0.0.1:{server.port}, database town): 1 error" in shown
    assert server.password not in shown
