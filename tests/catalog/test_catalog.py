"""The catalog: its migrations, what its tables refuse, what is logged and told."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenant_proxy.catalog import audit, effective, migrate, states
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Plan, Spec, Tenant, parse
from tenant_proxy.catalog.states import State
from tenant_proxy.catalog.store import Store


def columns(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "cluster": "main",
        "schema": name,
        "owner_role": f"{name}_owner",
        "readwrite_role": f"{name}_readwrite",
        "readonly_role": f"{name}_readonly",
        **more,
    }


async def add(store: Store, name: str, **more: Any) -> Tenant:
    async with store.change("anna") as change:
        return await change.insert_tenant(**columns(name, **more))


# --- migrations


@pytest.fixture
async def two_connections(pg):
    """To a database without a catalog."""
    with pg.connect(database="postgres") as conn:
        conn.execute("DROP DATABASE IF EXISTS migrated WITH (FORCE)")
        conn.execute("CREATE DATABASE migrated")
    pair = [await asyncpg.connect(pg.dsn(database="migrated")) for _ in range(2)]
    yield pair
    for one in pair:
        await one.close()


async def test_migrating_twice_changes_nothing_and_at_once_waits(two_connections):
    one, two = two_connections
    assert (await migrate.status(one)).version == 0
    applied = await asyncio.gather(migrate.migrate(one), migrate.migrate(two))
    assert sorted(map(len, applied)) == [0, len(migrate.migrations())]
    assert (await migrate.status(two)).is_current


async def test_what_another_makes_while_a_lock_is_waited_for_is_seen(two_connections):
    """A backend that has looked for it in vain remembers that."""
    one, two = two_connections
    assert await migrate.is_missing(two)
    transaction = one.transaction()
    await transaction.start()
    await one.execute("SELECT pg_advisory_xact_lock(1)")
    await one.execute("CREATE SCHEMA tenant_proxy CREATE TABLE migration ()")
    async with two.transaction():
        waits = asyncio.create_task(two.execute("SELECT pg_advisory_xact_lock(1)"))
        while not await one.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            await asyncio.sleep(0.01)
        await transaction.commit()
        await waits
        assert not await migrate.is_missing(two)


async def test_a_changed_or_unknown_migration_is_found(store):
    async with store.read() as connection:
        await connection.execute("UPDATE migration SET checksum = 'x' WHERE version = 1")
        with pytest.raises(Failure, match="is not the one") as failed:
            await migrate.check(connection)
        assert failed.value.code == "outdated"
        await connection.execute("INSERT INTO migration VALUES (9999, 'later', 'x')")
        with pytest.raises(Failure, match="version 9999"):
            await migrate.check(connection)


async def test_a_database_without_a_catalog_is_said_to_have_none(pg):
    with pytest.raises(Failure, match="no catalog in this database"):
        await Store.connect(pg.dsn(database="postgres"))
    with pytest.raises(Failure, match="can't be reached") as failed:
        await Store.connect("postgresql://x@127.0.0.1:1/x")
    assert failed.value.code == "unavailable"


# --- states


async def test_the_table_and_python_know_the_same_transitions(store):
    async with store.read() as connection:
        for now, then in itertools.product(State, State):
            for failed_from in (None, State.PROVISIONING, State.DELETING):
                told = await connection.fetchval("SELECT may_follow($1, $2, $3)", now, failed_from, then)
                assert bool(told) == states.may_follow(now, then, failed_from), (now, failed_from, then)


async def test_the_table_refuses_what_python_does_not_ask(store):
    tenant = await add(store, "acme")
    async with store.read() as connection:
        for state in set(State) - {State.DRAFT, State.PROVISIONING, State.DELETING}:
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute("UPDATE tenant SET state = $1", state)
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("DELETE FROM tenant")
    async with store.change("anna") as change:
        with pytest.raises(Failure, match='tenant "acme" is draft'):
            await change.update_tenant(tenant, "tenant.activate", state="active")


# --- what it keeps


async def test_changes_are_logged_in_a_chain_and_nothing_in_it_can_be_changed(store):
    tenant = await add(store, "acme", labels={"region": "eu"})
    async with store.change("bob") as change:
        tenant = await change.tenant("acme", version=1)
        tenant = await change.update_tenant(tenant, "tenant.set", labels={"region": "us"}, sni=["a.example"])
        same = await change.update_tenant(tenant, "tenant.set", labels={"region": "us"})
    assert tenant.version == same.version == 2
    newest, oldest = await store.audit()
    assert (oldest.action, oldest.actor, oldest.after["labels"]) == (
        "tenant.create",
        "anna",
        {"region": "eu"},
    )
    assert newest.before == {"labels": {"region": "eu"}, "sni": []}
    assert newest.after == {"labels": {"region": "us"}, "sni": ["a.example"]}
    async with store.read() as connection:
        verified = await audit.verify(connection)
        assert (verified.ok, verified.entries, verified.head) == (True, 2, newest.hash)
        assert (await audit.verify(connection, oldest.hash)).ok
        assert not (await audit.verify(connection, "00" * 32)).ok
        for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


@pytest.mark.parametrize(
    ("tampering", "broken_at"),
    [
        ("UPDATE audit SET actor = 'mallory' WHERE id = 2", 2),
        ("UPDATE audit SET at = at + interval '1 us' WHERE id = 3", 3),
        ("UPDATE audit SET after = NULL WHERE id = 1", 1),
        ("DELETE FROM audit WHERE id = 2", 2),
        ("UPDATE audit SET hash = sha256('x') WHERE id = 2", 2),
        ("UPDATE audit SET after = '{}' WHERE id = 2", 2),
        ("UPDATE audit SET salt = sha256('x') WHERE id = 2", 2),
        ("UPDATE audit SET salt = NULL, digest = NULL WHERE id = 2", 2),
        # which the table takes, and no erasure tells of
        ("UPDATE audit SET before = NULL, after = NULL, salt = NULL WHERE id = 3", 3),
    ],
)
async def test_tampering_shows(store, tampering, broken_at):
    for name in ("a", "b", "c", "d"):
        await add(store, name)
    async with store.read() as connection:
        checks = "ALTER TABLE audit DROP CONSTRAINT audit_blank, DROP CONSTRAINT audit_salt_check"
        await connection.execute(
            f"{checks}; SET session_replication_role = replica; {tampering}; RESET session_replication_role"
        )
        found = await audit.verify(connection)
    assert found.broken_at == broken_at


async def test_entries_from_before_digests_are_of_the_chain_and_stay(store):
    """As a catalog that was migrated has them."""
    async with store.read() as connection:
        await connection.execute(
            """SET session_replication_role = replica;
               INSERT INTO audit (id, at, actor, action, kind, name, after, hash)
               VALUES (1, now(), 'anna', 'tenant.set', 'tenant', 'acme', '{"labels": {}}', sha256(''));
               UPDATE audit SET hash = sha256(convert_to(audit_text(audit), 'UTF8'));
               RESET session_replication_role"""
        )
    await add(store, "acme")
    async with store.read() as connection:
        assert (await audit.verify(connection)).ok
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE audit SET after = NULL WHERE id = 1")
        assert await audit.forget(connection, "acme", []) == [2]


async def test_entries_of_transactions_at_once_are_one_chain(store):
    await asyncio.gather(*(add(store, f"t{number}") for number in range(20)))
    async with store.read() as connection:
        assert (await audit.verify(connection)).entries == 20


async def test_two_tenants_cant_share_what_is_theirs(store):
    await add(store, "acme", sni=["acme.example"])
    for clash in (
        columns("acme"),
        columns("beta", schema="acme"),
        columns("beta", owner_role="acme_owner"),
        columns("beta", readonly_role="acme_readonly"),
        columns("beta", sni=["ACME.example"]),
    ):
        with pytest.raises(Failure) as failed:
            async with store.change("anna") as change:
                await change.insert_tenant(**clash)
        assert failed.value.code == "exists"
    with pytest.raises(Failure, match="no such plan"):
        await add(store, "gamma", plan="none")


@pytest.mark.parametrize(
    "spec",
    [
        {"unknown": 1},
        {"pool": []},
        {"max_clients": -1},
        {"isolation": "none"},
        {"settings": {"work_mem": 4}},
        {"locked_settings": [1]},
        [],
    ],
)
async def test_the_table_refuses_specs_that_proxies_cant_read(store, spec):
    with pytest.raises(Failure) as failed:
        await add(store, "acme", spec=spec)
    assert failed.value.code == "conflict"
    if isinstance(spec, dict):
        with pytest.raises(Failure):
            parse(Spec, spec)


async def test_every_key_of_a_spec_is_one_of_the_tables(store):
    full = {
        "isolation": "shared",
        "own_database": True,
        "pool": {"max": 3},
        "policy": {"mode": "observe"},
        "settings": {"work_mem": "4MB"},
        "locked_settings": ["work_mem"],
        "max_clients": 1,
        "connection_limit": 2,
        "storage_bytes": 3,
        "grace_s": 4.5,
        "delete_grace_s": 5.0,
        "extensions": ["citext"],
        "template": "blank",
        "tablespace": "fast",
        "services": ["bucket"],
    }
    assert set(full) == set(Spec.model_fields)
    tenant = await add(store, "acme", spec=parse(Spec, full).given())
    assert tenant.spec.given() == full


# --- what proxies read and are told

SPECS = st.fixed_dictionaries(
    {},
    optional={
        "pool": st.dictionaries(st.sampled_from(["max", "min", "weight"]), st.integers(1, 9), max_size=3),
        "settings": st.dictionaries(st.sampled_from(["a.x", "a.y"]), st.sampled_from("12"), max_size=2),
        "locked_settings": st.lists(st.sampled_from(["a.x", "a.y"]), unique=True),
        "max_clients": st.integers(0, 9),
        "grace_s": st.integers(0, 9),
        "isolation": st.sampled_from(["shared", "dedicated"]),
    },
)


async def test_the_view_and_python_compute_the_same_values(store):
    async with store.read() as connection:
        await connection.execute("INSERT INTO plan (name) VALUES ('standard')")
        await connection.execute(
            """INSERT INTO tenant (name, plan, cluster, schema, owner_role, readwrite_role, readonly_role)
               VALUES ('acme', 'standard', 'main', 'acme', 'a', 'b', 'c')"""
        )
        await connection.execute("UPDATE tenant SET state = 'provisioning', provisioned_at = now()")
        await connection.execute("UPDATE tenant SET state = 'ready'")
        await connection.execute("UPDATE tenant SET state = 'active'")
        cases: list[tuple[dict[str, Any], dict[str, Any]]] = []

        @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(SPECS, SPECS)
        def collect(plan, own):
            cases.append((plan, own))

        collect()
        for plan, own in cases:
            await connection.execute("UPDATE plan SET spec = $1", plan)
            await connection.execute("UPDATE tenant SET spec = $1", own)
            row = await connection.fetchrow("SELECT * FROM served_tenants")
            spec = effective.spec(Plan(name="standard", spec=Spec(**plan)), Spec(**own))
            assert row["pool"] == (spec.pool or {})
            assert row["settings"] == (spec.settings or {})
            assert row["locked_settings"] == spec.locked_settings
            assert row["max_clients"] == spec.max_clients
            assert row["grace_s"] == spec.grace_s
            assert row["isolation"] == spec.isolation


def test_values_say_where_they_are_from():
    plan = Plan(name="standard", spec=Spec(pool={"max": 5, "min": 1}, max_clients=10))
    found = effective.values(plan, Spec(pool={"max": 7}))
    assert found["pool.max"] == effective.Value(7, "tenant")
    assert found["pool.min"] == effective.Value(1, "plan")
    assert found["max_clients"] == effective.Value(10, "plan")
    assert found["grace_s"] == effective.Value(30.0, "default")
    assert {f"{key}" for key in effective.DEFAULTS} <= set(Spec.model_fields)


async def test_changes_are_told_by_name(store, catalog_dsn):
    heard: list[str] = []
    listener = await asyncpg.connect(catalog_dsn)
    await listener.add_listener("tenant_proxy", lambda *call: heard.append(call[3]))

    async def told() -> list[str]:
        await listener.execute("SELECT")
        got = sorted(set(heard))
        heard.clear()
        return got

    async with store.change("anna") as change:
        await change.put_plan(Plan(name="standard"))
    tenant = await add(store, "acme", plan="standard")
    assert await told() == ["tenant acme"]
    async with store.change("anna") as change:
        login = await change.connection.fetchval("INSERT INTO login (name) VALUES ('alice') RETURNING id")
        await change.connection.execute(
            "INSERT INTO access (login, tenant, level) VALUES ($1, $2, 'owner')", login, tenant.id
        )
    assert await told() == ["login alice"]
    async with store.read() as connection:
        await connection.execute("UPDATE tenant SET state = 'provisioning', provisioned_at = now()")
        await connection.execute("UPDATE tenant SET state = 'ready'")
        await connection.execute("UPDATE tenant SET state = 'active'")
        assert await told() == ["login alice", "tenant acme"]
        assert await connection.fetchval("SELECT roles FROM served_logins") == {"acme": "acme_owner"}
        await connection.execute("UPDATE tenant SET name = 'acme2'")
        assert await told() == ["login alice", "tenant acme", "tenant acme2"]
        await connection.execute("UPDATE tenant SET storage_bytes = 5")
        assert await told() == []
        await connection.execute("UPDATE tenant SET storage_bytes = 6, over_storage = true")
        assert await told() == ["tenant acme2"]
        await connection.execute("UPDATE plan SET spec = '{\"max_clients\": 3}'")
        assert await told() == ["tenant acme2"]
        await connection.execute("DELETE FROM access")
        assert await told() == ["login alice"]
        assert await connection.fetchval("SELECT count(*) FROM served_logins") == 0
    await listener.close()


async def test_secrets_of_a_login_share_their_salt(store):
    async with store.read() as connection:
        login = await connection.fetchval("INSERT INTO login (name) VALUES ('alice') RETURNING id")
        key = "A" * 43 + "="
        insert = "INSERT INTO login_secret (login, slot, verifier, server_user, retires_at) VALUES"
        await connection.execute(
            f"{insert} ($1, 0, $2, 'alice', NULL)", login, f"SCRAM-SHA-256$4096:c2FsdA==${key}:{key}"
        )
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                f"{insert} ($1, 1, $2, 'alice~2', now())", login, f"SCRAM-SHA-256$4096:b3RoZXI=${key}:{key}"
            )
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(f"{insert} ($1, 1, 'plain', 'alice~2', now())", login)
