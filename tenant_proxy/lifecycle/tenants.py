"""Verbs about tenants and plans.  Each may be repeated: what is as asked for already is left as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

from tenant_proxy.catalog import effective, logins
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Plan, Spec, Tenant, parse
from tenant_proxy.catalog.states import PROVISIONED, State, conflict
from tenant_proxy.catalog.store import Change, check_version, find_plan
from tenant_proxy.config.schema import merged
from tenant_proxy.lifecycle import jobs, placement, server_settings, services
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.records import EffectiveValue, NewTenant, TenantDetails
from tenant_proxy.settings_policy import check_setting
from tenant_proxy.tenancy.space import space_of

#: how long a verb waits for another job on the same tenant
WAIT_S = 10.0


class TenantVerbs:
    def __init__(self, context: Context) -> None:
        self.context = context

    # --- plans

    async def plan_put(self, plan: Plan, *, version: int | None = None) -> Plan:
        """Makes it or sets it; its tenants have it at once."""
        if plan.billing:
            from tenant_proxy.lifecycle.usage import billing_of

            billing_of(plan)
        await self._check_plan(plan)
        async with self._change() as change:
            return await change.put_plan(plan, version)

    async def plan_get(self, name: str) -> Plan:
        return await self.context.store.plan(name)

    async def plan_list(self) -> list[Plan]:
        return await self.context.store.plans()

    async def plan_delete(self, name: str, *, version: int | None = None) -> None:
        """Failure (conflict) while a tenant has it."""
        async with self._change() as change:
            plan = await find_plan(change.connection, name, lock=True)
            check_version("plan", name, plan.version, version)
            tenants = await change.connection.fetchval("SELECT count(*) FROM tenant WHERE plan = $1", name)
            if tenants:
                hint = f"give them another: tenant-proxy tenant list --plan {name}"
                raise Failure("conflict", f'{tenants} tenants have the plan "{name}"', hint=hint)
            await change.connection.execute("DELETE FROM plan WHERE name = $1", name)
            said = {"description": plan.description, "spec": plan.spec.given(), "billing": plan.billing}
            await change.audit("plan.delete", "plan", name, said, None)

    # --- what there is

    async def tenant_get(self, name: str) -> Tenant:
        return await self.context.store.tenant(name)

    async def tenant_show(self, name: str) -> TenantDetails:
        store = self.context.store
        tenant = await store.tenant(name)
        found = effective.values(await store.plan_of(tenant), tenant.spec)
        async with store.read() as connection:
            access = await logins.accesses(connection, tenant=name)
        return TenantDetails(
            tenant=tenant,
            effective={key: EffectiveValue(value=one.value, source=one.source) for key, one in found.items()},
            access=access,
            job=await jobs.open_job(self.context, tenant.id),
        )

    async def tenant_list(
        self,
        *,
        states: Sequence[State] = (),
        plan: str | None = None,
        cluster: str | None = None,
        labels: Mapping[str, str] | None = None,
        prefix: str = "",
        after: str = "",
        limit: int | None = None,
    ) -> list[Tenant]:
        return await self.context.store.tenants(
            states=states,
            plan=plan,
            cluster=cluster,
            labels=labels,
            prefix=prefix,
            after=after,
            limit=limit,
        )

    # --- create and set

    async def tenant_create(self, new: NewTenant) -> Tenant:
        """A draft.  One that is there and as asked for is returned; Failure (exists) where it differs."""
        return (await self._create(new))[0]

    async def _create(self, new: NewTenant) -> tuple[Tenant, Spec | None]:
        """The tenant, and its effective values where they were looked up."""
        self._check_name(new.name)
        existing = await self.context.store.tenants(names=[new.name])
        if existing:
            return _same(existing[0], new), None
        cluster = await placement.choose(self.context, new.name, new.labels, new.cluster)
        plan = None if new.plan is None else await self.context.store.plan(new.plan)
        spec = effective.spec(plan, new.spec)
        columns: dict[str, Any] = {
            "name": new.name,
            "plan": new.plan,
            "labels": new.labels,
            "sni": new.sni,
            "spec": new.spec.given(),
            "cluster": cluster.name,
            "database": new.database,
            **placement.names(self.context.config, new.name, new.schema_, new.database),
        }
        if spec.own_database and new.database is None:
            columns["database"] = columns["schema"]
        if columns["database"] == cluster.database:
            raise Failure(
                "invalid", f'"{cluster.database}" is the database that the cluster\'s tenants share'
            )
        self._check_spec(spec, columns["schema"])
        await server_settings.check(self.context, cluster.name, spec.settings, columns["schema"])
        async with self.context.store.change(self.context.actor, alone=True) as change:
            return await change.insert_tenant(**columns), spec

    async def tenant_set(
        self,
        name: str,
        *,
        plan: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        sni: Sequence[str] | None = None,
        spec: Mapping[str, Any] | None = None,
        version: int | None = None,
    ) -> Tenant:
        """`labels` and `spec` are merged over what there is, null takes a key away; in pool, policy and
        settings key by key.  An empty `plan` is none.
        """
        async with self._change() as change:
            tenant = await change.tenant(name, version)
            columns: dict[str, Any] = {}
            if plan is not None:
                columns["plan"] = plan or None
                if plan:
                    await find_plan(change.connection, plan)
            if labels is not None:
                columns["labels"] = patched(tenant.labels, labels)
                placement.check_region(self.context.cluster(tenant.cluster), name, columns["labels"])
            if sni is not None:
                columns["sni"] = list(sni)
            if spec is not None:
                columns["spec"] = parse(Spec, patched_spec(tenant.spec, spec)).given()
            tenant = await change.update_tenant(tenant, "tenant.set", **columns)
            own = await find_plan(change.connection, tenant.plan) if tenant.plan else None
            found = effective.spec(own, tenant.spec)
            self._check_spec(found, tenant.schema_)
            if plan is not None or spec is not None:
                await server_settings.check(self.context, tenant.cluster, found.settings, tenant.schema_)
            return tenant

    async def tenant_rename(self, name: str, new: str, *, version: int | None = None) -> Tenant:
        """What clients call it, at once; its schema and its roles keep their names."""
        self._check_name(new)
        async with self._change() as change:
            if not await change.connection.fetchval(
                "SELECT true FROM tenant WHERE name = $1 AND state <> 'erased'", name
            ):
                done = await change.connection.fetchval(
                    "SELECT true FROM audit WHERE action = 'tenant.rename' AND name = $1"
                    " AND after ->> 'name' = $2 AND EXISTS (SELECT FROM tenant WHERE tenant.name = $2)",
                    name,
                    new,
                )
                if done:
                    return await change.tenant(new)
            tenant = await change.tenant(name, version)
            if tenant.state is State.ERASED:
                raise conflict(name, tenant.state)
            secret = self.context.config.secret
            # of its old name, so that those who wait on a lock or listen go on with those who come
            space = tenant.space or space_of(name, secret.reveal() if secret is not None else None)
            return await change.update_tenant(tenant, "tenant.rename", name=new, space=space)

    # --- from state to state

    async def tenant_provision(
        self, name: str, *, wait_s: float = WAIT_S, version: int | None = None
    ) -> Tenant:
        """Makes its objects; where they are made already its rights are laid anew."""
        return await self._provision(await self.context.store.tenant(name), wait_s, version)

    async def _provision(
        self, tenant: Tenant, wait_s: float, version: int | None = None, spec: Spec | None = None
    ) -> Tenant:
        name = tenant.name
        if tenant.state is State.PROVISIONING:  # whoever does it is waited for, or replaced
            await self._finish(tenant, wait_s)
            tenant = await self.context.store.tenant(name)
        if tenant.state is State.DELETING or tenant.failed_from is State.DELETING:
            raise conflict(name, tenant.state)
        if spec is None:
            spec = effective.spec(await self.context.store.plan_of(tenant), tenant.spec)
            services.check(spec.services or [])
        params: dict[str, Any] = {"spec": spec.given()}
        if tenant.state in PROVISIONED:
            params["repair"] = True
        job = await jobs.start(self.context, "provision", tenant, params, wait_s=wait_s, version=version)
        done = await jobs.through(self.context, job)
        return done.ended or await self.context.store.tenant(name)

    async def tenant_activate(self, name: str, *, version: int | None = None) -> Tenant:
        async with self._change() as change:
            tenant = await change.tenant(name, version)
            if tenant.state is State.ACTIVE:
                return tenant
            if tenant.state is not State.READY:
                raise conflict(name, tenant.state, "a tenant that is ready is activated")
            now = await change.now()
            return await change.update_tenant(tenant, "tenant.activate", state="active", activated_at=now)

    async def tenant_suspend(self, name: str, reason: str = "", *, version: int | None = None) -> Tenant:
        """New logins are refused with the reason; who is connected may stay for the grace time."""
        async with self._change() as change:
            tenant = await change.tenant(name, version)
            if tenant.state is State.SUSPENDED:
                return await change.update_tenant(tenant, "tenant.suspend", reason=reason or tenant.reason)
            if tenant.state is not State.ACTIVE:
                raise conflict(name, tenant.state, "an active tenant is suspended")
            now = await change.now()
            return await change.update_tenant(
                tenant, "tenant.suspend", state="suspended", suspended_at=now, reason=reason
            )

    async def tenant_resume(self, name: str, *, version: int | None = None) -> Tenant:
        async with self._change() as change:
            tenant = await change.tenant(name, version)
            if tenant.state is State.ACTIVE:
                return tenant
            if tenant.state is not State.SUSPENDED:
                raise conflict(name, tenant.state, "a suspended tenant is resumed")
            return await change.update_tenant(tenant, "tenant.resume", state="active", reason="")

    async def tenant_delete(
        self, name: str, reason: str = "", grace_s: float | None = None, *, version: int | None = None
    ) -> Tenant:
        """Its logins are refused from now on; it is erased when its grace is over.  A draft goes at once."""
        async with self._change() as change:
            tenant = await change.tenant(name, version)
            if tenant.state is State.DELETING:
                return tenant
            plan = await find_plan(change.connection, tenant.plan) if tenant.plan else None
            if grace_s is None:
                grace_s = float(effective.spec(plan, tenant.spec).delete_grace_s or 0)
            now = await change.connection.fetchval("SELECT clock_timestamp()")
            columns: dict[str, Any] = {"state": "deleting", "reason": reason, "failed_from": None}
            columns["erase_after"] = now + timedelta(seconds=grace_s)
            draft = tenant.state is State.DRAFT
            tenant = await change.update_tenant(tenant, "tenant.delete", **columns)
            if draft:
                tenant = await change.update_tenant(tenant, "tenant.erase", state="erased", erased_at=now)
            return tenant

    async def tenant_restore(self, name: str, *, version: int | None = None) -> Tenant:
        """Back from being deleted: suspended, with all it had."""
        async with self._change() as change:
            tenant = await change.tenant(name, version)
            if tenant.state is State.SUSPENDED:
                return tenant
            if tenant.state is not State.DELETING:
                raise conflict(name, tenant.state, "a tenant that is being deleted is restored", hint="")
            if await self._is_being_erased(change, tenant):
                raise Failure("busy", f'tenant "{name}" is being erased, it is too late')
            if tenant.provisioned_at is None:
                raise Failure(
                    "conflict", f'tenant "{name}" was never provisioned', hint="delete and create it"
                )
            now = await change.now()
            return await change.update_tenant(
                tenant,
                "tenant.restore",
                state="suspended",
                suspended_at=tenant.suspended_at or now,
                erase_after=None,
                reason="restored",
            )

    # --- helpers

    def _change(self) -> AbstractAsyncContextManager[Change]:
        return self.context.store.change(self.context.actor)

    async def _finish(self, tenant: Tenant, wait_s: float) -> None:
        """Waits for the job on a tenant; goes on with one that was left behind."""
        job = await jobs.open_job(self.context, tenant.id)
        if job is not None:
            await jobs.finish(self.context, job.id, wait_s)

    async def _is_being_erased(self, change: Change, tenant: Tenant) -> bool:
        return bool(
            await change.connection.fetchval(
                """SELECT true FROM job WHERE tenant = $1 AND kind = 'erase'
                      AND (state IN ('running', 'undoing') OR state = 'failed' AND position > 0)""",
                tenant.id,
            )
        )

    async def _check_plan(self, plan: Plan) -> None:
        """What can be told of it before a tenant has it."""
        if not plan.spec.settings:
            return
        self._check_spec(plan.spec, "")
        async with self.context.store.read() as connection:
            rows = await connection.fetch(
                "SELECT DISTINCT cluster FROM tenant WHERE plan = $1 AND state <> 'erased'", plan.name
            )
        placed = [row["cluster"] for row in rows]
        await server_settings.check_plan(self.context, plan.spec.settings, placed)

    def _check_name(self, name: str) -> None:
        if name.startswith("pg_"):
            raise Failure("invalid", 'names that begin with "pg_" are PostgreSQL\'s own')
        if any(tenant.name == name for tenant in self.context.config.tenants):
            raise Failure(
                "exists",
                f'there is a tenant "{name}" in the configuration file',
                hint="a tenant is in the file or in the catalog: take it out of the file first",
            )

    def _check_spec(self, spec: Spec, schema: str) -> None:
        """What no single key can tell."""
        policy = merged(self.context.config.policy, spec.policy or {})
        for name, value in (spec.settings or {}).items():
            refusal = check_setting(
                name, value, schema=schema, allowed_schemas=policy.allowed_schemas, denied=()
            )
            if refusal is not None:
                raise Failure("invalid", f"settings.{name}: {refusal.message}", hint=refusal.hint or "")
        merged(self.context.config.pool, spec.pool or {})
        services.check(spec.services or [])


def _same(tenant: Tenant, new: NewTenant) -> Tenant:
    asked: dict[str, Any] = {"plan": new.plan, "labels": new.labels, "sni": new.sni, "spec": new.spec}
    asked |= {"cluster": new.cluster or tenant.cluster, "schema_": new.schema_ or tenant.schema_}
    asked |= {"database": new.database or tenant.database}
    differs = [key.rstrip("_") for key, value in asked.items() if getattr(tenant, key) != value]
    if differs:
        raise Failure(
            "exists",
            f'there is a tenant "{tenant.name}", and it differs: {", ".join(differs)}',
            hint=f"change it: tenant-proxy tenant set {tenant.name} …",
        )
    return tenant


def patched(now: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON's merge patch does on one level: null takes away."""
    return {key: value for key, value in {**now, **patch}.items() if value is not None}


def patched_spec(now: Spec, patch: Mapping[str, Any]) -> dict[str, Any]:
    result = now.given()
    for key, value in patch.items():
        if key in effective.MERGED and isinstance(value, Mapping):
            inner = patched(result.get(key, {}), value)
            result[key] = inner or None
        else:
            result[key] = value
    return {key: value for key, value in result.items() if value is not None}
