"""The one door to the tenants' life: everything that the command line, the API and `apply` do.

    async with await Context.open(config) as context:
        verbs = Verbs(context)
        await verbs.tenant_onboard(NewTenant(name="acme", plan="standard"), NewAccess(login="acme"))

Methods take and return records, and raise `Failure`.  Each may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tenant_proxy.catalog import audit
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import AuditEntry, Job, JobState
from tenant_proxy.lifecycle import jobs
from tenant_proxy.lifecycle.estate_verbs import EstateVerbs
from tenant_proxy.lifecycle.granting import AccessVerbs
from tenant_proxy.lifecycle.records import Every, Verification
from tenant_proxy.lifecycle.tokens import TokenVerbs
from tenant_proxy.lifecycle.webhooks import WebhookVerbs

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.usage import Invoice, Used


class Verbs(AccessVerbs, EstateVerbs, TokenVerbs, WebhookVerbs):
    # --- the log

    async def audit_log(
        self, *, kind: str | None = None, name: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """The newest first."""
        return await self.context.store.audit(kind=kind, name=name, before=before, limit=limit)

    async def audit_verify(self, expected: str | None = None) -> Verification:
        async with self.context.store.read() as connection:
            found = await audit.verify(connection, expected)
        return Verification(
            ok=found.ok,
            entries=found.entries,
            head=found.head,
            broken_at=found.broken_at,
            problem=found.problem,
        )

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
        """What was used from `since` to before `until`, by these tenants or all; by time and tenant, behind
        `after`, which is one of both.
        """
        from tenant_proxy.lifecycle import usage

        return await usage.used(
            self.context.store, since, until, tenants=tenants, every=every, after=after, limit=limit
        )

    async def usage_invoices(self, month: str, tenants: Sequence[str] | None = None) -> list[Invoice]:
        """What a month (2026-11) comes to by the tenants' plans; nobody is charged."""
        from tenant_proxy.lifecycle import usage

        return await usage.invoices(self.context.store, month, tenants)

    async def usage_customers(self) -> dict[str, str]:
        """Tenant -> its customer at Stripe, of those with the label stripe_customer."""
        from tenant_proxy.lifecycle import usage

        return await usage.customers(self.context.store)

    # --- jobs

    async def job_list(
        self,
        *,
        tenant: str | None = None,
        state: JobState | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        return await jobs.jobs(self.context, tenant=tenant, state=state, before=before, limit=limit)

    async def job_show(self, number: int) -> Job:
        return await jobs.job(self.context, number)

    async def job_resume(self, number: int) -> Job:
        """Goes on with it here."""
        if self.context.rehearsal is None:
            return await jobs.run(self.context, number)
        before = await jobs.job(self.context, number)
        try:
            return await jobs.run(self.context, number)
        except Failure:  # that it ends undone is what its undoing is for
            ended = await jobs.job(self.context, number)
            if ended.state is not JobState.UNDONE or ended.error != before.error:
                raise
            return ended

    async def job_undo(self, number: int) -> Job:
        return await jobs.undo(self.context, number)
