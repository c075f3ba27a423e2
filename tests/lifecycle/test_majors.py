"""The tenants' life on each major version: memberships and rights differ from one to the other."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

from tenant_proxy.catalog.records import Level, Plan, Spec
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tests.fix_lifecycle import Town, make_town


@pytest.fixture
def town(any_pg, catalog_dsn) -> Iterator[Town]:
    """On that version; the catalog stays where it is."""
    town = make_town(any_pg, catalog_dsn)
    yield town
    town.clear()


async def test_a_life(verbs, town):
    await verbs.plan_put(Plan(name="own", spec=Spec(own_database=True)))
    passwords = {}
    for name in ("acme", "beta"):
        done = await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=name))
        passwords[name] = done.granted.password
        with town.connect(name, passwords[name]) as conn:
            conn.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    reader = (await verbs.access_grant("acme", NewAccess(login="rita", level=Level.READONLY))).password
    with town.connect("rita", reader) as conn:
        assert conn.execute("SELECT id FROM t").fetchone() == (1,)
        for attack in ("INSERT INTO t VALUES (2)", "SELECT * FROM beta.t", "SET ROLE acme_owner"):
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(attack)
    await verbs.access_grant("beta", NewAccess(login="rita", level=Level.READWRITE))
    with town.connect("rita", reader) as conn:
        with pytest.raises(errors.InsufficientPrivilege):  # it inherits nothing of either
            conn.execute("SELECT * FROM acme.t, beta.t")
        conn.execute("SET ROLE beta_readwrite; INSERT INTO beta.t VALUES (2)")
    rotated = await verbs.access_rotate("acme", overlap_s=0)
    await verbs.access_rotate("acme", end=True)
    with town.connect("acme~2", rotated.password) as conn:
        conn.execute("ALTER TABLE t ADD more int")
    await verbs.tenant_onboard(
        NewTenant(name="gamma", plan="own", database="town_g"), NewAccess(login="gamma")
    )
    await verbs.tenant_provision("acme")
    await verbs.role_put("acme", "clerk", {"t": ["SELECT"]})
    await verbs.role_delete("acme", "clerk")
    for tenant, login in (("acme", "rita"), ("beta", "rita"), ("acme", "acme"), ("gamma", "gamma")):
        await verbs.access_revoke(tenant, login)
    assert not {"rita", "acme", "acme~2", "gamma"} & town.roles()
    with pytest.raises(psycopg.OperationalError):
        town.connect("rita", reader)
