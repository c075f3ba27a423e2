"""Whole tenants to archives and from them, and migrations of all of them.

Archives and migrations are kept beside the API (`lifecycle.directory`), so that jobs can be gone on with.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import Path, Request
from fastapi.responses import FileResponse, Response
from pydantic import Field

from tenant_proxy.api.guarded import Rehearsed, answer_of, started, verbs_of
from tenant_proxy.api.routes.common import STARTED, DryRun, Key, Prefer, TenantPath, router
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Job, Name, Record
from tenant_proxy.config.schema import PgName
from tenant_proxy.lifecycle.records import Kept, Standing, Version
from tenant_proxy.lifecycle.shelf import ARCHIVE_NAME, Shelf

routes = router("estates")

MEDIA_TYPE = "application/x-tar"
_BINARY: dict[str, Any] = {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}

ArchivePath = Annotated[str, Path(description="Its name.", examples=["acme.tar"])]
ArchiveName = Annotated[str, Field(pattern=ARCHIVE_NAME)]
PassPhrase = Annotated[str | None, Field(repr=False, min_length=1, max_length=1000)]


class Archives(Record):
    items: list[Kept]


class Export(Record):
    archive: ArchiveName
    """Name of the archive, which there must not be yet."""
    pass_phrase: PassPhrase = None
    """What it is encrypted with; kept nowhere."""


class Import(Record):
    archive: ArchiveName
    name: Name | None = None
    """Of the new tenant; the archive's if null."""
    cluster: str | None = None
    database: PgName | None = None
    schema_: Annotated[PgName | None, Field(alias="schema")] = None
    labels: dict[str, str | None] | None = None
    pass_phrase: PassPhrase = None
    accept: bool = False
    """Also where some texts may name the schema that it came from."""


class Files(Record):
    files: dict[str, str]
    """Name of each file, as V001__orders.up.sql, and what is in it."""
    tenants: list[Name] | None = None
    """These alone."""


class Migration(Files):
    what: Literal["up", "down"] = "up"
    to: Annotated[int | None, Field(ge=0)] = None
    """Version to stop at; `down` must have one."""
    labels: dict[str, str] | None = None
    canaries: list[Name] | None = None
    """They go first, as do those labelled canary=true."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 8
    stop_at: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Nobody else is begun once such a share has failed."""
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    lock_timeout_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 2_000
    statement_timeout_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 0


class Standings(Record):
    versions: list[Version]
    items: list[Standing]


def _shelf(request: Request) -> Shelf:
    return Shelf(verbs_of(request).context.config)


# --- archives


@routes.post(
    "/tenants/{tenant}/export",
    response_model=Job,
    responses=STARTED,
    summary="Writes everything of a tenant into an archive",
)
async def tenant_export(
    request: Request, tenant: TenantPath, body: Export, key: Key = None, prefer: Prefer = None
) -> Response:
    """It is of one moment, and the tenant goes on meanwhile.  The archive is kept until it is deleted."""
    path = str(_shelf(request).new(body.archive))
    return await started(
        request, lambda verbs: verbs.tenant_export(tenant, path, pass_phrase=body.pass_phrase)
    )


@routes.post(
    "/imports", response_model=Job | Rehearsed, responses=STARTED, summary="Makes a tenant of an archive"
)
async def tenant_import(
    request: Request, body: Import, key: Key = None, prefer: Prefer = None, dry_run: DryRun = False
) -> Response:
    """Every row is checked against the archive.  The tenant is ready then; logins are granted anew."""
    path = str(_shelf(request).find(body.archive))
    return await started(
        request,
        lambda verbs: verbs.tenant_import(
            path,
            body.name,
            cluster=body.cluster,
            database=body.database,
            schema=body.schema_,
            labels=body.labels,
            pass_phrase=body.pass_phrase,
            accept=body.accept,
        ),
        dry_run=dry_run,
    )


@routes.get("/archives", response_model=Archives, summary="Archives that are kept")
async def archive_list(request: Request) -> Any:
    return Archives(items=await asyncio.to_thread(_shelf(request).names))


@routes.get(
    "/archives/{archive}",
    response_class=FileResponse,
    responses={200: {"content": _BINARY}},
    summary="An archive",
)
async def archive_get(request: Request, archive: ArchivePath) -> Response:
    path = _shelf(request).find(archive)
    await _log(request, "archive.read", archive)
    return FileResponse(path, media_type=MEDIA_TYPE)


@routes.put(
    "/archives/{archive}",
    response_model=Kept,
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": _BINARY}},
    summary="Sends an archive, to be imported",
)
async def archive_put(request: Request, archive: ArchivePath) -> Response:
    """It may be as long as `lifecycle.archive_bytes` says, and is not looked into before it is imported."""
    kept = await _shelf(request).take(archive, request.stream())
    await _log(request, "archive.put", archive)
    return answer_of(kept, 201)


@routes.delete("/archives/{archive}", status_code=204, summary="Takes an archive away")
async def archive_delete(request: Request, archive: ArchivePath) -> Response:
    _shelf(request).delete(archive)
    await _log(request, "archive.delete", archive)
    return Response(status_code=204)


async def _log(request: Request, action: str, name: str) -> None:
    """Who had a tenant's data."""
    context = verbs_of(request).context
    async with context.store.change(context.actor) as change:
        await change.audit(action, "archive", name)


# --- migrations


@routes.post("/migrations", response_model=Job | Rehearsed, responses=STARTED, summary="Migrates tenants")
async def migrate(
    request: Request, body: Migration, key: Key = None, prefer: Prefer = None, dry_run: DryRun = False
) -> Response:
    """Those that have had a version are passed over; the job's result says who has failed, and why."""
    if body.what == "down" and body.to is None:
        raise Failure("invalid", "what is undone is all that is newer than a version: give `to`")
    given = body.model_dump(exclude={"files", "what"}, exclude_none=True)
    directory = await asyncio.to_thread(_shelf(request).migrations, body.files)
    return await started(
        request, lambda verbs: verbs.migrate(body.what, directory=str(directory), **given), dry_run=dry_run
    )


@routes.post("/migrations/status", response_model=Standings, summary="Which versions tenants have had")
async def migrate_status(request: Request, body: Files) -> Any:
    directory = await asyncio.to_thread(_shelf(request).migrations, body.files)
    found, versions = await verbs_of(request).migrate_status(str(directory), body.tenants or ())
    return Standings(versions=versions, items=found)
