"""What can be asked of the tenants' life, wherever it is: of the catalog here (`verbs`), or of an API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

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
    Problem,
    Rotated,
    Standing,
    TenantDetails,
    Verification,
    Version,
)
from tenant_proxy.lifecycle.usage import Invoice, Used


class Door(Protocol):
    """Each method is described where it is done, in `verbs`; all raise `Failure`."""

    async def plan_put(self, plan: Plan, *, version: int | None = None) -> Plan: ...
    async def plan_get(self, name: str) -> Plan: ...
    async def plan_list(self) -> list[Plan]: ...
    async def plan_delete(self, name: str, *, version: int | None = None) -> None: ...

    async def tenant_get(self, name: str) -> Tenant: ...
    async def tenant_show(self, name: str) -> TenantDetails: ...
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
    ) -> list[Tenant]: ...
    async def tenant_create(self, new: NewTenant) -> Tenant: ...
    async def tenant_set(
        self,
        name: str,
        *,
        plan: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        sni: Sequence[str] | None = None,
        spec: Mapping[str, Any] | None = None,
        version: int | None = None,
    ) -> Tenant: ...
    async def tenant_rename(self, name: str, new: str, *, version: int | None = None) -> Tenant: ...
    async def tenant_provision(self, name: str, *, version: int | None = None) -> Tenant: ...
    async def tenant_activate(self, name: str, *, version: int | None = None) -> Tenant: ...
    async def tenant_suspend(self, name: str, reason: str = "", *, version: int | None = None) -> Tenant: ...
    async def tenant_resume(self, name: str, *, version: int | None = None) -> Tenant: ...
    async def tenant_delete(
        self, name: str, reason: str = "", grace_s: float | None = None, *, version: int | None = None
    ) -> Tenant: ...
    async def tenant_restore(self, name: str, *, version: int | None = None) -> Tenant: ...
    async def tenant_clone(
        self,
        name: str,
        new: str,
        *,
        cluster: str | None = None,
        database: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        accept: bool = False,
    ) -> Job: ...
    async def tenant_move(
        self,
        name: str,
        cluster: str,
        *,
        pause_s: float | None = None,
        force: bool = False,
        version: int | None = None,
    ) -> Job: ...
    async def tenant_move_confirm(self, name: str) -> Job | None: ...
    async def tenant_scan(self, name: str, logins: Sequence[str] = ()) -> list[Problem]: ...
    async def tenant_adopt(
        self, name: str, *, logins: Sequence[str] = (), accept: bool = False, version: int | None = None
    ) -> Job: ...
    async def tenant_erase(
        self, name: str, *, at_once: bool = False, cascade: bool = False, version: int | None = None
    ) -> Job: ...
    async def tenant_export(self, name: str, path: str, *, pass_phrase: str | None = None) -> Job: ...
    async def tenant_import(
        self,
        path: str,
        name: str | None = None,
        *,
        cluster: str | None = None,
        database: str | None = None,
        schema: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        pass_phrase: str | None = None,
        accept: bool = False,
    ) -> Job: ...
    async def migrate(self, what: str, **params: Any) -> Job: ...
    async def migrate_status(
        self, directory: str, tenants: Sequence[str] = ()
    ) -> tuple[list[Standing], list[Version]]: ...
    async def erasure_record(self, name: str) -> dict[str, Any]: ...
    async def tenant_onboard(self, new: NewTenant, access: NewAccess) -> Onboarded: ...

    async def access_list(
        self,
        *,
        tenant: str | None = None,
        login: str | None = None,
        after: tuple[str, str] = ("", ""),
        limit: int | None = None,
    ) -> list[Access]: ...
    async def access_grant(self, tenant: str, new: NewAccess) -> Granted: ...
    async def access_revoke(self, tenant: str, login: str) -> None: ...
    async def access_rotate(
        self,
        login: str,
        *,
        password: str | None = None,
        overlap_s: float = 86400.0,
        end: bool = False,
        version: int | None = None,
    ) -> Rotated: ...
    async def login_get(self, name: str) -> Login: ...
    async def login_set(
        self,
        name: str,
        *,
        addresses: Sequence[str] | None = None,
        max_clients: int | None = None,
        disabled: bool | None = None,
        expires_at: datetime | Literal["never"] | None = None,
        version: int | None = None,
    ) -> Login: ...

    async def role_list(self, tenant: str) -> list[CustomRole]: ...
    async def role_put(self, tenant: str, name: str, grants: Mapping[str, Sequence[str]]) -> CustomRole: ...
    async def role_delete(self, tenant: str, name: str) -> None: ...

    async def job_list(
        self,
        *,
        tenant: str | None = None,
        state: JobState | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]: ...
    async def job_show(self, number: int) -> Job: ...
    async def job_resume(self, number: int) -> Job: ...
    async def job_undo(self, number: int) -> Job: ...

    async def audit_log(
        self, *, kind: str | None = None, name: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[AuditEntry]: ...
    async def audit_verify(self, expected: str | None = None) -> Verification: ...

    async def usage_show(
        self,
        since: datetime,
        until: datetime,
        *,
        tenants: Sequence[str] | None = None,
        every: Every = Every.ALL,
        after: tuple[datetime, str] | None = None,
        limit: int | None = None,
    ) -> list[Used]: ...
    async def usage_customers(self) -> dict[str, str]: ...
    async def usage_invoices(self, month: str, tenants: Sequence[str] | None = None) -> list[Invoice]: ...

    async def token_create(
        self, name: str, role: str, *, tenant: str | None = None, expires_at: datetime | None = None
    ) -> IssuedToken: ...
    async def token_list(self) -> list[Token]: ...
    async def token_revoke(self, name: str) -> None: ...

    async def webhook_add(self, name: str, url: str, events: list[str] | None = None) -> IssuedWebhook: ...
    async def webhook_list(self) -> list[Webhook]: ...
    async def webhook_remove(self, name: str) -> None: ...
    async def webhook_test(self, name: str) -> WebhookDelivery: ...
    async def webhook_deliveries(
        self, name: str, *, before: int | None = None, limit: int = 50
    ) -> list[WebhookDelivery]: ...
