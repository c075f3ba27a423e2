"""Versioned SQL applied to the schemas of all tenants.

A directory holds files `V001__add_orders.up.sql`, also without V, with one underscore, or without `.up`;
beside it, with the same beginning, may be `….down.sql`, which undoes it, and `….check.sql`, queries that must
each give true when it is done.  All of a version is one transaction and one message: what comes first in it
is the note in the ledger (so that two at once can't both do it), what comes last are the checks.

Statements run as the tenant's owner with the tenant's search_path, where the tenant's code can't become
anybody else (`jail`).  A file whose first line is
`-- tenant_proxy: no-transaction` (for CREATE INDEX CONCURRENTLY) is sent a statement at a time, and noted
when all are done; killed on its way it is begun again, so it has to bear that.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import asyncpg
import orjson
from pglast import split
from pglast.parser import ParseError, parse_sql_json

from tenant_proxy.lifecycle import fleet, ledger
from tenant_proxy.lifecycle.fleet import Member, Options, Report, Worker, WorkFailed
from tenant_proxy.lifecycle.jail import SWEPT, CanNotRun, jailed_often, makers, own_login, prepare
from tenant_proxy.lifecycle.records import Standing
from tenant_proxy.lifecycle.rename import quote_name
from tenant_proxy.lifecycle.sql import literal
from tenant_proxy.lifecycle.tools import Database

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


class MigrationError(Exception):
    """The directory is not in order, or does not fit what tenants have had."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    up: str
    down: str | None
    #: queries that must give true
    checks: tuple[str, ...]
    checksum: str
    transactional: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    lock_timeout_ms: int = 2_000
    statement_timeout_ms: int = 0


_FILE: Final = re.compile(r"V?(\d{1,18})_{1,2}(.+?)(?:\.(up|down|check))?\.sql")
_NO_TRANSACTION: Final = re.compile(r"\s*--\s*tenant_proxy:\s*no-transaction\s*$", re.MULTILINE)


def read(directory: Path) -> list[Migration]:
    """In order; every file is parsed, so that a slip is found before anybody has had anything."""
    if not directory.is_dir():
        raise MigrationError(f"there is no directory {directory}")
    parts: dict[int, dict[str, tuple[str, Path]]] = {}
    for path in sorted(directory.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name}: not VERSION_name.sql, .up.sql, .down.sql or .check.sql")
        version, name, part = int(match[1]), match[2], match[3] or "up"
        known = parts.setdefault(version, {})
        if part in known or any(other != name for other, _ in known.values()):
            raise MigrationError(f"{path.name}: version {version} is there twice")
        known[part] = name, path
    found = []
    for version, known in sorted(parts.items()):
        if "up" not in known:
            raise MigrationError(f"version {version} has no .up.sql")
        name, path = known["up"]
        text = path.read_text(encoding="utf-8")
        transactional = _NO_TRANSACTION.match(text) is None
        down = known["down"][1].read_text(encoding="utf-8") if "down" in known else None
        checks = _statements(known["check"][1]) if "check" in known else ()
        _check(path, transactional)
        if "down" in known:
            _check(known["down"][1], transactional)
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(version, name, text, down, checks, checksum, transactional))
    return found


def _statements(path: Path) -> tuple[str, ...]:
    try:
        return tuple(split(path.read_text(encoding="utf-8"), with_parser=True))
    except ParseError as error:
        raise MigrationError(f"{path.name}: {error}") from None


def _check(path: Path, transactional: bool) -> None:
    try:
        tree = orjson.loads(parse_sql_json(path.read_text(encoding="utf-8")))
    except ParseError as error:
        raise MigrationError(f"{path.name}: {error}") from None
    if transactional and any("TransactionStmt" in one["stmt"] for one in tree["stmts"]):
        raise MigrationError(
            f"{path.name}: a migration is one transaction, so it may not begin or end one"
            " (-- tenant_proxy: no-transaction in its first line)"
        )


# --- who is where ------------------------------------------------------------------------


async def standings(members: Sequence[Member], migrations: Sequence[Migration]) -> list[Standing]:
    """A query for each database."""
    files = {one.version: one for one in migrations}
    result = []
    for database in dict.fromkeys(member.database for member in members):
        async with database.connected() as connection:
            had = await ledger.migrations(connection)
        for member in members:
            if member.database != database:
                continue
            mine = had.get(member.estate.schema, {})
            result.append(
                Standing(
                    tenant=member.tenant,
                    version=max(mine, default=None),
                    pending=tuple(version for version in files if version not in mine),
                    changed=tuple(
                        v for v, (_, checksum) in mine.items() if v in files and files[v].checksum != checksum
                    ),
                    unknown=tuple(version for version in mine if version not in files),
                )
            )
    return sorted(result, key=lambda one: one.tenant)


# --- up and down --------------------------------------------------------------------------


async def up(
    members: Sequence[Member],
    migrations: Sequence[Migration],
    options: Options,
    limits: Limits = Limits(),
    *,
    to: int | None = None,
    on_done: fleet.OnDone = lambda outcome, total: None,
) -> Report:
    """Each tenant gets what it lacks, in order; those that lack nothing are not touched."""
    wanted = {one.version: one for one in migrations if to is None or one.version <= to}
    standing = {one.tenant: one for one in await standings(members, migrations)}
    changed = [one for one in standing.values() if one.changed]
    if changed:
        raise MigrationError(
            f"version {changed[0].changed[0]} was changed after {changed[0].tenant}"
            f" (and {len(changed) - 1} more) had it: write a new version instead"
        )
    behind = [one for one in members if any(v in wanted for v in standing[one.tenant].pending)]
    able = await _able(behind)

    async def work(worker: Worker, member: Member) -> None:
        for version in standing[member.tenant].pending:
            if version in wanted:
                connection = await worker.connection(member.database)
                await _apply(connection, member, wanted[version], limits, member in able)

    return await fleet.over(behind, work, options, on_done)


async def down(
    members: Sequence[Member],
    migrations: Sequence[Migration],
    options: Options,
    limits: Limits = Limits(),
    *,
    to: int,
    on_done: fleet.OnDone = lambda outcome, total: None,
) -> Report:
    """Undoes what is newer than `to`, the newest first."""
    files = {one.version: one for one in migrations}
    standing = {one.tenant: one for one in await standings(members, migrations)}
    had = {
        name: sorted(
            (v for v in {*files, *one.unknown} - set(one.pending) if v > to),
            reverse=True,
        )
        for name, one in standing.items()
    }
    for version in {version for versions in had.values() for version in versions}:
        if version not in files or files[version].down is None:
            raise MigrationError(f"version {version} has no .down.sql")

    ahead = [one for one in members if had[one.tenant]]
    able = await _able(ahead)

    async def work(worker: Worker, member: Member) -> None:
        for version in had[member.tenant]:
            connection = await worker.connection(member.database)
            await _revert(connection, member, files[version], limits, member in able)

    return await fleet.over(ahead, work, options, on_done)


async def _able(members: Sequence[Member]) -> set[Member]:
    """Those whose owners may make functions; and whatever their databases lack is made."""
    able: set[Member] = set()
    for database in dict.fromkeys(member.database for member in members):
        here = [member for member in members if member.database == database]
        async with database.connected() as connection:
            await ledger.make(connection)
            await prepare(connection)
            found = await makers(connection, [member.estate for member in here])
        able.update(member for member in here if member.estate.schema in found)
    return able


async def _apply(
    connection: Connection, member: Member, migration: Migration, limits: Limits, able: bool
) -> None:
    schema = literal(member.estate.schema)
    noted = (
        f"INSERT INTO {ledger.SCHEMA}.migration (schema, version, name, checksum) VALUES ({schema},"
        f" {migration.version}, {literal(migration.name)}, {literal(migration.checksum)});\n"
    )
    try:
        if migration.transactional:
            checks = "".join(_asserted(number, check) for number, check in enumerate(migration.checks, 1))
            await _in_jail(connection, member, limits, migration.up + "\n;" + checks, noted, able)
        else:
            await _one_by_one(connection, member, migration.up, limits, migration.checks)
            await connection.execute(noted)
    except asyncpg.UniqueViolationError as error:
        if error.schema_name != ledger.SCHEMA:
            raise
        # somebody else has done it meanwhile
    except asyncpg.PostgresError as error:
        error.args = (f"version {migration.version}: {error}", *error.args[1:])
        raise


async def _revert(
    connection: Connection, member: Member, migration: Migration, limits: Limits, able: bool
) -> None:
    schema = literal(member.estate.schema)
    gone = (
        f"DELETE FROM {ledger.SCHEMA}.migration WHERE schema = {schema} AND version = {migration.version};\n"
    )
    assert migration.down is not None
    if migration.transactional:
        await _in_jail(connection, member, limits, migration.down, gone, able)
    else:
        await _one_by_one(connection, member, migration.down, limits, ())
        await connection.execute(gone)


async def _in_jail(
    connection: Connection, member: Member, limits: Limits, sql: str, noted: str, able: bool
) -> None:
    """One transaction; what it changes of the session is undone, as it would meet the next tenant."""
    try:
        confined = jailed_often(sql, member.estate.schema, member.estate.owner, maker=able)
    except CanNotRun as error:
        raise WorkFailed(str(error)) from None
    try:
        await connection.execute(noted + _settings(member, limits, local=True) + confined + SWEPT)
    except BaseException:
        # not all that a tenant's code leaves behind goes with its transaction
        if not connection.is_closed():
            await connection.execute("DISCARD ALL")
        raise


async def _one_by_one(
    connection: Connection, member: Member, text: str, limits: Limits, checks: Sequence[str]
) -> None:
    """What can be in no transaction can be in no function: it has a login that is the tenant's alone."""
    owner = member.estate.owner
    async with AsyncExitStack() as stack:
        own = connection
        if member.database.rehearsal is None:
            database = await stack.enter_async_context(own_login(connection, member.database, owner))
            own = await stack.enter_async_context(database.connected("tenant-proxy migrate"))
        await own.execute(f"SET ROLE {quote_name(owner)};\n{_settings(member, limits, local=False)}")
        for statement in split(text, with_parser=True):
            await own.execute(statement)
        for number, check in enumerate(checks, 1):
            await own.execute(_asserted(number, check))


def _settings(member: Member, limits: Limits, *, local: bool) -> str:
    settings = {
        "search_path": f"{quote_name(member.estate.schema)}, public",
        "lock_timeout": str(limits.lock_timeout_ms),
        "statement_timeout": str(limits.statement_timeout_ms),
        "client_min_messages": "warning",
    }
    calls = ", ".join(
        f"pg_catalog.set_config('{name}', {literal(value)}, {'true' if local else 'false'})"
        for name, value in settings.items()
    )
    return f"SELECT {calls};\n"


def _asserted(number: int, check: str) -> str:
    """A statement that fails unless the query gives true (or nothing)."""
    tag = "$tp_check$"
    if tag in check:
        raise WorkFailed(f"check {number} can't be run: it has {tag} in it")
    return (
        f"\nDO {tag} BEGIN IF NOT coalesce(({check}), true) THEN"
        f" RAISE EXCEPTION 'check {number} failed' USING ERRCODE = 'check_violation'; END IF; END {tag};"
    )


# --- any tool ------------------------------------------------------------------------------


def environment(member: Member) -> dict[str, str]:
    """For a tool that migrates one tenant: it comes as the owner, in the tenant's schema."""
    return member.database.environment() | _own(member, member.database)


def _own(member: Member, database: Database) -> dict[str, str]:
    options = (
        f"-c role={_escaped(member.estate.owner)} -c search_path={_escaped(quote_name(member.estate.schema))}"
    )
    return {
        "PGOPTIONS": options,
        "DATABASE_URL": url(database, options),
        "TENANT": member.tenant,
        "TENANT_SCHEMA": member.estate.schema,
        "TENANT_OWNER": member.estate.owner,
    }


def _escaped(value: str) -> str:
    """As libpq's options are taken apart: a backslash before spaces and backslashes."""
    return re.sub(r"([\\\s])", r"\\\1", value)


def url(database: Database, options: str = "") -> str:
    secret = f":{quote(database.password, safe='')}" if database.password else ""
    query = {"sslmode": database.tls.mode, "options": options}
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value)
    return (
        f"postgresql://{quote(database.user, safe='')}{secret}@{quote(database.host, safe='')}"
        f":{database.port}/{quote(database.name, safe='')}?{asked}"
    )


async def run_tool(
    command: Sequence[str], member: Member, *, timeout_s: float | None = None, tail: int = 5
) -> None:
    """Runs it for one tenant; WorkFailed with the end of what it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(member),
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        raise WorkFailed(f"{command[0]} takes longer than {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()[-tail:]
        raise WorkFailed(f"{command[0]} ended with status {process.returncode}: {' | '.join(lines)}")


async def execute(
    members: Sequence[Member],
    command: Sequence[str],
    options: Options,
    *,
    timeout_s: float | None = None,
    on_done: fleet.OnDone = lambda outcome, total: None,
) -> Report:
    """Any tool, once for each tenant."""

    async def work(worker: Worker, member: Member) -> None:
        if member.database.rehearsal is not None:
            told = _own(member, replace(member.database, password=""))
            member.database.rehearsal.command(command, told)
            return
        connection = await worker.connection(member.database)
        async with own_login(connection, member.database, member.estate.owner) as database:
            await run_tool(command, replace(member, database=database), timeout_s=timeout_s)

    return await fleet.over(members, work, options, on_done)


def as_json(report: Report) -> dict[str, Any]:
    return {
        "done": len(report.of("done")),
        "failed": [{"tenant": one.tenant, "error": one.error} for one in report.of("failed")],
        "left": report.left,
        "stopped": report.stopped,
    }
