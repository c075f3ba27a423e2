"""Tenants as they are declared in files: what differs from the catalog, and how that is made so.

    plans:
      - name: standard
        spec: {max_clients: 50}
    tenants:
      - name: acme
        plan: standard
        labels: {region: eu}
        spec: {pool: {max: 10}}
        state: active              # or ready, suspended
        access:                    # all of it; without the key who has access stays as it is
          - {login: alice, level: owner}

`difference` is pure but for what it reads through the verbs, `make` calls the verbs; so both work with the
catalog here and with an API alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml
from pydantic import Field

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Access, Level, Login, Name, Plan, Record, Spec, Tenant, parse
from tenant_proxy.catalog.states import State
from tenant_proxy.config.schema import PgName
from tenant_proxy.lifecycle.records import Granted, NewAccess, NewTenant

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.door import Door

#: tenants that are worked on at once
PARALLEL: Final = 4


class DeclaredAccess(Record):
    login: PgName
    level: Level = Level.OWNER
    role: str = ""
    expires_at: datetime | None = None
    addresses: list[str] = Field(default_factory=list)
    service: bool = False


class DeclaredPlan(Record):
    name: Name
    description: str = ""
    spec: Spec = Spec()
    billing: dict[str, Any] = Field(default_factory=dict)


class DeclaredTenant(NewTenant):
    state: Literal["ready", "active", "suspended"] = "active"
    reason: str = ""
    """Why it is suspended."""
    access: list[DeclaredAccess] | None = None

    def new(self) -> NewTenant:
        return NewTenant.model_validate({key: getattr(self, key) for key in NewTenant.model_fields})


class Declared(Record):
    """A file."""

    plans: list[DeclaredPlan] = Field(default_factory=list)
    tenants: list[DeclaredTenant] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as declared."""

    #: "+" is made, "~" changed, "-" taken away, "?" left as it is
    sign: Literal["+", "~", "-", "?"]
    kind: Literal["plan", "tenant", "access"]
    name: str
    #: what about it, for people
    details: tuple[str, ...] = ()
    #: how it is made so
    make: Callable[[Door], Awaitable[Granted | object]] | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        return {"sign": self.sign, "kind": self.kind, "name": self.name, "details": list(self.details)}


# --- reading ------------------------------------------------------------------------------------------


def read(paths: Sequence[Path]) -> Declared:
    """Files, and all *.yaml and *.yml in directories; Failure (invalid) names the file."""
    plans: dict[str, DeclaredPlan] = {}
    tenants: dict[str, DeclaredTenant] = {}
    for path in _files(paths):
        try:
            documents = [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one is not None]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Failure("invalid", f"{path}: {' '.join(str(error).split())}") from None
        for document in documents:
            if not isinstance(document, Mapping):
                raise Failure("invalid", f"{path}: has neither plans nor tenants")
            try:
                found = parse(Declared, document)
            except Failure as failure:
                raise Failure("invalid", f"{path}: {failure.message}", detail=failure.detail) from None
            for plan in found.plans:
                _once(plans, plan.name, plan, path)
            for tenant in found.tenants:
                _once(tenants, tenant.name, tenant, path)
    return Declared(plans=list(plans.values()), tenants=list(tenants.values()))


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(one for one in path.rglob("*") if one.suffix in (".yaml", ".yml"))
        elif path.exists():
            found.append(path)
        else:
            raise Failure("not_found", f"there is no file {path}")
    return found


def _once(known: dict[str, Any], name: str, value: object, path: Path) -> None:
    if name in known:
        raise Failure("invalid", f'{path}: "{name}" is declared twice')
    known[name] = value


# --- the difference -----------------------------------------------------------------------------------


async def difference(verbs: Door, declared: Declared, *, prune: bool = False) -> list[Change]:
    """In the order in which it is to be made.  Tenants that are nowhere declared are left, or deleted with
    `prune`.
    """
    plans = {plan.name: plan for plan in await verbs.plan_list()}
    tenants = {tenant.name: tenant for tenant in await verbs.tenant_list()}
    access: dict[str, dict[str, Access]] = {}
    for one in await verbs.access_list():
        access.setdefault(one.tenant, {})[one.login] = one
    changes = [change for plan in declared.plans for change in _plan_changes(plans.get(plan.name), plan)]
    for wanted in declared.tenants:
        known = plans.keys() | {plan.name for plan in declared.plans}
        if wanted.plan is not None and wanted.plan not in known:
            raise Failure("not_found", f'tenant "{wanted.name}": there is no plan "{wanted.plan}"')
        has = access.get(wanted.name, {})
        changes += _tenant_changes(tenants.get(wanted.name), wanted, has)
        changes += [change for one in wanted.access or () async for change in _places(verbs, one, has)]
    for name in sorted(tenants.keys() - {tenant.name for tenant in declared.tenants}):
        changes += _undeclared(tenants[name], prune)
    return changes


def _plan_changes(now: Plan | None, wanted: DeclaredPlan) -> list[Change]:
    plan = Plan(name=wanted.name, description=wanted.description, spec=wanted.spec, billing=wanted.billing)

    async def make(verbs: Door) -> Plan:
        return await verbs.plan_put(plan, version=None if now is None else now.version)

    if now is None:
        return [Change("+", "plan", wanted.name, tuple(_flat(wanted.spec)), make)]
    details = [*_differences(now.spec, wanted.spec)]
    if now.description != wanted.description:
        details.append(f"description: {now.description!r} → {wanted.description!r}")
    if now.billing != wanted.billing:
        details.append("billing")
    return [Change("~", "plan", wanted.name, tuple(details), make)] if details else []


def _tenant_changes(now: Tenant | None, wanted: DeclaredTenant, has: Mapping[str, Access]) -> list[Change]:
    changes: list[Change] = []
    if now is None or now.state in (State.DRAFT, State.FAILED):
        details = (f"plan: {wanted.plan or 'none'}", *_flat(wanted.spec), f"state: {wanted.state}")
        changes.append(Change("+", "tenant", wanted.name, details, _creating(wanted)))
        return changes + _access_changes(wanted, {})
    if now.state in (State.DELETING, State.PROVISIONING):
        hint = " (tenant restore takes that back)" if now.state is State.DELETING else ""
        return [Change("?", "tenant", wanted.name, (f"it is {now.state.value}{hint}",))]
    for key in ("cluster", "schema_", "database"):
        asked, found = getattr(wanted, key), getattr(now, key)
        if asked is not None and asked != found:
            note = f"{key.rstrip('_')}: {found} stays, {asked} is declared"
            changes.append(Change("?", "tenant", wanted.name, (note,)))
    details = (
        *([f"plan: {now.plan or 'none'} → {wanted.plan or 'none'}"] if now.plan != wanted.plan else []),
        *([f"labels: {_said(now.labels)} → {_said(wanted.labels)}"] if now.labels != wanted.labels else []),
        *([f"sni: {_listed(now.sni)} → {_listed(wanted.sni)}"] if now.sni != wanted.sni else []),
        *_differences(now.spec, wanted.spec),
    )
    if details:
        changes.append(Change("~", "tenant", wanted.name, details, _setting(now, wanted)))
    if now.state.value != wanted.state:
        text = f"state: {now.state.value} → {wanted.state}"
        if wanted.state == "ready":
            changes.append(Change("?", "tenant", wanted.name, (f"{text} is not possible",)))
        else:
            changes.append(Change("~", "tenant", wanted.name, (text,), _moving(now.state, wanted)))
    return changes + _access_changes(wanted, has)


def _creating(wanted: DeclaredTenant) -> Callable[[Door], Awaitable[object]]:
    async def make(verbs: Door) -> Tenant:
        await verbs.tenant_create(wanted.new())
        tenant = await verbs.tenant_provision(wanted.name)
        if wanted.state != "ready":
            tenant = await verbs.tenant_activate(wanted.name)
        if wanted.state == "suspended":
            tenant = await verbs.tenant_suspend(wanted.name, wanted.reason)
        return tenant

    return make


def _setting(now: Tenant, wanted: DeclaredTenant) -> Callable[[Door], Awaitable[object]]:
    async def make(verbs: Door) -> Tenant:
        return await verbs.tenant_set(
            wanted.name,
            plan=wanted.plan or "",
            labels={**dict.fromkeys(now.labels), **wanted.labels},
            sni=wanted.sni,
            spec=_replacing(now.spec.given(), wanted.spec.given()),
            version=now.version,
        )

    return make


def _replacing(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A patch after which there is nothing but what is wanted."""
    patch: dict[str, Any] = {**dict.fromkeys(now), **wanted}
    for key, value in wanted.items():
        if isinstance(value, Mapping) and isinstance(now.get(key), Mapping):
            patch[key] = {**dict.fromkeys(now[key]), **value}
    return patch


def _moving(now: State, wanted: DeclaredTenant) -> Callable[[Door], Awaitable[object]]:
    async def make(verbs: Door) -> Tenant:
        if wanted.state == "suspended":
            if now is State.READY:
                await verbs.tenant_activate(wanted.name)
            return await verbs.tenant_suspend(wanted.name, wanted.reason)
        if now is State.SUSPENDED:
            return await verbs.tenant_resume(wanted.name)
        return await verbs.tenant_activate(wanted.name)

    return make


def _access_changes(wanted: DeclaredTenant, has: Mapping[str, Access]) -> list[Change]:
    if wanted.access is None:
        return []
    changes: list[Change] = []
    declared = {one.login: one for one in wanted.access}
    for login, one in declared.items():
        new = NewAccess.model_validate({**one.model_dump(), "level": Level.CUSTOM if one.role else one.level})
        now = has.get(login)
        may = one.role or one.level.value
        until = _until(one.expires_at)
        name = f"{login} on {wanted.name}"

        async def make(verbs: Door, new: NewAccess = new) -> Granted:
            return await verbs.access_grant(wanted.name, new)

        if now is None:
            changes.append(Change("+", "access", name, (f"{may}{until}",), make))
        elif (now.level, now.role, now.expires_at) != (new.level, one.role, one.expires_at):
            details = (f"{now.role or now.level.value}{_until(now.expires_at)} → {may}{until}",)
            changes.append(Change("~", "access", name, details, make))
    for login in sorted(has.keys() - declared.keys()):

        async def revoke(verbs: Door, login: str = login) -> None:
            await verbs.access_revoke(wanted.name, login)

        changes.append(Change("-", "access", f"{login} on {wanted.name}", (), revoke))
    return changes


def _until(expires_at: datetime | None) -> str:
    return f" until {expires_at:%Y-%m-%d}" if expires_at else ""


async def _places(verbs: Door, wanted: DeclaredAccess, has: Mapping[str, Access]) -> AsyncIterator[Change]:
    """Where a login that is there may come from, where that is declared."""
    if not wanted.addresses or wanted.login not in has:
        return
    from tenant_proxy.lifecycle.granting import networks

    declared = networks(wanted.addresses)
    now = (await verbs.login_get(wanted.login)).addresses
    if sorted(now) != sorted(declared):
        details = (f"from: {_listed(now)} → {_listed(declared)}",)
        name = f"{wanted.login} on {has[wanted.login].tenant}"

        async def make(verbs: Door) -> Login:
            return await verbs.login_set(wanted.login, addresses=declared)

        yield Change("~", "access", name, details, make)


def _undeclared(tenant: Tenant, prune: bool) -> list[Change]:
    if tenant.state is State.DELETING:
        return []
    if not prune:
        return [Change("?", "tenant", tenant.name, ("it is declared nowhere",))]

    async def make(verbs: Door) -> Tenant:
        return await verbs.tenant_delete(tenant.name, "no longer declared")

    return [Change("-", "tenant", tenant.name, ("it is declared nowhere",), make)]


def _said(labels: Mapping[str, str]) -> str:
    return _listed(sorted(f"{name}={value}" for name, value in labels.items()))


def _listed(texts: Sequence[str]) -> str:
    return " ".join(texts) or "none"


def _flat(spec: Spec) -> list[str]:
    return [f"{key}: {value}" for key, value in _keys(spec).items()]


def _differences(now: Spec, wanted: Spec) -> list[str]:
    before, after = _keys(now), _keys(wanted)
    plans = "not its own"
    return [
        f"{key}: {before.get(key, plans)} → {after.get(key, plans)}"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def _keys(spec: Spec) -> dict[str, Any]:
    """As they are set, `pool.max` and the like."""
    found: dict[str, Any] = {}
    for key, value in spec.given().items():
        if isinstance(value, Mapping) and value:
            found |= {f"{key}.{inner}": one for inner, one in value.items()}
        else:
            found[key] = value
    return found


# --- making it so -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Made:
    done: list[Change] = field(default_factory=list)
    failed: list[tuple[Change, Failure]] = field(default_factory=list)
    #: of logins that are new: their DSNs, with passwords that are kept nowhere
    granted: list[Granted] = field(default_factory=list)


async def make(
    verbs: Door, changes: Sequence[Change], on_done: Callable[[Change], None] = lambda change: None
) -> Made:
    """Plans first, then tenants, some at once; what fails for one tenant does not stop the others."""
    made = Made()
    places = asyncio.Semaphore(PARALLEL)

    async def one_after_another(of_one: Sequence[Change]) -> None:
        async with places:
            for change in of_one:
                assert change.make is not None
                try:
                    answer = await change.make(verbs)
                except Failure as failure:
                    made.failed.append((change, failure))
                    return
                if isinstance(answer, Granted) and answer.password is not None:
                    made.granted.append(answer)
                made.done.append(change)
                on_done(change)

    todo = [change for change in changes if change.make is not None]
    plans = [change for change in todo if change.kind == "plan"]
    await one_after_another(plans)
    by_tenant: dict[str, list[Change]] = {}
    for change in todo:
        if change.kind != "plan":
            by_tenant.setdefault(change.name.rpartition(" on ")[2], []).append(change)
    await asyncio.gather(*(one_after_another(ones) for ones in by_tenant.values()))
    return made
