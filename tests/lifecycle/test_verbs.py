"""The verbs, on a real cluster whose admin is no superuser."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import errors

from tenant_proxy.catalog import audit, keeping
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Level, Plan, Spec
from tenant_proxy.catalog.states import State
from tenant_proxy.lifecycle import context
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.upkeep import next_time, upkeep
from tenant_proxy.lifecycle.verbs import Verbs


async def onboard(verbs: Verbs, name: str, login: str | None = None, **access) -> str:
    """The password."""
    done = await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=login or name, **access))
    assert done.granted.password is not None
    return done.granted.password


async def test_from_nothing_to_a_login_that_works(verbs, town):
    await verbs.plan_put(Plan(name="standard", spec=Spec(max_clients=5)))
    onboarded = await verbs.tenant_onboard(
        NewTenant(name="acme", plan="standard", labels={"team": "a"}), NewAccess(login="alice")
    )
    assert onboarded.tenant.state is State.ACTIVE
    password = onboarded.granted.password
    assert onboarded.granted.dsn == f"postgresql://alice:{password}@127.0.0.1:6432/acme"
    with town.connect("alice", password) as conn:
        conn.execute("CREATE TABLE notes (id int)")
        conn.execute("INSERT INTO notes VALUES (1)")
        owner, schema = conn.execute(
            "SELECT tableowner, schemaname FROM pg_tables WHERE tablename = 'notes'"
        ).fetchone()
    assert (owner, schema) == ("acme_owner", "acme")
    # again: nothing changes, and the password is not known any more
    entries = len(await verbs.audit_log(limit=1000))
    again = await verbs.tenant_onboard(
        NewTenant(name="acme", plan="standard", labels={"team": "a"}), NewAccess(login="alice")
    )
    assert again.granted.password is None
    assert again.granted.dsn == "postgresql://alice@127.0.0.1:6432/acme"
    assert len(await verbs.audit_log(limit=1000)) == entries
    shown = await verbs.tenant_show("acme")
    assert shown.effective["max_clients"].source == "plan"
    assert [one.login for one in shown.access] == ["alice"]
    assert (await verbs.audit_verify()).ok
    assert password not in str([entry.to_json() for entry in await verbs.audit_log(limit=1000)])


async def test_what_differs_is_told(verbs):
    await verbs.tenant_create(NewTenant(name="acme"))
    assert (await verbs.tenant_create(NewTenant(name="acme"))).state is State.DRAFT
    with pytest.raises(Failure, match="differs: labels"):
        await verbs.tenant_create(NewTenant(name="acme", labels={"a": "b"}))
    with pytest.raises(Failure, match='tenant "acme" is draft') as failed:
        await verbs.tenant_activate("acme")
    assert "tenant provision acme" in failed.value.hint
    with pytest.raises(Failure, match='no plan "gold"'):
        await verbs.tenant_create(NewTenant(name="beta", plan="gold"))
    with pytest.raises(Failure, match="PostgreSQL's own"):
        await verbs.tenant_create(NewTenant(name="pg_x"))


async def test_settings_are_merged_and_checked(verbs):
    await verbs.tenant_create(
        NewTenant(name="acme", spec=Spec(pool={"max": 5}, settings={"work_mem": "4MB"}))
    )
    tenant = await verbs.tenant_set(
        "acme", spec={"pool": {"min": 2}, "settings": {"work_mem": None}, "max_clients": 3}
    )
    assert tenant.spec.given() == {"pool": {"max": 5, "min": 2}, "max_clients": 3}
    with pytest.raises(Failure, match="changed meanwhile"):
        await verbs.tenant_set("acme", labels={"a": "b"}, version=1)
    for spec, told in (
        ({"settings": {"session_authorization": "x"}}, "session_authorization"),
        ({"pool": {"max": -1}}, "pool"),
        ({"pool": {"nonsense": 1}}, "pool"),
        ({"services": ["nobody"]}, 'no service "nobody"'),
    ):
        with pytest.raises(Failure, match=told):
            await verbs.tenant_set("acme", spec=spec)
    assert (await verbs.tenant_get("acme")).version == 2


async def test_suspend_resume_delete_restore(verbs):
    await onboard(verbs, "acme")
    suspended = await verbs.tenant_suspend("acme", "unpaid")
    assert (suspended.state, suspended.reason) == (State.SUSPENDED, "unpaid")
    assert (await verbs.tenant_suspend("acme")).version == suspended.version
    async with verbs.context.store.read() as connection:
        assert await connection.fetchval("SELECT refusal FROM served_tenants") == "unpaid"
    assert (await verbs.tenant_resume("acme")).reason == ""
    deleted = await verbs.tenant_delete("acme", "left", grace_s=3600)
    assert deleted.erase_after > datetime.now(UTC) + timedelta(minutes=50)
    assert (await verbs.tenant_delete("acme")).version == deleted.version
    with pytest.raises(Failure, match="is deleting"):
        await verbs.tenant_activate("acme")
    assert (await verbs.tenant_restore("acme")).state is State.SUSPENDED
    assert (await verbs.tenant_resume("acme")).state is State.ACTIVE


async def test_a_draft_is_gone_at_once_and_its_name_is_free(verbs):
    first = await verbs.tenant_create(NewTenant(name="acme"))
    assert (await verbs.tenant_delete("acme")).state is State.ERASED
    second = await verbs.tenant_create(NewTenant(name="acme"))
    assert second.id != first.id


async def test_a_renamed_tenant_keeps_its_objects_and_its_space(verbs):
    await onboard(verbs, "acme")
    renamed = await verbs.tenant_rename("acme", "anvil")
    assert (renamed.name, renamed.schema_, renamed.owner_role) == ("anvil", "acme", "acme_owner")
    assert renamed.space is not None
    assert (await verbs.tenant_rename("acme", "anvil")).version == renamed.version
    async with verbs.context.store.read() as connection:
        row = await connection.fetchrow("SELECT tenants, roles FROM served_logins")
    assert (row["tenants"], row["roles"]) == (["anvil"], {"anvil": "acme_owner"})
    with pytest.raises(Failure, match="lives in this schema"):
        await verbs.tenant_create(NewTenant(name="acme"))
    again = await verbs.tenant_create(NewTenant(name="acme", schema_="acme2"))
    assert again.owner_role == "acme2_owner"


async def test_what_is_there_already_is_not_taken_over(verbs, town):
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA acme; CREATE TABLE acme.treasure ()")
    with pytest.raises(Failure, match='is a schema "acme"') as failed:
        await onboard(verbs, "acme")
    assert "adopt" in failed.value.hint
    tenant = await verbs.tenant_get("acme")
    assert (tenant.state, tenant.failed_from) == (State.FAILED, State.PROVISIONING)
    with town.connect() as conn:
        assert conn.execute("SELECT to_regclass('acme.treasure')").fetchone() == ("acme.treasure",)
        assert conn.execute("SELECT count(*) FROM pg_roles WHERE rolname ~ '^acme_o'").fetchone() == (0,)
        conn.execute("DROP SCHEMA acme CASCADE")
    await onboard(verbs, "acme")
    with pytest.raises(Failure, match='is a role "beta_app"'):
        await verbs.access_grant("acme", NewAccess(login="beta_app"))
    assert [one.login for one in await verbs.access_list(tenant="acme")] == ["acme"]
    with pytest.raises(Failure, match="no login"):
        await verbs.login_get("beta_app")


# --- who may what


async def test_levels_hold_by_themselves(verbs, town):
    password = await onboard(verbs, "acme")
    with town.connect("acme", password) as conn:
        conn.execute("CREATE TABLE before (id int)")
    reader = (await verbs.access_grant("acme", NewAccess(login="reader", level=Level.READONLY))).password
    writer = (await verbs.access_grant("acme", NewAccess(login="writer", level=Level.READWRITE))).password
    second = (await verbs.access_grant("acme", NewAccess(login="second"))).password
    with town.connect("acme", password) as conn:
        conn.execute("CREATE TABLE after (id serial)")
        conn.execute("CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1")
    for table in ("before", "after"):
        with town.connect("writer", writer) as conn:
            conn.execute(f"INSERT INTO {table} VALUES (1)")
            conn.execute(f"UPDATE {table} SET id = one()")
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(f"ALTER TABLE {table} ADD b int")
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute("CREATE TABLE more (id int)")
        with town.connect("reader", reader) as conn:
            assert conn.execute(f"SELECT one(), id FROM {table}").fetchall() == [(1, 1)]
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(f"INSERT INTO {table} VALUES (1)")
        with town.connect("second", second) as conn:  # what one owner made, another may change
            conn.execute(f"ALTER TABLE {table} ADD b int")


async def test_a_login_of_several_tenants_reaches_one_at_a_time(verbs, town):
    password = await onboard(verbs, "acme", "alice")
    await onboard(verbs, "beta")
    granted = await verbs.access_grant("beta", NewAccess(login="alice", level=Level.READONLY))
    assert granted.password is None
    with town.connect("alice", password) as conn:
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute("CREATE TABLE acme.t ()")
        conn.execute("SET ROLE acme_owner")
        conn.execute("CREATE TABLE acme.t (id int)")
        conn.execute("SET ROLE beta_readonly")
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM acme.t")
    async with verbs.context.store.read() as connection:
        row = await connection.fetchrow("SELECT * FROM served_logins WHERE name = 'alice'")
    assert row["tenants"] == ["acme", "beta"]
    assert row["roles"] == {"acme": "acme_owner", "beta": "beta_readonly"}
    # back to one: it is that tenant as soon as it is logged in
    await verbs.access_revoke("acme", "alice")
    await verbs.access_revoke("acme", "alice")
    with town.connect("alice", password) as conn:
        assert conn.execute("SELECT current_user, current_schema").fetchone() == ("beta_readonly", "beta")
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute("SET ROLE acme_owner")


async def test_a_level_that_changes(verbs, town):
    password = await onboard(verbs, "acme", "alice")
    with town.connect("alice", password) as conn:
        conn.execute("CREATE TABLE t (id int)")
        await verbs.access_grant("acme", NewAccess(login="alice", level=Level.READONLY))
        with pytest.raises(psycopg.OperationalError):  # it was the owner, and may not go on as that
            conn.execute("SELECT 1")
    with town.connect("alice", password) as conn:
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute("SET ROLE acme_owner")


async def test_revoked_it_is_gone(verbs, town):
    password = await onboard(verbs, "acme", "alice")
    with town.connect("alice", password) as conn:
        conn.execute("CREATE TABLE t (id int)")
        conn.execute("CREATE TEMP TABLE mine (id int)")
        await verbs.access_revoke("acme", "alice")
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
    assert "alice" not in town.roles()
    with pytest.raises(Failure, match="no login"):
        await verbs.login_get("alice")
    await onboard(verbs, "acme", "alice")


async def test_passwords_rotate_with_overlap(verbs, town):
    old = await onboard(verbs, "acme", "alice")
    rotated = await verbs.access_rotate("alice", overlap_s=3600)
    assert rotated.retires_at > datetime.now(UTC) + timedelta(minutes=50)
    async with verbs.context.store.read() as connection:
        (verifiers,) = await connection.fetchrow("SELECT verifiers FROM served_logins")
    assert [one["server_user"] for one in verifiers] == ["alice~2", "alice"]
    assert len({one["verifier"].split("$")[1] for one in verifiers}) == 1
    with town.connect("alice", old) as conn:
        conn.execute("CREATE TABLE t (id int)")
    with town.connect("alice~2", rotated.password) as conn:
        conn.execute("ALTER TABLE t ADD b int")
    with pytest.raises(Failure, match="being rotated already"):
        await verbs.access_rotate("alice")
    await verbs.access_rotate("alice", end=True)
    with pytest.raises(psycopg.OperationalError):
        town.connect("alice", old)
    assert "alice" not in town.roles()
    back = await verbs.access_rotate("alice", password="chosen", overlap_s=0)
    assert back.password == "chosen"
    with town.connect("alice", "chosen") as conn:
        conn.execute("SELECT * FROM t")
    assert await upkeep(verbs.context) == ["the former password of alice was retired"]
    assert "alice~2" not in town.roles()


async def test_what_has_expired_is_taken_away(verbs, town):
    soon = datetime.now(UTC) + timedelta(seconds=1)
    await onboard(verbs, "acme", "alice", expires_at=soon)
    assert await next_time(verbs.context) == soon
    with town.connect() as conn:
        (until,) = conn.execute("SELECT rolvaliduntil FROM pg_roles WHERE rolname = 'alice'").fetchone()
        assert until == soon
    assert await upkeep(verbs.context) == []
    async with verbs.context.store.change("anna") as change:
        await change.connection.execute("UPDATE access SET expires_at = now()")
        assert await change.connection.fetchval("SELECT count(*) FROM served_logins") == 0
    assert await upkeep(verbs.context) == ["access of alice on acme expired"]
    assert "alice" not in town.roles()
    assert await next_time(verbs.context) is None


async def test_custom_roles(verbs, town):
    password = await onboard(verbs, "acme")
    with town.connect("acme", password) as conn:
        conn.execute("CREATE TABLE orders (id int); CREATE TABLE secrets (id int)")
    with pytest.raises(Failure, match="TRUNCATE"):
        await verbs.role_put("acme", "clerk", {"orders": ["TRUNCATE"]})
    await verbs.role_put("acme", "clerk", {"orders": ["select"]})
    clerk = (await verbs.access_grant("acme", NewAccess(login="carl", role="clerk"))).password
    await verbs.role_put("acme", "clerk", {"orders": ["SELECT", "INSERT"]})
    with town.connect("carl", clerk) as conn:
        conn.execute("INSERT INTO orders VALUES (1)")
        assert conn.execute("SELECT current_user").fetchone() == ("acme_clerk",)
        for statement in ("SELECT * FROM secrets", "UPDATE orders SET id = 2"):
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(statement)
    with pytest.raises(Failure, match="still granted"):
        await verbs.role_delete("acme", "clerk")
    with pytest.raises(Failure, match="does not exist"):
        await verbs.role_put("acme", "other", {"nowhere": ["SELECT"]})
    assert [role.name for role in await verbs.role_list("acme")] == ["clerk"]
    await verbs.access_revoke("acme", "carl")
    await verbs.role_delete("acme", "clerk")
    assert "acme_clerk" not in town.roles()


# --- databases, placement, rehearsal


async def test_a_database_of_its_own(verbs, town):
    await verbs.plan_put(Plan(name="big", spec=Spec(own_database=True)))
    done = await verbs.tenant_onboard(
        NewTenant(name="acme", plan="big", database="town_own"), NewAccess(login="alice")
    )
    other = await onboard(verbs, "beta")
    with town.connect("alice", done.granted.password, "town_own") as conn:
        conn.execute("CREATE TABLE t (id int)")
        assert conn.execute("SELECT current_user, current_schema").fetchone() == ("acme_owner", "acme")
    with pytest.raises(psycopg.OperationalError, match="CONNECT"):
        town.connect("beta", other, "town_own")
    await verbs.access_revoke("acme", "alice")
    assert "alice" not in town.roles()


async def test_a_tenant_stays_in_its_region(new_context, town):
    cluster = town.config()["clusters"][0]
    clusters = [
        {**cluster, "labels": {"region": "us"}},
        {**cluster, "name": "eu", "labels": {"region": "eu"}},
    ]
    verbs = Verbs(await new_context(clusters=clusters))
    tenant = await verbs.tenant_create(NewTenant(name="acme", labels={"region": "eu"}))
    assert tenant.cluster == "eu"
    with pytest.raises(Failure, match="must stay in region") as failed:
        await verbs.tenant_create(NewTenant(name="beta", labels={"region": "eu"}, cluster="main"))
    assert failed.value.code == "forbidden"
    with pytest.raises(Failure, match="must stay in region"):
        await verbs.tenant_set("acme", labels={"region": "us"})
    with pytest.raises(Failure, match="no cluster"):
        await verbs.tenant_create(NewTenant(name="beta", labels={"region": "mars"}))
    # without a region: where the fewest are
    assert (await verbs.tenant_create(NewTenant(name="gamma"))).cluster == "main"


async def test_tenants_of_the_file_are_not_to_be_had(new_context):
    users = [{"name": "alice", "tenant": "acme", "password": {"value": "x"}}]
    verbs = Verbs(await new_context(tenants=[{"name": "acme"}], users=users))
    with pytest.raises(Failure, match="in the configuration file"):
        await verbs.tenant_create(NewTenant(name="acme"))
    with pytest.raises(Failure, match="in the configuration file"):
        await verbs.tenant_onboard(NewTenant(name="beta"), NewAccess(login="alice"))


async def test_a_rehearsal_changes_nothing_and_shows_all(verbs, town):
    before = town.roles(), town.schemas()
    async with verbs.context.rehearsing() as context:
        await onboard(Verbs(context), "acme", "alice")
        sql = "\n".join(one for one in context.rehearsal if one not in ("BEGIN;", "COMMIT;"))
    assert (town.roles(), town.schemas()) == before
    assert await verbs.tenant_list() == []
    assert await verbs.job_list() == []
    with town.connect() as conn, conn.transaction(force_rollback=True):
        conn.execute(sql)  # it is what would be done
        conn.execute("SET ROLE acme_owner; CREATE TABLE acme.t ()")


async def test_names_of_the_server_may_say_nothing(new_context, town):
    verbs = Verbs(await new_context(opaque_names=True, secret={"value": "s3cret"}))
    await onboard(verbs, "acme", "alice")
    assert not any("acme" in name or "alice" in name for name in town.roles() | town.schemas())


async def test_the_log_is_whole(verbs):
    await onboard(verbs, "acme")
    async with verbs.context.store.read() as connection:
        assert (await audit.verify(connection)).ok
    actions = [entry.action for entry in reversed(await verbs.audit_log())]
    assert actions == [
        "tenant.create",
        "tenant.provision",
        "tenant.ready",
        "login.create",
        "access.grant",
        "tenant.activate",
    ]


@pytest.mark.parametrize(
    ("settings", "told", "detail"),
    [
        ({"work_mem": "lots"}, 'settings.work_mem: invalid value for parameter "work_mem": ', "from 64"),
        ({"statement_timeout": "5 weeks"}, "settings.statement_timeout: invalid value", "counted in ms"),
        ({"geqo": "perhaps"}, "settings.geqo: ", "it is on or off"),
        ({"bytea_output": "base64"}, "settings.bytea_output: ", "one of escape, hex"),
        ({"shared_buffers": "1GB"}, "settings.shared_buffers: ", "an integer from 16"),
        ({"no_such_setting": "1"}, "settings.no_such_setting: unrecognized", ""),
        ({"log_statement": "all"}, "settings.log_statement: ", ""),
        ({"default_tablespace": "nowhere"}, "settings.default_tablespace: ", ""),
        ({"TimeZone": "Europe/Atlantis"}, "settings.TimeZone: ", ""),
        ({"work_mem": "8MB", "random_page_cost": "-3"}, "settings.random_page_cost: ", "a number from 0"),
    ],
)
async def test_settings_that_a_server_does_not_take_are_refused(verbs, settings, told, detail):
    """They were taken, and then nobody could log in."""
    await verbs.plan_put(Plan(name="plain", spec=Spec(settings={"work_mem": "8MB"})))
    await verbs.tenant_create(NewTenant(name="beta", plan="plain"))
    for asked in (
        verbs.tenant_create(NewTenant(name="acme", spec=Spec(settings=settings))),
        verbs.tenant_set("beta", spec={"settings": settings}),
        verbs.plan_put(Plan(name="plain", spec=Spec(settings=settings))),
        verbs.plan_put(Plan(name="gold", spec=Spec(settings=settings))),
    ):
        with pytest.raises(Failure) as failed:
            await asked
        assert failed.value.code == "invalid"
        assert failed.value.message.startswith(told)
        assert detail in failed.value.detail
    assert [tenant.name for tenant in await verbs.tenant_list()] == ["beta"]
    assert (await verbs.tenant_get("beta")).spec.given() == {}
    assert (await verbs.plan_get("plain")).spec.settings == {"work_mem": "8MB"}


async def test_settings_that_a_server_takes(verbs, town):
    settings = {
        "WORK_MEM": "8MB",
        "statement_timeout": "1ms",
        "idle_in_transaction_session_timeout": "1ms",
        "temp_buffers": "1MB",
        "client_encoding": "LATIN1",
        "app.tenant": "any at all",
        "search_path": "acme, public",
        "TimeZone": "Europe/Berlin",
    }
    await verbs.tenant_create(NewTenant(name="acme", spec=Spec(settings=settings)))
    with town.connect() as conn:  # what was granted may be set
        conn.execute("GRANT SET ON PARAMETER log_min_duration_statement TO PUBLIC")
    try:
        await verbs.tenant_set("acme", spec={"settings": {"log_min_duration_statement": "1s"}})
    finally:
        with town.connect() as conn:
            conn.execute("REVOKE SET ON PARAMETER log_min_duration_statement FROM PUBLIC")
    async with verbs.context.admin("main") as connection:  # nothing of it stays
        assert await connection.fetchval("SHOW work_mem") == "4MB"
        assert await connection.fetchval("SHOW search_path") == ""


async def test_the_admins_sessions_do_not_grow_old(verbs, monkeypatch):
    monkeypatch.setattr(context, "ADMIN_QUERIES", 3)
    monkeypatch.setattr(keeping, "KEPT_S", 0.01)
    cluster = verbs.context.config.clusters[0].name
    pids = set()
    for _ in range(6):
        async with verbs.context.admin(cluster) as connection:
            pids.add(await connection.fetchval("SELECT pg_backend_pid()"))
        await asyncio.sleep(0.1)
    assert 1 < len(pids) < 6
