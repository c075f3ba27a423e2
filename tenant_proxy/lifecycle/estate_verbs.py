"""Verbs about whole tenants: exported, imported, cloned, moved, adopted, erased, and all of them migrated.

What only some of them need is imported by them: the parser alone takes longer than onboarding a tenant.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenant_proxy.catalog import effective
from tenant_proxy.catalog.failures import Failure, not_found
from tenant_proxy.catalog.records import Job, JobState, Spec, Tenant
from tenant_proxy.catalog.states import State, conflict
from tenant_proxy.lifecycle import jobs, placement
from tenant_proxy.lifecycle.records import NewTenant, Problem, Standing, Version
from tenant_proxy.lifecycle.tenants import WAIT_S, TenantVerbs

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.archive import Manifest


class EstateVerbs(TenantVerbs):
    # --- to and from archives

    async def tenant_export(
        self, name: str, path: str, *, pass_phrase: str | None = None, wait_s: float = WAIT_S
    ) -> Job:
        """Writes the archive where the job runs; the job's result says what is in it."""
        tenant = await self.context.store.tenant(name)
        job = await jobs.start(self.context, "export", tenant, {"path": _whole(path)}, wait_s=wait_s)
        return await self._with_secret(job, pass_phrase)

    async def archive_show(self, path: str, *, pass_phrase: str | None = None) -> Manifest:
        """What an archive says of itself; its files are checked."""
        from tenant_proxy.lifecycle import restore
        from tenant_proxy.lifecycle.archive import ArchiveError

        try:
            return await asyncio.to_thread(restore.read_manifest, Path(_whole(path)), pass_phrase)
        except ArchiveError as error:
            raise Failure("invalid", str(error)) from error
        except OSError as error:
            raise Failure("not_found", f"{path}: {error.strerror}") from error

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
        wait_s: float = WAIT_S,
    ) -> Job:
        """Makes a tenant of an archive, by default under the name and with the settings it had.  It is ready
        then; logins have to be granted anew, as archives hold no secrets.
        """
        manifest = await self.archive_show(path, pass_phrase=pass_phrase)
        settings = manifest.settings
        plans = {plan.name for plan in await self.context.store.plans()}
        tenant = await self.tenant_create(
            NewTenant(
                name=name or manifest.tenant,
                plan=settings.get("plan") if settings.get("plan") in plans else None,
                labels=placement.copied_labels(name or manifest.tenant, settings.get("labels", {}), labels),
                cluster=cluster,
                database=database,
                schema_=schema,
                spec=Spec.model_validate(settings.get("spec", {})),
            )
        )
        archive = f"{manifest.tenant} {manifest.made_at}"
        if tenant.state not in (State.DRAFT, State.FAILED):
            done = await self._done("import", tenant)
            if done is not None and done.params.get("archive") == archive:
                return done
            raise conflict(tenant.name, tenant.state, "an archive is imported into a new tenant", hint="")
        params = {
            "path": _whole(path),
            "archive": archive,
            "accept": accept,
            "spec": await self._bare_spec(tenant),
            "custom_roles": manifest.custom_roles,
        }
        job = await jobs.start(self.context, "import", tenant, params, wait_s=wait_s)
        return await self._with_secret(job, pass_phrase)

    async def _with_secret(self, job: Job, pass_phrase: str | None) -> Job:
        if pass_phrase is not None:
            self.context.secrets[job.id] = pass_phrase
        try:
            return await jobs.run(self.context, job)
        finally:
            self.context.secrets.pop(job.id, None)

    async def _bare_spec(self, tenant: Tenant) -> dict[str, Any]:
        """Effective, without what would put objects into the schema."""
        spec = effective.spec(await self.context.store.plan_of(tenant), tenant.spec)
        return spec.model_copy(update={"template": None}).given()

    # --- to another name or place

    async def tenant_clone(
        self,
        name: str,
        new: str,
        *,
        cluster: str | None = None,
        database: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        accept: bool = False,
        wait_s: float = WAIT_S,
    ) -> Job:
        """A new tenant with everything that another has now, but its logins."""
        source = await self.context.store.tenant(name)
        tenant = await self.tenant_create(
            NewTenant(
                name=new,
                plan=source.plan,
                labels=placement.copied_labels(new, source.labels, labels),
                cluster=cluster or source.cluster,
                database=database,
                spec=source.spec,
            )
        )
        if tenant.state not in (State.DRAFT, State.FAILED):
            done = await self._done("clone", tenant)
            if done is not None and done.params.get("source") == source.id:
                return done
            raise conflict(tenant.name, tenant.state, "a clone is a new tenant", hint="")
        params = {"source": source.id, "accept": accept, "spec": await self._bare_spec(tenant)}
        job = await jobs.start(self.context, "clone", tenant, params, wait_s=wait_s)
        return await jobs.run(self.context, job)

    async def tenant_move(
        self,
        name: str,
        cluster: str,
        *,
        pause_s: float | None = None,
        force: bool = False,
        wait_s: float = WAIT_S,
        version: int | None = None,
    ) -> Job:
        """To another cluster.  Where it was, it is kept until `tenant_move_confirm`.

        What clients begin meanwhile waits, for `pause_s` at most; with `force`, sessions that hold a
        connection longer than the tenant's grace time end.
        """
        tenant = await self.context.store.tenant(name)
        if tenant.cluster == cluster:
            found = await self._last_move(tenant)
            if found is not None and found.params["cluster"] == cluster:
                return found  # it is there
        params: dict[str, Any] = {"cluster": cluster, "force": force}
        if pause_s is not None:
            params["pause_s"] = pause_s
        job = await jobs.start(self.context, "move", tenant, params, wait_s=wait_s, version=version)
        try:
            return await jobs.run(self.context, job)
        except Failure:
            stopped = await jobs.job(self.context, job.id)
            if stopped.state is JobState.FAILED and stopped.position < _SWITCHED:
                await jobs.undo(self.context, job.id)
            raise

    async def tenant_move_confirm(self, name: str, *, wait_s: float = WAIT_S) -> Job | None:
        """Takes away what was kept where the tenant was; None where nothing is."""
        tenant = await self.context.store.tenant(name)
        moved = await self._last_move(tenant)
        if moved is None:
            return None
        if moved.state is not JobState.DONE:
            raise Failure("conflict", f"job {moved.id}, the move, has not come to its end", job=moved.id)
        if moved.data["from"] == tenant.cluster:
            raise Failure("conflict", f'tenant "{name}" is where it was')
        params = {
            "cluster": moved.data["from"],
            "database": moved.data["from_database"],
            "own_database": moved.data["own_database"],
            "kept": moved.data["kept"],
        }
        job = await jobs.start(self.context, "forget", tenant, params, wait_s=wait_s)
        return await jobs.run(self.context, job)

    async def _last_move(self, tenant: Tenant) -> Job | None:
        return await self._last("tenant = $1 AND kind = 'move' AND state <> 'undone'", tenant.id)

    async def _done(self, kind: str, tenant: Tenant) -> Job | None:
        """What was asked for, and is so."""
        return await self._last("tenant = $1 AND kind = $2 AND state = 'done'", tenant.id, kind)

    async def _erased(self, name: str) -> Job | None:
        erased = "tenant IN (SELECT id FROM tenant WHERE name = $1 AND state = 'erased')"
        return await self._last(f"{erased} AND kind = 'erase' AND state = 'done'", name)

    async def _last(self, condition: str, *arguments: object) -> Job | None:
        """The newest job that is so."""
        async with self.context.store.read() as connection:
            row = await connection.fetchrow(
                f"SELECT * FROM job WHERE {condition} ORDER BY id DESC LIMIT 1", *arguments
            )
        return None if row is None else Job.of(row)

    # --- what was there before

    async def tenant_scan(self, name: str, logins: Sequence[str] = ()) -> list[Problem]:
        """What keeps its schema from being the tenant's alone, and the SQL that mends it."""
        from tenant_proxy.lifecycle import adopt

        return await adopt.scan(self.context, await self.context.store.tenant(name), logins)

    async def tenant_adopt(
        self,
        name: str,
        *,
        logins: Sequence[str] = (),
        accept: bool = False,
        wait_s: float = WAIT_S,
        version: int | None = None,
    ) -> Job:
        """Makes the schema that a draft names the tenant's own: mended, with its roles and rights."""
        tenant = await self.context.store.tenant(name)
        if tenant.state not in (State.DRAFT, State.FAILED):
            done = await self._done("adopt", tenant)
            if done is not None:
                return done
            raise conflict(name, tenant.state, "a draft adopts a schema", hint="")
        params = {"spec": await self._bare_spec(tenant), "logins": list(logins), "accept": accept}
        job = await jobs.start(self.context, "adopt", tenant, params, wait_s=wait_s, version=version)
        return await jobs.run(self.context, job)

    # --- for good

    async def tenant_erase(
        self,
        name: str,
        *,
        at_once: bool = False,
        cascade: bool = False,
        wait_s: float = WAIT_S,
        version: int | None = None,
    ) -> Job:
        """Of a deleted tenant whose grace is over, or `at_once`.  The job's result is the signed record."""
        try:
            tenant = await self.context.store.tenant(name)
        except Failure:
            done = await self._erased(name)
            if done is None:
                raise
            return done
        params = {"at_once": at_once, "cascade": cascade}
        job = await jobs.start(self.context, "erase", tenant, params, wait_s=wait_s, version=version)
        return await jobs.run(self.context, job)

    async def erasure_record(self, name: str) -> dict[str, Any]:
        """The record of the last tenant of this name that was erased."""
        async with self.context.store.read() as connection:
            found = await connection.fetchval(
                "SELECT after FROM audit WHERE action = 'tenant.erasure' AND name = $1"
                " ORDER BY id DESC LIMIT 1",
                name,
            )
        if found is None:
            not_found("record of an erasure of tenant", name)
        return dict(json.loads(found)) if isinstance(found, str) else dict(found)

    # --- all of them

    async def migrate(self, what: str, wait_s: float = WAIT_S, **params: Any) -> Job:
        """`up`, `down` or `exec`, with the parameters of `migrating`; the job's result is the report."""
        given = {key: value for key, value in params.items() if value is not None}
        job = await jobs.start(self.context, "migrate", None, {"what": what, **given}, wait_s=wait_s)
        return await jobs.run(self.context, job)

    async def migrate_status(
        self, directory: str, tenants: Sequence[str] = ()
    ) -> tuple[list[Standing], list[Version]]:
        from tenant_proxy.lifecycle import migrating

        found, files = await migrating.standings(self.context, directory, tenants)
        return found, [Version(version=one.version, name=one.name) for one in files]


#: steps of a move after which the tenant is on its new cluster
_SWITCHED = 3


def _whole(path: str) -> str:
    """Whoever goes on with a job may have been started elsewhere."""
    return os.path.abspath(path)
