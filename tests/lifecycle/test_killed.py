"""Whoever does a job is killed at each of its points: somebody else goes on, or undoes, to the same end."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Level, Spec
from tenant_proxy.catalog.states import State
from tenant_proxy.config.schema import Config
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.upkeep import upkeep
from tenant_proxy.lifecycle.verbs import Verbs
from tests.fix_lifecycle import Town

KILLED = 9


class Act(Protocol):
    def __call__(self, verbs: Verbs, name: str) -> Awaitable[Any]: ...


@dataclass(frozen=True)
class Scenario:
    """`before` makes what `act` needs; `holds` asserts what must be true in the end."""

    before: Act
    act: Act
    holds: Callable[[Verbs, str, Town], Awaitable[None]]


async def create(verbs: Verbs, name: str) -> None:
    await verbs.tenant_create(NewTenant(name=name))


async def provisioned(verbs: Verbs, name: str) -> None:
    await create(verbs, name)
    await verbs.tenant_provision(name)


async def with_table(verbs: Verbs, name: str) -> None:
    await provisioned(verbs, name)
    async with verbs.context.admin("main") as connection:
        await connection.execute(
            f"CREATE TABLE {name}.t (id int); ALTER TABLE {name}.t OWNER TO {name}_owner"
        )


async def granted(verbs: Verbs, name: str) -> None:
    await provisioned(verbs, name)
    await verbs.access_grant(name, NewAccess(login=name))


async def rotated(verbs: Verbs, name: str) -> None:
    await granted(verbs, name)
    await verbs.access_rotate(name)


async def put_role(verbs: Verbs, name: str) -> None:
    await verbs.role_put(name, "clerk", {"t": ["SELECT"]})


async def with_role(verbs: Verbs, name: str) -> None:
    await with_table(verbs, name)
    await put_role(verbs, name)


async def is_ready(verbs: Verbs, name: str, town: Town) -> None:
    assert (await verbs.tenant_get(name)).state is State.READY
    assert {f"{name}_owner", f"{name}_readwrite", f"{name}_readonly"} <= town.roles()
    assert name in town.schemas()


async def is_ready_apart(verbs: Verbs, name: str, town: Town) -> None:
    assert (await verbs.tenant_get(name)).state is State.READY
    with town.connect(database=f"town_{name}") as conn:
        conn.execute(f"CREATE TABLE {name}.t ()")


async def has_failed(verbs: Verbs, name: str, town: Town) -> None:
    tenant = await verbs.tenant_get(name)
    assert (tenant.state, tenant.failed_from) == (State.FAILED, State.PROVISIONING)
    assert not [role for role in town.roles() if role.startswith(name)]
    with town.connect() as conn:
        assert (
            conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", (f"town_{name}",)).fetchone() is None
        )


async def may(verbs: Verbs, name: str, town: Town) -> None:
    (access,) = await verbs.access_list(tenant=name)
    assert not access.pending
    with town.connect() as conn:
        query = "SELECT pg_has_role(%s, %s, 'SET')" if conn.info.server_version >= 160000 else "SELECT true"
        parameters = (name, access.server_role) if conn.info.server_version >= 160000 else ()
        assert conn.execute(query, parameters).fetchone() == (True,)
    async with verbs.context.store.read() as connection:
        assert await connection.fetchval("SELECT count(*) FROM login_secret") > 0


async def onboard(verbs: Verbs, name: str) -> None:
    await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=name))


async def is_onboard(verbs: Verbs, name: str, town: Town) -> None:
    assert (await verbs.tenant_get(name)).state is State.ACTIVE
    await may(verbs, name, town)


async def may_not(verbs: Verbs, name: str, town: Town) -> None:
    assert await verbs.access_list(tenant=name) == []
    assert name not in town.roles()
    with pytest.raises(Failure, match="no login"):
        await verbs.login_get(name)


async def has_two(verbs: Verbs, name: str, town: Town) -> None:
    async with verbs.context.store.read() as connection:
        login = await connection.fetchval("SELECT id FROM login WHERE name = $1", name)
        count = "SELECT count(*) FROM login_secret WHERE login = $1 AND NOT pending"
        assert await connection.fetchval(count, login) == 2
    assert {name, f"{name}~2"} <= town.roles()


async def has_one(verbs: Verbs, name: str, town: Town) -> None:
    assert name not in town.roles()
    assert f"{name}~2" in town.roles()


async def has_role(verbs: Verbs, name: str, town: Town) -> None:
    assert [role.name for role in await verbs.role_list(name)] == ["clerk"]
    with town.connect() as conn:
        query = f"SELECT has_table_privilege('{name}_clerk', '{name}.t', 'SELECT')"
        assert conn.execute(query).fetchone() == (True,)


async def has_no_role(verbs: Verbs, name: str, town: Town) -> None:
    assert await verbs.role_list(name) == []
    assert f"{name}_clerk" not in town.roles()


async def apart(verbs: Verbs, name: str) -> None:
    await verbs.tenant_create(NewTenant(name=name, database=f"town_{name}"))


async def impossible(verbs: Verbs, name: str) -> None:
    spec = Spec(extensions=["no_such_extension"])
    await verbs.tenant_create(NewTenant(name=name, database=f"town_{name}", spec=spec))


SCENARIOS = {
    "provision": Scenario(create, lambda verbs, name: verbs.tenant_provision(name), is_ready),
    "provision_apart": Scenario(apart, lambda verbs, name: verbs.tenant_provision(name), is_ready_apart),
    "provision_fails": Scenario(impossible, lambda verbs, name: verbs.tenant_provision(name), has_failed),
    "grant": Scenario(provisioned, lambda verbs, name: verbs.access_grant(name, NewAccess(login=name)), may),
    "onboard": Scenario(provisioned, onboard, is_onboard),
    "level": Scenario(
        granted,
        lambda verbs, name: verbs.access_grant(name, NewAccess(login=name, level=Level.READONLY)),
        may,
    ),
    "revoke": Scenario(granted, lambda verbs, name: verbs.access_revoke(name, name), may_not),
    "rotate": Scenario(granted, lambda verbs, name: verbs.access_rotate(name), has_two),
    "retire": Scenario(rotated, lambda verbs, name: verbs.access_rotate(name, end=True), has_one),
    "role": Scenario(
        with_table, lambda verbs, name: verbs.role_put(name, "clerk", {"t": ["SELECT"]}), has_role
    ),
    "unrole": Scenario(with_role, lambda verbs, name: verbs.role_delete(name, "clerk"), has_no_role),
}


def in_verbs(town: Town, work: Callable[[Verbs], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        config = Config.model_validate(town.config())
        async with await Context.open(config, "anna", connections=2) as context:
            return await work(Verbs(context))

    return asyncio.run(run())


def points(town: Town, scenario: Scenario) -> list[str]:
    seen: list[str] = []

    async def work(verbs: Verbs) -> None:
        await scenario.before(verbs, "p0")
        verbs.context.at_point = seen.append
        with suppress(Failure):  # of the one that is to fail
            await scenario.act(verbs, "p0")
        await scenario.holds(verbs, "p0", town)

    in_verbs(town, work)
    return seen


def killed(town: Town, scenario: Scenario, name: str, point: str) -> None:
    """A process does it and is gone at that point: no clean-up, no goodbye to any server."""

    async def work(verbs: Verbs) -> None:
        verbs.context.at_point = lambda reached: os._exit(KILLED) if reached == point else None
        await scenario.act(verbs, name)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            in_verbs(town, work)
        finally:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == KILLED, f"not killed at {point}"


def kill_everywhere(town: Town, scenario: Scenario) -> None:
    for number, point in enumerate(points(town, scenario), start=1):
        name = f"p{number}"
        in_verbs(town, partial(scenario.before, name=name))
        killed(town, scenario, name, point)

        async def go_on(verbs: Verbs, name: str = name, point: str = point) -> None:
            async with verbs.context.store.read() as connection:
                await connection.execute("UPDATE job SET lease_until = now() WHERE lease_until IS NOT NULL")
            await upkeep(verbs.context)
            assert [job for job in await verbs.job_list() if job.is_open] == [], point
            await scenario.holds(verbs, name, town)
            assert (await verbs.audit_verify()).ok

        in_verbs(town, go_on)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", SCENARIOS)
def test_killed_at_every_point(town, kind):
    kill_everywhere(town, SCENARIOS[kind])
