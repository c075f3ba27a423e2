"""What `every_kind.sql` has not: rarer shapes of its kinds, and rights that owners take from themselves."""

from __future__ import annotations

import difflib
import re
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
FILES = ("more_kinds.sql", "newest_kinds.sql")
BLOBS = """
SELECT encode(lo_get(m.oid), 'escape'), m.lomowner::regrole, m.lomacl,
       obj_description(m.oid, 'pg_largeobject')
  FROM pg_largeobject_metadata m ORDER BY 1
"""


def with_kinds(place: Place, schema: str, file: str = "more_kinds.sql") -> Estate:
    estate = place.with_roles(schema)
    place.sql(fill(what_there_is(place, (HERE / file).read_text()), place.names(schema)))
    return estate


def assert_same(before: str, after: str) -> None:
    found = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=2, lineterm=""))
    assert not found, "\n".join(found)


def what_there_is(place: Place, text: str) -> str:
    """Of a script the parts that the server has ("-- from MAJOR", "-- with icu")."""
    has_icu = "t" in place.sql("SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'de-x-icu')")
    parts = re.split(r"^-- (?=from \d+$|with icu$)", text, flags=re.MULTILINE)
    kept = parts[:1]
    for part in parts[1:]:
        asked = part.split(maxsplit=2)[1]
        if has_icu if asked == "icu" else place.major >= int(asked):
            kept.append(f"-- {part}")
    return "".join(kept)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
async def test_export_erase_import_gives_the_same_tenant(any_place, tmp_path, file):
    estate = with_kinds(any_place, "kinds", file)
    before, had = dumped(any_place, estate.schema), await taken(any_place, estate)
    blobs = any_place.sql(BLOBS)
    assert "with" in blobs
    await export.export(any_place.database_of(), estate, tmp_path / "a.tar", tenant="x")
    assert await erase(any_place, estate) == ()
    await restore.restore(any_place.database_of(), tmp_path / "a.tar")
    assert_same(before, dumped(any_place, estate.schema))
    assert await taken(any_place, estate) == had
    assert any_place.sql(BLOBS) == blobs


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
async def test_under_another_name_nothing_but_the_name_differs(any_place, tmp_path, file):
    estate, other = with_kinds(any_place, "kinds", file), any_place.known("kinds_too")
    await export.export(any_place.database_of(), estate, tmp_path / "a.tar", tenant="x")
    roles = dict(zip(sorted(estate.all_roles()), sorted(other.all_roles()), strict=True))
    # a trigger is given the schema's name as a text
    await restore.restore(
        any_place.database_of(), tmp_path / "a.tar", schema=other.schema, roles=roles, accept=True
    )
    made = dumped(any_place, other.schema).replace(other.schema, estate.schema)
    assert_same(dumped(any_place, estate.schema), made)


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


async def test_columns_of_a_table_that_was_made_an_heir(place, tmp_path):
    """pg_dump puts what is inherited first: the rows were taken for others, and the import refused."""
    estate = place.with_roles("heirs")
    place.sql(
        "SET ROLE heirs_owner; SET search_path = heirs; CREATE TABLE one (a int, b text);"
        "CREATE TABLE heir (z int, b text, gone int, a int); ALTER TABLE heir DROP COLUMN gone;"
        "ALTER TABLE heir INHERIT one; INSERT INTO heir VALUES (1, 'two', 3)"
    )
    await export.export(place.database_of(), estate, tmp_path / "a.tar", tenant="x")
    assert await erase(place, estate) == ()
    await restore.restore(place.database_of(), tmp_path / "a.tar")
    assert place.sql("SELECT z, b, a FROM heirs.heir") == "1|two|3"


async def test_what_is_said_of_roles_is_not_said_of_those_where_it_came_from(place, tmp_path):
    estate, other = place.with_roles("said"), place.known("said_too")
    await export.export(place.database_of(), estate, tmp_path / "a.tar", tenant="x")
    place.sql("COMMENT ON ROLE said_owner IS 'as it is'")
    roles = dict(zip(sorted(estate.all_roles()), sorted(other.all_roles()), strict=True))
    await restore.restore(
        place.database_of(), tmp_path / "a.tar", schema=other.schema, roles=roles, accept=True
    )
    said = "SELECT shobj_description('{}'::regrole, 'pg_authid')"
    assert place.sql(said.format("said_owner")) == "as it is"
    assert place.sql(said.format("said_too_owner")) == "owner of said"
