"""What could stay behind of a tenant that is erased: it goes, or the erasure stops and says what it is."""

from __future__ import annotations

import json

import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import JobState
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tests.fix_lifecycle import ADMIN

#: what is done, with the rights of which the admin may have none -> how it is taken back
TOLD = {
    "search_path of others": (
        f"ALTER ROLE {ADMIN} SET search_path = acme, public",
        f"ALTER ROLE {ADMIN} RESET search_path",
        "search_path=acme, public",
    ),
    "role of others": (
        "CREATE ROLE bystander; ALTER ROLE bystander IN DATABASE {database} SET role = 'acme_owner'",
        "DROP ROLE bystander",
        "bystander in database {database} role=acme_owner",
    ),
    "search_path of a database": (
        'ALTER DATABASE {database} SET search_path = "$user", acme',
        "ALTER DATABASE {database} RESET search_path",
        "all roles in database {database} search_path=",
    ),
    "rights on what the admin has no rights on": (
        "CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO acme_owner",
        "DROP SCHEMA other",
        "privileges for schema other",
    ),
    "rights on a large object": (
        "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO acme_readonly",
        "SELECT lo_unlink(4711)",
        "privileges for large object 4711",
    ),
    "a database": (
        "CREATE DATABASE acmes OWNER acme_owner",
        "DROP DATABASE acmes",
        "owner of database acmes",
    ),
    "a prepared transaction of another": (
        "BEGIN; LOCK TABLE acme.t IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'not its own'",
        "ROLLBACK PREPARED 'not its own'",
        '"not its own" of ',
    ),
    "a view of others": (
        "CREATE SCHEMA other; CREATE VIEW other.v AS SELECT * FROM acme.t",
        "DROP SCHEMA other CASCADE",
        "other.v",
    ),
}
#: what goes with it
TAKEN = (
    "CREATE SCHEMA other; CREATE TABLE other.own (i int); ALTER TABLE other.own OWNER TO acme_owner",
    "CREATE ROLE third; ALTER DEFAULT PRIVILEGES FOR ROLE acme_owner GRANT SELECT ON TABLES TO third",
    "SET ROLE acme_owner; BEGIN; INSERT INTO acme.t VALUES (1); PREPARE TRANSACTION 'its \"own\"'",
    "CREATE PUBLICATION sent FOR TABLES IN SCHEMA acme; ALTER PUBLICATION sent OWNER TO acme_owner",
)


async def there(verbs, town) -> None:
    await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    with town.connect() as conn:
        conn.execute("SET ROLE acme_owner; CREATE TABLE acme.t (i int)")
    await verbs.tenant_delete("acme", grace_s=0.0)


def run(town, sql: str) -> None:
    with town.connect() as conn:
        for one in sql.format(database=town.database).split("; "):
            conn.execute(one)


@pytest.mark.parametrize("what", TOLD)
async def test_is_told(verbs, town, what):
    make, undo, told = TOLD[what]
    await there(verbs, town)
    run(town, make)
    try:
        with pytest.raises(Failure) as failed:
            await verbs.tenant_erase("acme")
    finally:
        run(town, undo)
    assert failed.value.code == "conflict"
    assert told.format(database=town.database) in f"{failed.value.message} {failed.value.detail}"
    assert failed.value.hint
    assert (await verbs.tenant_erase("acme")).state is JobState.DONE
    assert town.roles() == set()


async def test_goes(verbs, town):
    await there(verbs, town)
    for sql in TAKEN:
        run(town, sql)
    try:
        assert (await verbs.tenant_erase("acme")).state is JobState.DONE
        assert town.roles() == {"third"}
        with town.connect() as conn:
            for left in (
                "SELECT FROM pg_prepared_xacts WHERE database = current_database()",
                "SELECT FROM pg_publication",
                "SELECT FROM pg_tables WHERE schemaname = 'other'",
            ):
                assert conn.execute(left).fetchall() == []
    finally:
        run(town, "DROP SCHEMA IF EXISTS other CASCADE; DROP OWNED BY third; DROP ROLE third")


async def test_what_the_catalog_had_noted(verbs, town):
    """Errors of jobs may tell of rows, and answers that are kept for who asks again of labels."""
    await there(verbs, town)
    async with verbs.context.store.read() as connection:
        await connection.execute(
            """INSERT INTO job (kind, tenant, tenant_name, actor, state, error, finished_at)
               SELECT 'import', id, name, 'anna', 'failed', $1, now() FROM tenant WHERE name = 'acme'""",
            {"code": "conflict", "message": "Key (email)=(bob@example.com) already exists."},
        )
        await connection.execute(
            "INSERT INTO idempotency (principal, key, request_hash, status, response)"
            " VALUES ('x', 'k', sha256('x'), 201, $1)",
            {"headers": {}, "body": {"tenant": {"name": "acme", "labels": {"contact": "bob@example.com"}}}},
        )
    record = (await verbs.tenant_erase("acme")).result["record"]
    assert "archives that were exported of it" in record["stays"]
    assert record["deleted_by"] == "anna"
    async with verbs.context.store.read() as connection:
        kept = [
            json.dumps([dict(row) for row in await connection.fetch(f"SELECT * FROM {table}")], default=str)
            for table in ("job", "idempotency", "tenant")
        ]
    assert "bob@example.com" not in "".join(kept)
