"""A tenant who has every kind of object, exported and restored: the same, by pg_dump's own account."""

from __future__ import annotations

import subprocess

import pytest

from tenant_proxy.lifecycle import export, inventory, restore, tools


def dumped(place, schema: str) -> str:
    """pg_dump of the schema, without what differs from call to call."""
    text = place.server.run_tool("pg_dump", ["-n", schema, "-d", place.dsn]).stdout
    assert text
    return "\n".join(
        line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    )


async def taken(place, estate):
    connection = await place.connect()
    try:
        found = await inventory.take(connection, estate)
    finally:
        await connection.close()
    return [item for item in found.items if item.kind not in inventory.VOLATILE]


@pytest.mark.slow
async def test_what_is_restored_is_what_was_exported(any_place, tmp_path):
    estate = any_place.with_everything()
    before, had = dumped(any_place, estate.schema), await taken(any_place, estate)
    path = tmp_path / "tenant.tar"
    manifest = await export.export(any_place.database_of(), estate, path, tenant="x")
    assert {table.name: table.rows for table in manifest.tables}["lines"] == 100
    any_place.clear()
    any_place.known(estate.schema)
    await restore.restore(any_place.database_of(), path)
    assert dumped(any_place, estate.schema) == before
    assert await taken(any_place, estate) == had


@pytest.mark.slow
async def test_under_another_name_nothing_but_the_name_differs(any_place, tmp_path):
    estate = any_place.with_everything()
    other = any_place.known(f"{estate.schema}_too")
    path = tmp_path / "tenant.tar"
    await export.export(any_place.database_of(), estate, path, tenant="x", pass_phrase="secret words")
    roles = dict(zip(sorted(estate.all_roles()), sorted(other.all_roles()), strict=True))
    done = await restore.restore(
        any_place.database_of(), path, schema=other.schema, roles=roles, pass_phrase="secret words"
    )
    print(done.findings, done.notes)
    assert dumped(any_place, other.schema).replace(other.schema, estate.schema) == dumped(
        any_place, estate.schema
    )


@pytest.mark.slow
async def test_an_archive_is_restored_with_stock_tools(any_place, tmp_path):
    """As RESTORE.txt says, and nothing of ours."""
    estate = any_place.with_everything()
    before, had = dumped(any_place, estate.schema), await taken(any_place, estate)
    await export.export(any_place.database_of(), estate, tmp_path / "tenant.tar", tenant="x")
    any_place.clear()
    any_place.known(estate.schema)
    subprocess.run(["tar", "-xf", tmp_path / "tenant.tar", "-C", tmp_path], check=True)
    database = any_place.database_of()

    def restore_section(*sections: str) -> None:
        tool = tools.find(any_place.major * 10_000).path("pg_restore")
        options = [f"--section={section}" for section in sections]
        command = [tool, *options, "-d", database.name, str(tmp_path / "schema.dump")]
        subprocess.run(command, env=database.environment(), check=True)

    def script(name: str) -> None:
        any_place.sql((tmp_path / name).read_text())

    script("roles.sql")
    restore_section("pre-data")
    script("extras.sql")
    restore_section("data", "post-data")
    script("large_objects.sql")
    assert dumped(any_place, estate.schema) == before
    assert await taken(any_place, estate) == had
