"""A PostgreSQL server for the demo, the tests and the load tests.

    with Server(settings={"max_connections": "50"}) as server:
        server.psql("CREATE SCHEMA acme")
        print(server.dsn(user="acme_app", password="…"))

A server has a temporary data directory (a copy of a cluster that initdb made once), a
free loopback port, a unix socket in a closed directory, and passwords by SCRAM.  As root
it runs as another user.  It ends with the process that started it, however that ends
(`lifeline`).  Nothing here is asynchronous, and nothing is safe to call from two threads
at once on one server.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypedDict
from urllib.parse import quote

from tenant_proxy.devel import installs
from tenant_proxy.devel.installs import Account, Install
from tenant_proxy.devel.lifeline import Lifeline

SUPERUSER = "postgres"

#: surviving a power cut is of no use to data that is thrown away; kill -9 must still lose nothing
FAST_SETTINGS = {"fsync": "off", "full_page_writes": "off"}

DEFAULT_HBA = (
    "local all all scram-sha-256",
    "host all all 127.0.0.1/32 scram-sha-256",
    "host all all ::1/128 scram-sha-256",
)

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30
#: a port is tried out, then let go, then taken by the server: somebody may come between
_PORT_TRIES = 8
#: below Linux's range for outgoing connections, so that a restarted server finds its port free
_PORTS = range(20_000, 30_000)
#: a tmpfs on Linux
_MEMORY = Path("/dev/shm")  # noqa: S108
#: what must be free there; a server has some 30 MB, one that a load test has filled 3 GB
_ROOM_BYTES = 8 << 30
#: tests in several processes must not get the same ports because they have seeded `random` alike
_random = random.SystemRandom()

#: of our own environment, what servers have as well
_KEPT = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "LOCPATH")

StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class PostgresError(RuntimeError):
    """initdb, the server or psql failed; the text has the end of its output."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; they are copied to where the server may read them."""

    cert: Path
    key: Path
    #: CA that client certificates are verified against
    ca: Path | None = None


class Server:
    """One PostgreSQL server.  `start` may be called again after `stop` or `kill`, on the same data.

    settings: lines of postgresql.conf, over FAST_SETTINGS.
    hba: lines of pg_hba.conf, tried before DEFAULT_HBA.
    directory: where data, sockets and log live; kept if given (it must be reachable by the
        server's account), else a temporary one that is removed at `close`.
    log_path: the server's log; default `postgres.log` in that directory.
    port: a fixed port, else a free one.
    """

    def __init__(
        self,
        install: Install | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        hba: Sequence[str] = (),
        tls: TlsFiles | None = None,
        locale: str = "C",
        directory: Path | None = None,
        log_path: Path | None = None,
        port: int | None = None,
    ) -> None:
        self.account = installs.server_account()
        self.install = installs.readable_by(install or installs.find(), self.account)
        self.settings = dict(FAST_SETTINGS) | dict(settings or {})
        self.hba = list(hba)
        self.tls = tls
        self.locale = locale
        self.host = "127.0.0.1"
        self.port = port or 0
        self._fixed_port = port is not None
        self.superuser = SUPERUSER
        #: of the superuser
        self.password = ""
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="tp-pg-", dir=_room()))
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.account is not None:
            os.chown(self.directory, self.account.uid, self.account.gid)
        self.directory.chmod(0o700)
        self.data_dir = self.directory / "data"
        #: a client's host for the unix socket
        self.socket_dir = self.directory
        self.log_path = log_path or self.directory / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None
        self.owner_pid = os.getpid()
        _servers.add(self)

    # --- life ----------------------------------------------------------------

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        if self._process is None:
            raise PostgresError("the server is not running")
        return self._process.pid

    def start(self) -> Self:
        """Returns when the server takes connections; PostgresError with the log's end if it does not."""
        if self.running:
            return self
        if not self.data_dir.exists():
            self._make_data_dir()
        fresh = not self.port
        deadline = time.monotonic() + _START_TIMEOUT_S
        for attempt in range(1, _PORT_TRIES + 1):
            if fresh and not self._fixed_port:
                self.port = free_port()
            self._write_configuration()
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._spawn()
            if self._wait_until_ready(deadline):
                return self
            said = self._log_since(log_start)
            # after kill -9 the old backends need a moment to notice
            leftover = "is still in use" in said or "is the server already running" in said.lower()
            taken = "Address already in use" in said and fresh and not self._fixed_port
            if attempt == _PORT_TRIES or not (leftover or taken):
                break
            time.sleep(0.25 if leftover else 0)
        self._end_lifeline()
        raise PostgresError(f"{self.install} did not start:\n{self.log_tail()}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Returns when the server is gone; one that does not go is ended the hard way."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.send_signal(_STOP_SIGNALS[mode])
                try:
                    process.wait(_STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGQUIT)
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
            self._end_lifeline()

    def restart(self, mode: StopMode = "fast") -> None:
        """On the same port."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """kill -9 of the postmaster, as a crash; its backends end by themselves a moment later."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._end_lifeline()

    def reload(self) -> None:
        """Writes the configuration anew (`settings`, `hba`, `tls` may have changed) and sends SIGHUP."""
        self._write_configuration()
        os.kill(self.pid, signal.SIGHUP)

    def close(self) -> None:
        """Stops the server and removes its temporary directory."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- use -----------------------------------------------------------------

    def dsn(
        self,
        *,
        user: str = SUPERUSER,
        password: str | None = None,
        database: str = "postgres",
        host: str | None = None,
    ) -> str:
        """A postgresql:// URL; without `password` the superuser's, if it is the superuser."""
        if password is None and user == SUPERUSER:
            password = self.password
        secret = f":{quote(password, safe='')}" if password else ""
        where = quote(host, safe="") if host and host.startswith("/") else host or self.host
        return f"postgresql://{quote(user, safe='')}{secret}@{where}:{self.port}/{quote(database, safe='')}"

    def psql(
        self, sql: str, *, user: str = SUPERUSER, password: str | None = None, database: str = "postgres"
    ) -> str:
        """What psql prints, unaligned and without headers; the first error is a PostgresError."""
        arguments = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        done = self.run_tool(
            "psql", [*arguments, self.dsn(user=user, password=password, database=database)], stdin=sql
        )
        if done.returncode != 0:
            raise PostgresError(done.stderr.strip() or f"psql ended with status {done.returncode}")
        return done.stdout.rstrip("\n")

    def run_tool(
        self, name: str, arguments: Sequence[str], *, stdin: str = "", timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs psql, pgbench, pg_dump … of this installation, with our own rights and no PG… variables."""
        return subprocess.run(
            [str(self.install.tool(name)), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=client_environment(),
            check=False,
        )

    def log_tail(self, lines: int = 30) -> str:
        return log_tail(self.log_path, lines)

    # --- inside --------------------------------------------------------------

    def _make_data_dir(self) -> None:
        template = _template(self.install, self.locale, self.account)
        _run_as(self.account, ["cp", "-R", "-p", str(template / "data"), str(self.data_dir)])
        self.password = (template / "password").read_text().strip()

    def _write_configuration(self) -> None:
        if not self.password:
            self.password = (self.directory / "password").read_text().strip()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            "password_encryption": "scram-sha-256",
            "logging_collector": "off",
            # as with segments of the usual size
            "min_wal_size": "80MB",
            "max_wal_size": "1GB",
            **self.settings,
        }
        if self.tls is not None:
            settings |= {"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
            self._write("server.crt", self.tls.cert.read_text())
            self._write("server.key", self.tls.key.read_text())
            if self.tls.ca is not None:
                settings["ssl_ca_file"] = "ca.crt"
                self._write("ca.crt", self.tls.ca.read_text())
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in settings.items()]
        self._write("postgresql.conf", "\n".join(lines) + "\n")
        self._write("pg_hba.conf", "\n".join([*self.hba, *DEFAULT_HBA]) + "\n")
        password = self.directory / "password"
        if not self._temporary and not password.exists():
            with open(password, "x", opener=_private_opener) as file:
                file.write(self.password)

    def _write(self, name: str, text: str) -> None:
        path = self.data_dir / name
        partial = path.with_name(name + ".new")
        partial.unlink(missing_ok=True)
        with open(partial, "x", opener=_private_opener) as file:
            if self.account is not None:
                os.fchown(file.fileno(), self.account.uid, self.account.gid)
            file.write(text)
        partial.rename(path)

    def _spawn(self) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                [str(self.install.tool("postgres")), "-D", str(self.data_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C at the terminal is for us, who then stop the server in order
                start_new_session=True,
                env=_server_environment(self.directory),
                **_identity(self.account),
            )
        self._end_lifeline()
        removes = self.directory if self._temporary else None
        self._lifeline = Lifeline(self._process.pid, signal.SIGINT, removes)

    def _wait_until_ready(self, deadline: float) -> bool:
        """False if the server ended, or is not ready at `deadline` (then it is stopped)."""
        while self.running and time.monotonic() < deadline:
            # line 8 of the lock file is the postmaster's state (src/include/utils/pidfile.h)
            with contextlib.suppress(OSError):
                lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
                if len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready":
                    return True
            time.sleep(0.01)
        self.stop("immediate")
        return False

    def _end_lifeline(self) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            lifeline.release()

    def _log_since(self, offset: int) -> str:
        with contextlib.suppress(OSError), open(self.log_path, errors="replace") as log:
            log.seek(offset)
            return log.read()
        return ""


# --- helpers that the demo and the tests use too ---------------------------------


def free_port(host: str = "127.0.0.1", avoid: Sequence[int] = ()) -> int:
    """A port that nobody listens on at this moment."""
    for port in _random.sample(_PORTS, 200):
        if port not in avoid and port_is_free(port, host):
            return port
    raise OSError(f"no free port on {host} in {_PORTS.start}..{_PORTS.stop - 1}")


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # as servers do: connections of a former one that linger do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def log_tail(path: Path, lines: int = 30) -> str:
    """The end of a log; says so if there is none."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text.splitlines()[-lines:])


def client_environment() -> dict[str, str]:
    """Ours without what would change a libpq client's behaviour (PGHOST, PGSSLMODE, ~/.pgpass …)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"PGPASSFILE": os.devnull, "PGSERVICEFILE": os.devnull, "PGCONNECT_TIMEOUT": "30"}


# --- inside ----------------------------------------------------------------------


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _identity(account: Account | None) -> _Identity:
    """subprocess's arguments that make a child run as `account`."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _server_environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"HOME": str(home), "LC_ALL": "C", "TZ": "UTC"}


def _run_as(account: Account | None, command: Sequence[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=_server_environment(Path("/")),
        check=False,
        **_identity(account),
    )
    if done.returncode != 0:
        raise PostgresError(f"{command[0]} failed:\n{done.stdout.decode(errors='replace')}")


def _room() -> Path | None:
    """Where temporary servers live: in memory if there is plenty.

    None is the usual place for what is temporary.  ext4 looks for a free inode past all that were deleted a
    moment ago: with many servers coming and going, copying 900 files takes longer than all else of a start.
    """
    try:
        room = os.statvfs(_MEMORY)
    except OSError:
        return None
    free = room.f_bavail * room.f_frsize
    return _MEMORY if free >= _ROOM_BYTES and os.access(_MEMORY, os.W_OK | os.X_OK) else None


def _template(install: Install, locale: str, account: Account | None) -> Path:
    """A directory with `data`, made by initdb once and copied for each server, and its `password`."""
    key = hashlib.sha256(f"2 {install.bin_dir} {install.version} {locale}".encode()).hexdigest()[:12]
    home = installs.private_dir(account)
    template = home / f"template-{install.major}-{key}"
    if template.is_dir():
        return template
    partial = Path(tempfile.mkdtemp(dir=home, prefix="partial-"))
    password = partial / "password"
    with open(password, "x", opener=_private_opener) as file:
        file.write(secrets.token_urlsafe(18) + "\n")
    if account is not None:
        os.chown(partial, account.uid, account.gid)
        os.chown(password, account.uid, account.gid)
    arguments = [
        f"--pgdata={partial / 'data'}",
        f"--username={SUPERUSER}",
        f"--pwfile={password}",
        f"--locale={locale}",
        "--encoding=UTF8",
        "--auth=scram-sha-256",
        # the one segment of 16 MB that there would be is nearly half of what is copied
        "--wal-segsize=1",
        "--no-sync",
        "--no-instructions",
    ]
    try:
        _run_as(account, [str(install.tool("initdb")), *arguments])
        partial.rename(template)
    except OSError:  # another process was faster
        if not template.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return template


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for server in list(_servers):
        if server.owner_pid == os.getpid():  # not in a process forked from the owner
            server.close()
