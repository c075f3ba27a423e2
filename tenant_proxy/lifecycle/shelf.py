"""Archives and migrations that the API keeps beside it, below the directory that `lifecycle.directory` names.

    archives/NAME          as `tenant export` writes them, or as somebody has sent them
    migrations/DIGEST/     the files of one set of versions, so that a job can be gone on with

Names are plain ones: nobody who may use the API reaches another file of the machine by it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tenant_proxy.catalog.failures import Failure, not_found
from tenant_proxy.lifecycle.private import created, partial_of
from tenant_proxy.lifecycle.records import Kept

if TYPE_CHECKING:
    from tenant_proxy.config.schema import Config

ARCHIVE_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
FILE_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.sql$"
#: what was left of one that was being sent when the machine stopped goes after so long
_PART_S: Final = 86400.0


class Shelf:
    def __init__(self, config: Config) -> None:
        directory = config.lifecycle.directory
        self._directory = None if directory is None else Path(directory)
        self._max_bytes = config.lifecycle.archive_bytes

    # --- archives

    def new(self, name: str) -> Path:
        """Where one of this name is to be written; Failure (exists) if there is one."""
        path = self._archives(make=True) / _plain(name)
        if path.exists():
            raise Failure("exists", f'there is an archive "{name}" already', hint="delete it first")
        return path

    def find(self, name: str) -> Path:
        if self._directory is None or not re.fullmatch(ARCHIVE_NAME, name):
            not_found("archive", name)
        path = self._archives() / name
        return path if path.is_file() else not_found("archive", name)

    def names(self) -> list[Kept]:
        if self._directory is None:
            return []
        try:
            entries = [entry for entry in os.scandir(self._archives()) if entry.is_file()]
        except FileNotFoundError:
            return []
        found = [_kept(one.name, one.stat()) for one in entries if re.fullmatch(ARCHIVE_NAME, one.name)]
        return sorted(found, key=lambda one: one.name)

    def delete(self, name: str) -> None:
        self.find(name).unlink()

    async def take(self, name: str, parts: AsyncIterable[bytes]) -> Kept:
        """What is being sent; there is nothing of this name before all of it has come."""
        path = self.new(name)
        self._forget_parts()
        partial = partial_of(path)
        size = 0
        try:
            with created(partial) as file:
                async for part in parts:
                    size += len(part)
                    if size > self._max_bytes:
                        text = f"the archive has more than {self._max_bytes} bytes"
                        raise Failure("invalid", text, hint="lifecycle.archive_bytes")
                    await asyncio.to_thread(file.write, part)
                await asyncio.to_thread(_sync, file)
            try:
                os.link(partial, path)  # as rename does, but for one that has come meanwhile
            except FileExistsError:
                raise Failure("exists", f'there is an archive "{name}" already') from None
        except OSError as error:
            raise Failure("refused", f"the archive can't be kept: {error.strerror}") from None
        finally:
            partial.unlink(missing_ok=True)
        return _kept(name, path.stat())

    def _forget_parts(self) -> None:
        for partial in self._archives().glob(".*.part"):
            with suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > _PART_S:
                    partial.unlink()

    # --- migrations

    def migrations(self, files: Mapping[str, str]) -> Path:
        """A directory that has these files and no others."""
        digest = hashlib.sha256()
        for name, text in sorted(files.items()):
            if not re.fullmatch(FILE_NAME, name):
                raise Failure("invalid", f'"{name[:80]}" is no name of a migration', hint="V001__name.up.sql")
            digest.update(f"{name}\0{text}\0".encode())
        path = self._made("migrations") / digest.hexdigest()[:32]
        if not path.is_dir():
            partial = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
            partial.mkdir(mode=0o700)
            for name, text in files.items():
                (partial / name).write_text(text, encoding="utf-8")
            try:
                partial.rename(path)
            except OSError:  # another was first, with the same files
                for file in partial.iterdir():
                    file.unlink()
                partial.rmdir()
        return path

    # --- directories

    def _archives(self, *, make: bool = False) -> Path:
        if make:
            return self._made("archives")
        assert self._directory is not None
        return self._directory / "archives"

    def _made(self, name: str) -> Path:
        if self._directory is None:
            raise Failure(
                "invalid",
                "this API keeps no archives and no migrations",
                hint="lifecycle: {directory: DIR} in its configuration",
            )
        path = self._directory / name
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Failure("refused", f"lifecycle.directory can't be used: {error.strerror}") from None
        return path


def _plain(name: str) -> str:
    if not re.fullmatch(ARCHIVE_NAME, name):
        raise Failure("invalid", "an archive's name has letters, digits, dots, dashes and underscores alone")
    return name


def _kept(name: str, known: os.stat_result) -> Kept:
    return Kept(name=name, bytes=known.st_size, kept_at=datetime.fromtimestamp(known.st_mtime, UTC))


def _sync(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())
