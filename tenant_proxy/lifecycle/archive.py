"""An exported tenant: one tar file, which tar, psql and pg_restore can take apart.

manifest.json       what it is, where it comes from, each file's length and SHA-256, each table's rows
roles.sql           roles, memberships and their settings; no passwords
schema.dump         the schema with its data, in pg_dump's custom format
extras.sql          what pg_dump leaves out of a schema: casts, default privileges, rights elsewhere
large_objects.sql   those of the tenant's roles, if there are any
RESTORE.txt         how to restore it by hand
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tenant_proxy.lifecycle import sealing
from tenant_proxy.lifecycle.private import opener

FORMAT: Final = "tenant_proxy archive 1"
MANIFEST: Final = "manifest.json"
ROLES: Final = "roles.sql"
DUMP: Final = "schema.dump"
EXTRAS: Final = "extras.sql"
LARGE_OBJECTS: Final = "large_objects.sql"
RESTORE: Final = "RESTORE.txt"
_FILES: Final = (ROLES, DUMP, EXTRAS, LARGE_OBJECTS, RESTORE)


class ArchiveError(Exception):
    """It is no archive, or not as it was written."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table's content: two with the same rows, in whatever order, have the same figures."""

    name: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    tenant: str
    made_at: str
    made_by: str
    #: cluster, database, schema, owner, roles, server_version, encoding, collation
    source: dict[str, Any]
    #: version of pg_dump
    tool: str
    tables: list[Table]
    #: name, version, schema of extensions that the objects need
    extensions: list[dict[str, str]]
    #: how many objects of each kind
    inventory: dict[str, int]
    #: the tenant's record in the catalog: plan, settings, quotas, labels
    settings: dict[str, Any] = field(default_factory=dict)
    #: who may do what; no secrets
    access: list[dict[str, Any]] = field(default_factory=list)
    #: custom roles of the tenant
    custom_roles: list[dict[str, Any]] = field(default_factory=list)
    #: versions of migrations that the schema has had
    migrations: list[dict[str, Any]] = field(default_factory=list)
    #: what could not be brought along
    notes: list[str] = field(default_factory=list)
    #: name -> length and sha256
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: str = FORMAT

    @property
    def schema(self) -> str:
        return str(self.source["schema"])

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        try:
            known = json.loads(raw)
            if known.get("format") != FORMAT:
                raise ArchiveError(f"the archive's format is {known.get('format')!r}, not {FORMAT!r}")
            known["tables"] = [Table(**table) for table in known["tables"]]
            return cls(**known)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArchiveError(f"the manifest can't be read: {error}") from None


def pack(directory: Path, manifest: Manifest, target: Path, pass_phrase: str | None) -> Manifest:
    """Writes `target` of the files in `directory`; it appears whole or not at all, readable by us alone."""
    files = {
        name: {"bytes": (directory / name).stat().st_size, "sha256": digest_of(directory / name)}
        for name in _FILES
        if (directory / name).exists()
    }
    manifest = Manifest(**{**{key: getattr(manifest, key) for key in manifest.__slots__}, "files": files})
    partial = target.with_name(target.name + ".partial")
    with suppress(FileNotFoundError):
        partial.unlink()
    try:
        with open(partial, "x+b", opener=opener) as out:
            if pass_phrase is None:
                _write_tar(directory, manifest, files, out)
            else:
                with open(directory / "plain.tar", "w+b") as plain:
                    _write_tar(directory, manifest, files, plain)
                    plain.seek(0)
                    sealing.seal(plain, out, pass_phrase)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return manifest


def _write_tar(directory: Path, manifest: Manifest, files: Mapping[str, Any], out: Any) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        text = manifest.to_bytes()
        head = tarfile.TarInfo(MANIFEST)
        head.size, head.mode = len(text), 0o600
        tar.addfile(head, io.BytesIO(text))
        for name in files:
            with open(directory / name, "rb") as file:
                info = tarfile.TarInfo(name)
                info.size, info.mode = (directory / name).stat().st_size, 0o600
                tar.addfile(info, file)


def unpack(path: Path, directory: Path, pass_phrase: str | None = None) -> Manifest:
    """Takes an archive apart into `directory` and checks every file against the manifest."""
    try:
        if sealing.is_sealed(path):
            if pass_phrase is None:
                raise ArchiveError("the archive is encrypted: give its pass phrase")
            plain = directory / "plain.tar"
            with open(path, "rb") as sealed, open(plain, "w+b") as out:
                os.chmod(plain, 0o600)
                sealing.unseal(sealed, out, pass_phrase)
            path = plain
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                # nothing but our own names, so nothing can get out of the directory
                if member.name not in (MANIFEST, *_FILES) or not member.isreg():
                    raise ArchiveError(f"the archive has something that does not belong there: {member.name}")
                source = tar.extractfile(member)
                assert source is not None
                with open(directory / member.name, "wb") as file:
                    while piece := source.read(1 << 20):
                        file.write(piece)
    except sealing.SealError as error:
        raise ArchiveError(str(error)) from None
    except tarfile.TarError as error:
        raise ArchiveError(f"this is no archive of a tenant: {error}") from None
    if not (directory / MANIFEST).exists():
        raise ArchiveError("the archive has no manifest")
    manifest = Manifest.from_bytes((directory / MANIFEST).read_bytes())
    for name, known in manifest.files.items():
        found = directory / name
        if name not in _FILES or not found.exists() or digest_of(found) != known["sha256"]:
            raise ArchiveError(f"{name} is not what the manifest says")
    present = {name for name in _FILES if (directory / name).exists()}
    if present - manifest.files.keys() or not {ROLES, DUMP, EXTRAS} <= present:
        raise ArchiveError("files are missing, or the manifest does not know them")
    return manifest


def digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


RESTORE_TEXT: Final = """\
This is a tenant of tenant_proxy.  To restore it by hand, under its own name, into a database whose cluster
has none of its roles, as a superuser (manifest.json says which versions and extensions it needs):

    psql -d DATABASE -f roles.sql
    pg_restore -d DATABASE --section=pre-data schema.dump
    psql -d DATABASE -f extras.sql
    pg_restore -d DATABASE --section=data --section=post-data schema.dump
    psql -d DATABASE -f large_objects.sql         (if there is one)

Roles come without passwords.  extras.sql may complain of objects outside the tenant's schema that this
database does not have; the rights on those are lost.  Views that use the tenant's own casts are only made
behind these: run extras.sql, then the first pg_restore, once more.

tenant-proxy tenant import does all of it in one transaction, and under another name if asked.
"""
