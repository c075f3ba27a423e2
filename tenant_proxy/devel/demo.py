"""`make demo`: an embedded PostgreSQL, two tenants, the proxy, a short tour; stays up until Ctrl-C.

Everything it makes is in `.demo/` (configuration, logs, `env`) and in a temporary
directory (PostgreSQL's data).  `.demo/env` exists only while the demo is up: a script
that sources it then finds what it names.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http.client
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import yaml
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from tenant_proxy.devel.lifeline import Lifeline
from tenant_proxy.devel.postgres import (
    SUPERUSER,
    PostgresError,
    Server,
    client_environment,
    free_port,
    log_tail,
    port_is_free,
)
from tenant_proxy.devel.tour import Addresses, Tour

DATABASE = "app"
#: holds the tenants that are made by command
CATALOG = "catalog"
PORT = 6432
METRICS_PORT = 9127

_READY_TIMEOUT_S = 30
#: more than the proxy's drain time below
_STOP_TIMEOUT_S = 15

#: what PostgreSQL needs for two tenants that are kept apart by its own means already
_SETUP_SQL = """
REVOKE ALL ON DATABASE {database} FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO PUBLIC;

CREATE ROLE acme_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{acme}';
CREATE ROLE beta_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{beta}';
GRANT CONNECT, TEMPORARY ON DATABASE {database} TO acme_app, beta_app;

CREATE SCHEMA acme AUTHORIZATION acme_app;
CREATE SCHEMA beta AUTHORIZATION beta_app;

SET ROLE acme_app;
CREATE TABLE acme.orders (id int PRIMARY KEY, item text NOT NULL, price numeric(8,2) NOT NULL);
INSERT INTO acme.orders VALUES (1, 'anvil', 120.00), (2, 'rocket skates', 89.50), (3, 'bird seed', 4.20);

SET ROLE beta_app;
CREATE TABLE beta.orders (id int PRIMARY KEY, item text NOT NULL, price numeric(8,2) NOT NULL);
INSERT INTO beta.orders VALUES (1, 'teapot', 18.00), (2, 'two cups', 9.00);
"""


class DemoError(Exception):
    """Something of the demo does not work; `log` is where to read on."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class Stopped(BaseException):
    """A signal asked for the end."""


class Signals:
    """Turns the first SIGINT, SIGTERM or SIGHUP into Stopped; those that follow do not disturb the end."""

    def __init__(self) -> None:
        self._deferring = False
        self._came = False
        self._caught = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            self._caught.append(signal.SIGHUP)
        for number in self._caught:
            signal.signal(number, self._on_signal)

    def ignore(self) -> None:
        """For the time of cleaning up."""
        for number in self._caught:
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals wait for the end of the block: a process that is just started must not get lost."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._came:
            self.ignore()
            raise Stopped

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        if not self._deferring:
            self.ignore()
            raise Stopped


@dataclass(slots=True)
class Demo:
    console: Console
    directory: Path
    port: int
    metrics_port: int
    signals: Signals
    passwords: dict[str, str] = field(
        default_factory=lambda: {who: secrets.token_hex(12) for who in ("acme", "beta", "admin")}
    )

    @property
    def proxy_log(self) -> Path:
        return self.directory / "proxy.log"

    @property
    def env_file(self) -> Path:
        return self.directory / "env"

    def run(self, *, once: bool) -> int:
        """The exit status: 0 when every check of the tour held."""
        began = time.monotonic()
        for name in ("env", "proxy.log", "postgres.log"):
            (self.directory / name).unlink(missing_ok=True)
        with contextlib.closing(Server(log_path=self.directory / "postgres.log")) as server:
            with self.signals.deferred():
                server.start()
            self._make_tenants(server)
            self._install_views(server)
            self._say(f"{server.install} on 127.0.0.1:{server.port}", began)
            with self._proxy(server) as proxy:
                addresses = self._addresses(server)
                self._say(f"tenant-proxy on 127.0.0.1:{self.port}, process {proxy.pid}", began)
                tour = Tour(
                    self.console,
                    server.install.tool("psql"),
                    addresses,
                    _command(),
                    self.directory / "tenant_proxy.yaml",
                )
                if not tour.run():
                    raise DemoError(f"the tour failed: {'; '.join(tour.failures)}", self.proxy_log)
                if not once:
                    self._stay(server, proxy, addresses)
        return 0

    # --- PostgreSQL ----------------------------------------------------------

    def _make_tenants(self, server: Server) -> None:
        server.psql(f"CREATE DATABASE {DATABASE}")
        server.psql(f"CREATE DATABASE {CATALOG}")
        server.psql(
            _SETUP_SQL.format(database=DATABASE, acme=self.passwords["acme"], beta=self.passwords["beta"]),
            database=DATABASE,
        )

    def _make_catalog(self, config: Path) -> None:
        """The tables for tenants that are made by command."""
        done = subprocess.run(
            [*_command(), "db", "init", "-c", str(config)],
            env=client_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DemoError(f"the catalog of tenants could not be made: {done.stderr.strip()}")

    def _install_views(self, server: Server) -> None:
        """As an operator does it, once a database."""
        done = subprocess.run(
            [*_command(), "catalog", "install", "--dsn", server.dsn(database=DATABASE, password="")],
            env=client_environment() | {"PGPASSWORD": server.password},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DemoError(f"the views of the catalogs could not be installed: {done.stderr.strip()}")

    # --- the proxy -----------------------------------------------------------

    @contextlib.contextmanager
    def _proxy(self, server: Server) -> Iterator[subprocess.Popen[bytes]]:
        """Runs `tenant-proxy serve` until the block ends; taken ports are noticed and others used."""
        self.port = self._port(self.port, "the proxy")
        self.metrics_port = self._port(self.metrics_port, "metrics")
        config = self.directory / "tenant_proxy.yaml"
        _write_private(config, self._configuration(server))
        self._make_catalog(config)
        with open(self.proxy_log, "ab") as log, self.signals.deferred():
            process = subprocess.Popen(
                [*_command(), "serve", "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C at the terminal is for us, who then end everything in order
                start_new_session=True,
            )
            lifeline = Lifeline(process.pid, signal.SIGTERM)
        try:
            self._wait_until_ready(process)
            yield process
        finally:
            self.signals.ignore()
            _stop(process)
            lifeline.release()

    def _port(self, wanted: int, what: str) -> int:
        if port_is_free(wanted):
            return wanted
        port = next((p for p in range(wanted + 1, wanted + 50) if port_is_free(p)), 0) or free_port()
        self.console.print(f"[yellow]port {wanted} is taken: {what} uses {port}")
        return port

    def _configuration(self, server: Server) -> str:
        tenants = [{"name": name, "cluster": "demo"} for name in ("acme", "beta")]
        users: list[dict[str, object]] = [
            {"name": f"{name}_app", "tenant": name, "password": {"value": self.passwords[name]}}
            for name in ("acme", "beta")
        ]
        users.append({"name": "admin", "admin": True, "password": {"value": self.passwords["admin"]}})
        return "# written by the demo, for this run\n" + yaml.safe_dump(
            {
                "workers": 2,
                "listen": {"addresses": ["127.0.0.1"], "port": self.port},
                "clusters": [
                    {
                        "name": "demo",
                        "host": server.host,
                        "port": server.port,
                        "database": DATABASE,
                        "max_backends": 50,
                        "admin": {"user": SUPERUSER, "password": {"value": server.password}},
                    }
                ],
                "catalog": {"dsn": {"value": server.dsn(database=CATALOG)}},
                "tenants": tenants,
                "users": users,
                "pool": {"mode": "transaction", "max": 10},
                "metrics": {"address": "127.0.0.1", "port": self.metrics_port},
                # many fewer than the default, which a shell's limit on open files may not allow
                "limits": {"max_clients": 500},
                "timeouts": {"drain_s": 3},
            },
            sort_keys=False,
        )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise DemoError(f"the proxy ended with status {process.returncode}", self.proxy_log)
            if _answers(self.metrics_port, "/readyz"):
                return
            time.sleep(0.05)
        raise DemoError(f"the proxy was not ready within {_READY_TIMEOUT_S} s", self.proxy_log)

    def _addresses(self, server: Server) -> Addresses:
        def through(user: str, who: str, database: str) -> str:
            return f"postgresql://{user}:{self.passwords[who]}@127.0.0.1:{self.port}/{database}"

        return Addresses(
            dsn_acme=through("acme_app", "acme", DATABASE),
            dsn_beta=through("beta_app", "beta", DATABASE),
            admin_dsn=through("admin", "admin", "tenant_proxy"),
            direct_dsn=server.dsn(database=DATABASE),
            metrics_url=f"http://127.0.0.1:{self.metrics_port}/metrics",
            acme_direct_dsn=server.dsn(user="acme_app", password=self.passwords["acme"], database=DATABASE),
        )

    # --- staying up ----------------------------------------------------------

    def _stay(self, server: Server, proxy: subprocess.Popen[bytes], addresses: Addresses) -> NoReturn:
        """Until a signal (Stopped), or until one of the two dies (DemoError)."""
        values = {
            "DSN_ACME": addresses.dsn_acme,
            "DSN_BETA": addresses.dsn_beta,
            "ADMIN_DSN": addresses.admin_dsn,
            "DIRECT_DSN": addresses.direct_dsn,
            "METRICS_URL": addresses.metrics_url,
            "PROXY_PID": str(proxy.pid),
        }
        lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
        try:
            _write_private(self.env_file, "\n".join(lines) + "\n")
            self._print_addresses(values)
            # kill -9 of make ends the demo too; a shell that put it in the background may go
            parent = os.getppid() if "MAKELEVEL" in os.environ else None
            while parent in (None, os.getppid()):
                time.sleep(0.25)
                if proxy.poll() is not None:
                    raise DemoError(f"the proxy ended with status {proxy.returncode}", self.proxy_log)
                if not server.running:
                    raise DemoError("PostgreSQL ended", server.log_path)
            raise Stopped
        finally:
            self.env_file.unlink(missing_ok=True)

    def _print_addresses(self, values: dict[str, str]) -> None:
        self.console.print()
        for name, value in values.items():
            self.console.print(Text.assemble((f"{name:<12}", "bold"), value), soft_wrap=True)
        self.console.print()
        where = os.path.relpath(self.env_file)
        self.console.print(f'In another shell:  [bold]. {where}; psql "$DSN_ACME"[/]')
        self.console.print("[bold]Ctrl-C stops everything.")

    def _say(self, what: str, began: float) -> None:
        self.console.print(f"[green]✓[/] {escape(what)} [dim]({time.monotonic() - began:.1f} s)")


def _command() -> list[str]:
    """The installed command beside this interpreter: what an operator would run."""
    found = shutil.which("tenant-proxy", path=str(Path(sys.executable).parent))
    if found is None:
        raise DemoError("the command tenant-proxy is not installed beside this Python: run `make demo`")
    return [found]


def _answers(port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and after some time SIGKILL to the proxy and its workers (its session, which we made)."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
            return
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _write_private(path: Path, text: str) -> None:
    """Appears whole or not at all, readable by us alone."""
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    with open(partial, "x", opener=lambda name, flags: os.open(name, flags, mode=0o600)) as file:
        file.write(text)
    partial.rename(path)


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Two demos of one directory would take each other's files."""
    with open(directory / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise DemoError(f"a demo is running here already (process {lock.read().strip()})") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tenant_proxy.devel.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the tour, with its status")
    parser.add_argument("--directory", type=Path, default=Path(".demo"), help="default: %(default)s")
    parser.add_argument("--port", type=int, default=PORT, help="of the proxy, default: %(default)s")
    parser.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="default: %(default)s")
    parser.add_argument("--svg", type=Path, help="also writes the tour as a picture")
    given = parser.parse_args(arguments)
    console = Console(record=given.svg is not None, highlight=False, soft_wrap=given.svg is None)
    signals = Signals()
    try:
        given.directory.mkdir(mode=0o700, exist_ok=True)
        with _only_one(given.directory):
            demo = Demo(console, given.directory.resolve(), given.port, given.metrics_port, signals)
            status = demo.run(once=given.once)
    except Stopped:
        console.print("\nstopped")
        # a tour that was cut short has shown nothing
        return 1 if given.once else 0
    except (DemoError, PostgresError, OSError) as error:
        console.print(f"\n[bold red]{escape(str(error))}")
        log = getattr(error, "log", None)
        if log is not None:
            console.print(f"\n[dim]end of {escape(os.path.relpath(log))}:")
            console.print(log_tail(log), markup=False)
        return 1
    if given.svg is not None:
        console.save_svg(str(given.svg), title="make demo ONCE=1")
    return status


if __name__ == "__main__":
    sys.exit(main())
