"""The API's client: a Door, like the verbs where the catalog is.

client = Client("https://tenants.example.org", token)
await client.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from tenant_proxy.api.asking import given_of, match, of_tenant, parsed, part
from tenant_proxy.api.cursors import cursor_of, cursor_of_two
from tenant_proxy.api.estate_client import EstateClient
from tenant_proxy.catalog.records import (
    Access,
    AuditEntry,
    CustomRole,
    Job,
    JobState,
    Login,
    Plan,
    Tenant,
    Token,
    Webhook,
    WebhookDelivery,
)
from tenant_proxy.catalog.states import State
from tenant_proxy.lifecycle.records import (
    Every,
    Granted,
    IssuedToken,
    IssuedWebhook,
    NewAccess,
    NewTenant,
    Onboarded,
    Rotated,
    TenantDetails,
    Verification,
)
from tenant_proxy.lifecycle.usage import STRIPE_LABEL, Invoice, Used


class Client(EstateClient):
    # --- plans

    async def plan_put(self, plan: Plan, *, version: int | None = None) -> Plan:
        body = {
            key: value for key, value in plan.to_json().items() if key in ("description", "spec", "billing")
        }
        headers = {"If-None-Match": "*"} if version == 0 else match(version)
        return await self._record(Plan, "PUT", f"/plans/{part(plan.name)}", body, headers=headers)

    async def plan_get(self, name: str) -> Plan:
        return await self._record(Plan, "GET", f"/plans/{part(name)}")

    async def plan_list(self) -> list[Plan]:
        return await self._all(Plan, "/plans")

    async def plan_delete(self, name: str, *, version: int | None = None) -> None:
        await self._ask("DELETE", f"/plans/{part(name)}", headers=match(version))

    # --- tenants

    async def tenant_get(self, name: str) -> Tenant:
        return await self._record(Tenant, "GET", of_tenant(name))

    async def tenant_show(self, name: str) -> TenantDetails:
        return await self._record(TenantDetails, "GET", of_tenant(name, "details"))

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
        query = {
            "state": [state.value for state in states],
            "plan": plan,
            "cluster": cluster,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()],
            "prefix": prefix or None,
        }
        found = await self._pages(Tenant, "/tenants", query, None if after else limit)
        return [tenant for tenant in found if tenant.name > after][:limit]

    async def tenant_create(self, new: NewTenant) -> Tenant:
        return await self._record(Tenant, "POST", "/tenants", given_of(new))

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
        patch = {"plan": plan, "labels": labels, "sni": sni, "spec": spec}
        body = {key: value for key, value in patch.items() if value is not None}
        return await self._record(Tenant, "PATCH", of_tenant(name), body, headers=match(version))

    async def tenant_rename(self, name: str, new: str, *, version: int | None = None) -> Tenant:
        return await self._record(
            Tenant, "POST", of_tenant(name, "rename"), {"name": new}, headers=match(version)
        )

    async def tenant_provision(self, name: str, *, version: int | None = None) -> Tenant:
        done = await self._work("POST", of_tenant(name, "provision"), version=version)
        return await self.tenant_get(name) if isinstance(done, Job) else parsed(Tenant, done)

    async def tenant_activate(self, name: str, *, version: int | None = None) -> Tenant:
        return await self._record(Tenant, "POST", of_tenant(name, "activate"), headers=match(version))

    async def tenant_suspend(self, name: str, reason: str = "", *, version: int | None = None) -> Tenant:
        return await self._record(
            Tenant, "POST", of_tenant(name, "suspend"), {"reason": reason}, headers=match(version)
        )

    async def tenant_resume(self, name: str, *, version: int | None = None) -> Tenant:
        return await self._record(Tenant, "POST", of_tenant(name, "resume"), headers=match(version))

    async def tenant_delete(
        self, name: str, reason: str = "", grace_s: float | None = None, *, version: int | None = None
    ) -> Tenant:
        query = {"reason": reason or None, "grace_s": grace_s}
        return await self._record(Tenant, "DELETE", of_tenant(name), query=query, headers=match(version))

    async def tenant_restore(self, name: str, *, version: int | None = None) -> Tenant:
        return await self._record(Tenant, "POST", of_tenant(name, "restore"), headers=match(version))

    async def tenant_onboard(self, new: NewTenant, access: NewAccess) -> Onboarded:
        body = {"tenant": given_of(new), "access": given_of(access)}
        return await self._record(Onboarded, "POST", "/onboard", body)

    # --- access

    async def access_list(
        self,
        *,
        tenant: str | None = None,
        login: str | None = None,
        after: tuple[str, str] = ("", ""),
        limit: int | None = None,
    ) -> list[Access]:
        path = "/access" if tenant is None else of_tenant(tenant, "access")
        start = None if after == ("", "") else cursor_of_two(*after)
        return await self._pages(Access, path, {"login": login}, limit, start)

    async def access_grant(self, tenant: str, new: NewAccess) -> Granted:
        return await self._record(Granted, "POST", of_tenant(tenant, "access"), given_of(new))

    async def access_revoke(self, tenant: str, login: str) -> None:
        await self._ask("DELETE", of_tenant(tenant, f"access/{part(login)}"))

    async def access_rotate(
        self,
        login: str,
        *,
        password: str | None = None,
        overlap_s: float = 86400.0,
        end: bool = False,
        version: int | None = None,
    ) -> Rotated:
        body = {"password": password, "overlap_s": overlap_s, "end": end}
        return await self._record(
            Rotated, "POST", f"/logins/{part(login)}/rotate", body, headers=match(version)
        )

    async def login_get(self, name: str) -> Login:
        return await self._record(Login, "GET", f"/logins/{part(name)}")

    async def login_set(
        self,
        name: str,
        *,
        addresses: Sequence[str] | None = None,
        max_clients: int | None = None,
        disabled: bool | None = None,
        expires_at: datetime | Literal["never"] | None = None,
        version: int | None = None,
    ) -> Login:
        body = {
            "addresses": None if addresses is None else list(addresses),
            "max_clients": max_clients,
            "disabled": disabled,
            "expires_at": expires_at.isoformat() if isinstance(expires_at, datetime) else expires_at,
        }
        return await self._record(Login, "PATCH", f"/logins/{part(name)}", body, headers=match(version))

    # --- roles

    async def role_list(self, tenant: str) -> list[CustomRole]:
        return await self._all(CustomRole, of_tenant(tenant, "roles"))

    async def role_put(self, tenant: str, name: str, grants: Mapping[str, Sequence[str]]) -> CustomRole:
        body = {"grants": {table: list(rights) for table, rights in grants.items()}}
        return await self._record(CustomRole, "PUT", of_tenant(tenant, f"roles/{part(name)}"), body)

    async def role_delete(self, tenant: str, name: str) -> None:
        await self._ask("DELETE", of_tenant(tenant, f"roles/{part(name)}"))

    # --- jobs

    async def job_list(
        self,
        *,
        tenant: str | None = None,
        state: JobState | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        query = {"tenant": tenant, "state": None if state is None else state.value}
        return await self._pages(Job, "/jobs", query, limit, _cursor(before))

    async def job_show(self, number: int) -> Job:
        return await self._record(Job, "GET", f"/jobs/{number}")

    async def job_resume(self, number: int) -> Job:
        return await self._job(f"/jobs/{number}/resume")

    async def job_undo(self, number: int) -> Job:
        return await self._job(f"/jobs/{number}/undo", undo=True)

    # --- the log

    async def audit_log(
        self, *, kind: str | None = None, name: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        return await self._pages(AuditEntry, "/audit", {"kind": kind, "name": name}, limit, _cursor(before))

    async def audit_verify(self, expected: str | None = None) -> Verification:
        return await self._record(Verification, "GET", "/audit/verify", query={"head": expected})

    # --- usage

    async def usage_show(
        self,
        since: datetime,
        until: datetime,
        *,
        tenants: Sequence[str] | None = None,
        every: Every = Every.ALL,
        after: tuple[datetime, str] | None = None,
        limit: int | None = None,
    ) -> list[Used]:
        query = {
            "since": since.isoformat(),
            "until": until.isoformat(),
            "tenant": None if tenants is None else list(tenants),
            "every": every.value,
        }
        start = None if after is None else cursor_of_two(after[0].isoformat(), after[1])
        return [] if tenants == [] else await self._pages(Used, "/usage", query, limit, start)

    async def usage_invoices(self, month: str, tenants: Sequence[str] | None = None) -> list[Invoice]:
        query = {"month": month, "tenant": None if tenants is None else list(tenants)}
        return [] if tenants == [] else await self._all(Invoice, "/usage/invoices", query)

    async def usage_customers(self) -> dict[str, str]:
        tenants = sorted(await self.tenant_list(states=list(State)), key=lambda one: one.id)
        return {one.name: one.labels[STRIPE_LABEL] for one in tenants if STRIPE_LABEL in one.labels}

    # --- tokens

    async def token_create(
        self, name: str, role: str, *, tenant: str | None = None, expires_at: datetime | None = None
    ) -> IssuedToken:
        body = {"name": name, "role": role, "tenant": tenant}
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat()
        return await self._record(IssuedToken, "POST", "/tokens", body)

    async def token_list(self) -> list[Token]:
        return await self._all(Token, "/tokens")

    async def token_revoke(self, name: str) -> None:
        await self._ask("DELETE", f"/tokens/{part(name)}")

    # --- webhooks

    async def webhook_add(self, name: str, url: str, events: list[str] | None = None) -> IssuedWebhook:
        body = {"name": name, "url": url, "events": events or []}
        return await self._record(IssuedWebhook, "POST", "/webhooks", body)

    async def webhook_list(self) -> list[Webhook]:
        return await self._all(Webhook, "/webhooks")

    async def webhook_remove(self, name: str) -> None:
        await self._ask("DELETE", f"/webhooks/{part(name)}")

    async def webhook_test(self, name: str) -> WebhookDelivery:
        return await self._record(WebhookDelivery, "POST", f"/webhooks/{part(name)}/test")

    async def webhook_deliveries(
        self, name: str, *, before: int | None = None, limit: int = 50
    ) -> list[WebhookDelivery]:
        path = f"/webhooks/{part(name)}/deliveries"
        return await self._pages(WebhookDelivery, path, {}, limit, _cursor(before))


def _cursor(before: int | None) -> str | None:
    return None if before is None else cursor_of(before)
