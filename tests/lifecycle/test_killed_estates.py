"""As `test_killed`, for the jobs that take whole tenants here and there: each of them takes seconds, so it is
for `make soak`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.states import State
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.verbs import Verbs
from tests.fix_lifecycle import Town, make_town
from tests.lifecycle.test_killed import Scenario, kill_everywhere, provisioned, with_table


def scenarios(folder: Path) -> dict[str, Scenario]:
    async def export(verbs: Verbs, name: str) -> None:
        await verbs.tenant_export(name, str(folder / f"{name}.tar"))

    async def is_exported(verbs: Verbs, name: str, town: Town) -> None:
        manifest = await verbs.archive_show(str(folder / f"{name}.tar"))
        assert [(table.name, table.rows) for table in manifest.tables] == [("t", 0)]

    async def exported(verbs: Verbs, name: str) -> None:
        await with_table(verbs, name)
        await export(verbs, name)

    async def import_(verbs: Verbs, name: str) -> None:
        await verbs.tenant_import(str(folder / f"{name}.tar"), f"{name}b")

    async def clone(verbs: Verbs, name: str) -> None:
        await verbs.tenant_clone(name, f"{name}b")

    async def other_is_ready(verbs: Verbs, name: str, town: Town) -> None:
        assert (await verbs.tenant_get(f"{name}b")).state is State.READY
        with town.connect() as conn:
            owner = conn.execute(
                "SELECT tableowner FROM pg_tables WHERE schemaname = %s AND tablename = 't'", [f"{name}b"]
            ).fetchone()
        assert owner == (f"{name}b_owner",)

    async def legacy(verbs: Verbs, name: str) -> None:
        async with verbs.context.admin("main") as connection:
            await connection.execute(f"CREATE SCHEMA old_{name}; CREATE TABLE old_{name}.t (id int)")
        await verbs.tenant_create(NewTenant(name=name, schema_=f"old_{name}"))

    async def adopt(verbs: Verbs, name: str) -> None:
        await verbs.tenant_adopt(name, accept=True)

    async def is_adopted(verbs: Verbs, name: str, town: Town) -> None:
        assert (await verbs.tenant_get(name)).state is State.READY
        with town.connect() as conn:
            owner = conn.execute(
                "SELECT tableowner FROM pg_tables WHERE schemaname = %s", [f"old_{name}"]
            ).fetchone()
        assert owner == (f"old_{name}_owner",)

    async def deleted(verbs: Verbs, name: str) -> None:
        await with_table(verbs, name)
        await verbs.tenant_delete(name, grace_s=0)

    async def erase(verbs: Verbs, name: str) -> None:
        await verbs.tenant_erase(name, at_once=True)

    async def is_erased(verbs: Verbs, name: str, town: Town) -> None:
        with pytest.raises(Failure, match="there is no tenant"):
            await verbs.tenant_get(name)
        assert not {role for role in town.roles() if role.startswith(f"{name}_")}
        assert name not in town.schemas()
        assert (await verbs.erasure_record(name))["record"]["tenant"] == name

    async def migrate(verbs: Verbs, name: str) -> None:
        (folder / "V001__notes.up.sql").write_text("CREATE TABLE note (id int)")
        await verbs.migrate("up", directory=str(folder), tenants=[name])

    async def is_migrated(verbs: Verbs, name: str, town: Town) -> None:
        standings, _ = await verbs.migrate_status(str(folder), [name])
        assert [one.pending for one in standings] == [()]
        with town.connect() as conn:
            conn.execute(f"SELECT FROM {name}.note")

    return {
        "export": Scenario(with_table, export, is_exported),
        "import": Scenario(exported, import_, other_is_ready),
        "clone": Scenario(with_table, clone, other_is_ready),
        "adopt": Scenario(legacy, adopt, is_adopted),
        "erase": Scenario(deleted, erase, is_erased),
        "migrate": Scenario(provisioned, migrate, is_migrated),
    }


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["export", "import", "clone", "adopt", "erase", "migrate"])
def test_killed_at_every_point(town, tmp_path, kind):
    kill_everywhere(town, scenarios(tmp_path)[kind])


# --- from one cluster to another ------------------------------------------------------------------------


@dataclass
class TwoTowns(Town):
    """The first one, with another as the cluster "second"."""

    second: Town = field(kw_only=True)

    def config(self, **changes: Any) -> dict[str, Any]:
        config = super().config(**changes)
        config["clusters"].append(self.second.config()["clusters"][0] | {"name": "second"})
        return config


@pytest.fixture
def two_towns(pg_servers: Any, pg: Any, town: Town, catalog_dsn: str) -> Iterator[TwoTowns]:
    """A tenant moves to the same major or a newer one."""
    from tests.pg_server import majors

    other = next((major for major in majors() if major != pg.major), None)
    if other is None:
        pytest.skip("a tenant moves between two servers, and there is one")
    beside = make_town(pg_servers.get(other), catalog_dsn)
    first, second = sorted((town, beside), key=lambda one: one.pg.major)
    yield TwoTowns(**{one.name: getattr(first, one.name) for one in fields(Town)}, second=second)
    beside.clear()


async def on_main(verbs: Verbs, name: str) -> None:
    await verbs.tenant_onboard(NewTenant(name=name, cluster="main"), NewAccess(login=name))
    async with verbs.context.admin("main") as connection:
        await connection.execute(
            f"CREATE TABLE {name}.t AS SELECT 1 AS n; ALTER TABLE {name}.t OWNER TO {name}_owner"
        )


async def move(verbs: Verbs, name: str) -> None:
    await verbs.tenant_move(name, "second")


async def moved(verbs: Verbs, name: str) -> None:
    await on_main(verbs, name)
    await move(verbs, name)


async def forget(verbs: Verbs, name: str) -> None:
    await verbs.tenant_move_confirm(name)


async def is_there(verbs: Verbs, name: str, town: Town) -> None:
    assert isinstance(town, TwoTowns)
    tenant = await verbs.tenant_get(name)
    assert (tenant.cluster, tenant.state) == ("second", State.ACTIVE)
    with town.second.connect() as conn:
        assert conn.execute(f"SELECT n FROM {name}.t").fetchall() == [(1,)]
    assert name in town.second.roles()
    assert name not in town.schemas() | town.roles()
    assert [schema for schema in town.schemas() if schema.startswith(f"{name}__moved")]


async def is_forgotten(verbs: Verbs, name: str, town: Town) -> None:
    assert isinstance(town, TwoTowns)
    assert (await verbs.tenant_get(name)).state is State.ACTIVE
    assert not [one for one in town.schemas() | town.roles() if one.startswith(f"{name}_")]
    with town.second.connect() as conn:
        assert conn.execute(f"SELECT n FROM {name}.t").fetchall() == [(1,)]


MOVES = {"move": Scenario(on_main, move, is_there), "forget": Scenario(moved, forget, is_forgotten)}


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", MOVES)
def test_killed_at_every_point_of_a_move(two_towns, kind):
    kill_everywhere(two_towns, MOVES[kind])
