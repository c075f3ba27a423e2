"""The part of the client that is about whole tenants, their archives, and migrations of all of them."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tenant_proxy.api.asking import Asking, of_tenant, parsed, part
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Job
from tenant_proxy.lifecycle.private import created, partial_of
from tenant_proxy.lifecycle.records import Problem, Standing, Version

_CHUNK: Final = 1 << 18


class EstateClient(Asking):
    async def tenant_clone(
        self,
        name: str,
        new: str,
        *,
        cluster: str | None = None,
        database: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        accept: bool = False,
    ) -> Job:
        body = {"name": new, "cluster": cluster, "database": database, "labels": labels, "accept": accept}
        return await self._job(of_tenant(name, "clone"), body)

    async def tenant_move(
        self,
        name: str,
        cluster: str,
        *,
        pause_s: float | None = None,
        force: bool = False,
        version: int | None = None,
    ) -> Job:
        body = {"cluster": cluster, "pause_s": pause_s, "force": force}
        return await self._job(of_tenant(name, "move"), body, version=version)

    async def tenant_move_confirm(self, name: str) -> Job | None:
        done = await self._work("POST", of_tenant(name, "move/confirm"))
        return done if done is None or isinstance(done, Job) else parsed(Job, done)

    async def tenant_scan(self, name: str, logins: Sequence[str] = ()) -> list[Problem]:
        answer = await self._ask("GET", of_tenant(name, "scan"), query={"login": list(logins)})
        return [Problem(**one) for one in answer.body["items"]]

    async def tenant_adopt(
        self, name: str, *, logins: Sequence[str] = (), accept: bool = False, version: int | None = None
    ) -> Job:
        return await self._job(
            of_tenant(name, "adopt"), {"logins": list(logins), "accept": accept}, version=version
        )

    async def tenant_erase(
        self, name: str, *, at_once: bool = False, cascade: bool = False, version: int | None = None
    ) -> Job:
        return await self._job(
            of_tenant(name, "erase"), {"at_once": at_once, "cascade": cascade}, version=version
        )

    async def erasure_record(self, name: str) -> dict[str, Any]:
        return dict((await self._ask("GET", f"/erasures/{part(name)}")).body)

    # --- archives: they are here, and with the API only as long as it works on them

    async def tenant_export(self, name: str, path: str, *, pass_phrase: str | None = None) -> Job:
        archive = _passing_name()
        body = {"archive": archive, "pass_phrase": pass_phrase}
        try:
            job = await self._job(of_tenant(name, "export"), body)
            await asyncio.to_thread(self._fetch, f"/archives/{archive}", Path(path))
        finally:
            await self._forget(archive)
        return job.model_copy(update={"result": {**(job.result or {}), "path": path}})

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
    ) -> Job:
        archive = _passing_name()
        body = {
            "archive": archive,
            "name": name,
            "cluster": cluster,
            "database": database,
            "schema": schema,
            "labels": None if labels is None else dict(labels),
            "pass_phrase": pass_phrase,
            "accept": accept,
        }
        try:
            await asyncio.to_thread(self._bring, f"/archives/{archive}", Path(path))
            return await self._job("/imports", body)
        finally:
            await self._forget(archive)

    async def _forget(self, archive: str) -> None:
        try:
            await self._ask("DELETE", f"/archives/{archive}", really=True)
        except Failure as failure:  # there is none where it failed before; what failed first is told
            if failure.code not in ("not_found", "unavailable"):
                raise

    def _fetch(self, path: str, target: Path) -> None:
        """The file is there when all of it is."""
        partial = partial_of(target)
        with self._streaming("GET", path) as response:
            wanted = int(response.headers["content-length"] or -1)
            try:
                with created(partial) as file:
                    while part := response.read(_CHUNK):
                        file.write(part)
                    if file.tell() != wanted:
                        raise Failure("unavailable", "the archive has not come whole")
                    self._tell("download", wanted, wanted)
                os.replace(partial, target)
            except OSError as error:
                raise Failure("invalid", f"{target}: {error.strerror or error}") from None
            finally:
                partial.unlink(missing_ok=True)

    def _bring(self, path: str, source: Path) -> None:
        try:
            file = open(source, "rb")  # noqa: SIM115
        except OSError as error:
            raise Failure("not_found", f"{source}: {error.strerror}") from None
        with file:
            size = os.fstat(file.fileno()).st_size
            headers = {"Content-Type": "application/x-tar", "Content-Length": str(size)}
            with self._streaming("PUT", path, file, headers):
                self._tell("upload", size, size)

    # --- migrations

    async def migrate(self, what: str, **params: Any) -> Job:
        if what not in ("up", "down"):
            raise Failure(
                "invalid",
                "tools are run where the configuration is, not by the API",
                hint="without --url and TENANT_PROXY_URL",
            )
        given = {key: value for key, value in params.items() if value is not None}
        files = await asyncio.to_thread(_files, str(given.pop("directory")))
        return await self._job("/migrations", {"what": what, "files": files, **given})

    async def migrate_status(
        self, directory: str, tenants: Sequence[str] = ()
    ) -> tuple[list[Standing], list[Version]]:
        files = await asyncio.to_thread(_files, directory)
        body = {"files": files, "tenants": list(tenants) or None}
        answer = await self._ask("POST", "/migrations/status", body)
        return (
            [parsed(Standing, one) for one in answer.body["items"]],
            [parsed(Version, one) for one in answer.body["versions"]],
        )


def _passing_name() -> str:
    return f"passing-{uuid.uuid4().hex}.tar"


def _files(directory: str) -> dict[str, str]:
    path = Path(directory)
    if not path.is_dir():
        raise Failure("invalid", f"there is no directory {directory}")
    try:
        return {one.name: one.read_text("utf-8") for one in sorted(path.glob("*.sql"))}
    except (OSError, UnicodeDecodeError) as error:
        raise Failure("invalid", f"{directory}: {error}") from None
