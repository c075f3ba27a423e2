"""What `every_kind.sql` has not: rarer shapes of its kinds, and rights that owners take from themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenant_proxy.catalog.records import JobState, Level
from tenant_proxy.lifecycle import export, restore
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tests.lifecycle.conftest import Place, fill
from tests.lifecycle.test_erasing import erase
from tests.lifecycle.test_export import dumped, taken

HERE = Path(__file__).parent
BLOBS = """
SELECT convert_from(lo_get(m.oid), 'UTF8'), m.lomowner::regrole, m.lomacl,
       obj_description(m.oid, 'pg_largeobject')
  FROM pg_largeobject_metadata m ORDER BY 1
"""


def with_more(place: Place, schema: str) -> Estate:
    estate = place.with_roles(schema)
    place.sql(fill((HERE / "more_kinds.sql").read_text(), place.names(schema)))
    return estate


@pytest.mark.slow
async def test_export_erase_import_gives_the_same_tenant(any_place, tmp_path):
    estate = with_more(any_place, "kinds")
    before, had = dumped(any_place, estate.schema), await taken(any_place, estate)
    blobs = any_place.sql(BLOBS)
    assert "large" in blobs
    await export.export(any_place.database_of(), estate, tmp_path / "a.tar", tenant="x")
    assert await erase(any_place, estate) == ()
    await restore.restore(any_place.database_of(), tmp_path / "a.tar")
    assert dumped(any_place, estate.schema) == before
    assert await taken(any_place, estate) == had
    assert any_place.sql(BLOBS) == blobs


@pytest.mark.slow
async def test_under_another_name_nothing_but_the_name_differs(any_place, tmp_path):
    estate, other = with_more(any_place, "kinds"), any_place.known("kinds_too")
    await export.export(any_place.database_of(), estate, tmp_path / "a.tar", tenant="x")
    roles = dict(zip(sorted(estate.all_roles()), sorted(other.all_roles()), strict=True))
    # a trigger is given the schema's name as a text
    await restore.restore(
        any_place.database_of(), tmp_path / "a.tar", schema=other.schema, roles=roles, accept=True
    )
    assert dumped(any_place, other.schema).replace(other.schema, estate.schema) == dumped(
        any_place, estate.schema
    )


async def test_default_privileges_of_one_role_for_another(verbs, town):
    """PostgreSQL can't drop what both own in one statement."""
    defaults = "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {}"
    await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    await verbs.access_rotate("alice", overlap_s=60)
    await verbs.access_grant("acme", NewAccess(login="bob", level=Level.READONLY))
    with town.connect() as conn:
        conn.execute(f"SET ROLE acme_owner; {defaults.format('acme_readonly')}; RESET ROLE")
        conn.execute(f"""SET ROLE alice; {defaults.format('"alice~2"')}; RESET ROLE""")
    await verbs.access_revoke("acme", "alice")
    assert "alice" not in town.roles()
    await verbs.tenant_delete("acme", grace_s=0.0)
    assert (await verbs.tenant_erase("acme")).state is JobState.DONE
    assert town.roles() == set()
