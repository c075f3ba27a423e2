"""What a tenant has is found, all of it, and of one who is gone nothing."""

from __future__ import annotations

import pytest

from tenant_proxy.lifecycle import inventory

#: what every_kind.sql has, and conftest's roles; some that come with others are not counted apart
KINDS = {
    "aggregate": 1,
    "cast": 2,
    "collation": 1,
    "comment": 7,
    "conversion": 1,
    "default acl": 2,
    "domain constraint": 1,
    "foreign table": 1,
    "large object": 1,
    "materialized view": 1,
    "membership": 1,
    "operator": 1,
    "operator class": 1,
    "operator family": 1,
    "policy": 1,
    "procedure": 1,
    "role": 4,
    "rule": 1,
    "schema": 1,
    "sequence": 4,
    "setting": 2,
    "statistics": 2,
    "statistics object": 1,
    "table": 11,
    "text search configuration": 1,
    "text search dictionary": 1,
    "trigger": 2,
    "type": 4,
    "view": 3,
}


async def test_every_kind_is_found(any_place):
    estate = any_place.with_everything()
    connection = await any_place.connect()
    try:
        found = await inventory.take(connection, estate)
        counts = found.counts()
        assert {kind: counts.get(kind) for kind in KINDS} == KINDS
        assert ("grant", f"server nowhere: USAGE to {estate.owner}") in {
            (item.kind, f"{item.name}: {item.detail.partition(' by ')[0]}") for item in found.items
        }
        # nothing in it names the schema, so that tenants can be compared
        assert not [
            item for item in found.of("table", "function", "index") if f"{estate.schema}." in item.name
        ]

        was = await inventory.oids(connection, estate)
        left = await inventory.left_of(connection, estate, was)
        assert {"schema", "role", "dependency", "grant", "large object", "setting", "membership"} <= {
            item.kind for item in left
        }
        any_place.clear()
        assert await inventory.left_of(connection, estate, was) == ()
        assert (await inventory.take(connection, estate)).items == ()
    finally:
        await connection.close()


async def test_what_a_role_has_in_another_database_is_noticed(place):
    estate = place.with_roles("inventory_far")
    place.server.psql(f"CREATE SCHEMA far AUTHORIZATION {estate.owner}", database="app")
    connection = await place.connect()
    try:
        found = await inventory.take(connection, estate)
        assert [item.name for item in found.of("elsewhere")] == ["database app"]
        was = await inventory.oids(connection, estate)
        assert ("dependency", "app") in {
            (item.kind, item.name) for item in await inventory.left_of(connection, estate, was)
        }
    finally:
        await connection.close()
        place.server.psql("DROP SCHEMA far", database="app")


@pytest.mark.parametrize(
    ("identity", "bare"),
    [
        ("acme.orders", "orders"),
        ("acme.f(acme.mood,acme.pair[])", "f(mood,pair[])"),
        ("acme", "acme"),
        ('acme."acme.x"', '"acme.x"'),
        ("not_acme.orders", "not_acme.orders"),
        ("x on acme.t", "x on t"),
        ("acme.acme.acme", "acme.acme"),
    ],
)
def test_names_are_bared(identity, bare):
    assert inventory._bare(identity, "acme") == bare
