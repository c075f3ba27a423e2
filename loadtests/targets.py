"""What is compared: PostgreSQL itself, PgBouncer, and tenant_proxy, without guard, shared.

All lead to the same server, take the same logins by SCRAM-SHA-256 from the same
verifiers (and pass them through to the server), keep pools of the same size in the
same mode, and log neither connections nor disconnections.
"""

from __future__ import annotations

import re
import secrets
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from loadtests import procfs
from loadtests.certificates import Pem, self_signed
from loadtests.postgres import DATABASE, TENANTS, Login, Postgres, program_version
from loadtests.process import Service, give_to
from loadtests.wire import Connection, Endpoint
from tenant_proxy.devel.installs import server_account
from tenant_proxy.devel.postgres import free_port

#: open backends per login.  Session mode needs one for each client, transaction mode is there to need fewer
POOL_SIZE = {"transaction": 20, "session": 100}
MAX_CLIENTS = 12_000
#: the login of backends that tenants share
SERVICE = "bench_service"
#: a target that is started gets so long to come to rest before it is measured
REST_S = 15
#: the same on both sides: PgBouncer can do it since 1.21
MAX_PREPARED = 200


class Target(ABC):
    """Something that a client can connect to; `start` and `stop` as often as wanted."""

    name: str
    #: whether transaction pooling keeps protocol-level prepared statements alive
    prepares_in_transactions = True

    def __init__(self, postgres: Postgres, mode: str) -> None:
        self.mode = mode
        self._postgres = postgres

    @abstractmethod
    def start(self) -> None:
        """Starts it and waits until it takes logins."""

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def endpoint(self, tenant: str) -> Endpoint: ...

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The root of its process tree; None where there is nothing in between."""


class Direct(Target):
    name = "direct"

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def endpoint(self, tenant: str) -> Endpoint:
        return self._postgres.endpoint(tenant)

    @property
    def pid(self) -> int | None:
        return None


class StartedTarget(Target):
    """A target with a process and a folder of its own."""

    def __init__(self, postgres: Postgres, mode: str) -> None:
        super().__init__(postgres, mode)
        self.port = 0
        self._service: Service | None = None

    def start(self) -> None:
        self.port = free_port()
        folder = Path(tempfile.mkdtemp(prefix=f"loadtests-{self.name}-"))
        self._service = Service(f"{self.name} ({self.mode})", folder)
        try:
            self._launch(self._service)
            self._service.wait_ready(lambda: Connection(self.endpoint(TENANTS[0]), timeout_s=5).close())
            # the control process may still be importing what it serves
            procfs.wait_for_rest(self._service.pid, REST_S)
        except BaseException:
            self.stop()
            raise

    @abstractmethod
    def _launch(self, service: Service) -> None:
        """Writes its configuration into the service's folder and starts it."""

    def stop(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            service.stop()
            shutil.rmtree(service.folder, ignore_errors=True)

    def endpoint(self, tenant: str) -> Endpoint:
        return replace(self._postgres.endpoint(tenant), port=self.port)

    @property
    def pid(self) -> int | None:
        return self._service.pid if self._service is not None else None


def pgbouncer_ini(
    *, port: int, server_port: int, mode: str, users: str, version: tuple[int, int], tls: Pem | None = None
) -> str:
    """Its defaults, but for what makes the comparison even."""
    lines = [
        "[databases]",
        f"{DATABASE} = host=127.0.0.1 port={server_port} dbname={DATABASE}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "listen_backlog = 4096",
        "unix_socket_dir =",
        "auth_type = scram-sha-256",
        f"auth_file = {users}",
        f"pool_mode = {mode}",
        f"default_pool_size = {POOL_SIZE[mode]}",
        f"max_client_conn = {MAX_CLIENTS}",
        f"client_tls_sslmode = {'allow' if tls else 'disable'}",
        "server_tls_sslmode = disable",
        "log_connections = 0",
        "log_disconnections = 0",
        "log_stats = 0",
    ]
    if tls:
        lines += [f"client_tls_cert_file = {tls.cert}", f"client_tls_key_file = {tls.key}"]
    if version >= (1, 21):
        lines.append(f"max_prepared_statements = {MAX_PREPARED}")
    return "\n".join(lines) + "\n"


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of the first version number in a text."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def find_pgbouncer() -> str | None:
    """Debian puts it where root alone looks."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


class PgBouncer(StartedTarget):
    name = "pgbouncer"

    def __init__(self, postgres: Postgres, mode: str) -> None:
        super().__init__(postgres, mode)
        program = find_pgbouncer()
        if program is None:
            raise FileNotFoundError("pgbouncer is not installed")
        self._program = program
        self._version = parse_version(program_version(program))
        self.prepares_in_transactions = self._version >= (1, 21)

    def program(self) -> tuple[str, tuple[int, int]]:
        """Its path and version."""
        return self._program, self._version

    def _launch(self, service: Service) -> None:
        account = server_account()  # PgBouncer refuses root, as PostgreSQL does
        users = service.folder / "users.txt"
        users.write_text("".join(f'"{x.name}" "{x.verifier}"\n' for x in self._postgres.logins.values()))
        tls = self_signed(service.folder)
        ini = service.folder / "pgbouncer.ini"
        ini.write_text(
            pgbouncer_ini(
                port=self.port,
                server_port=self._postgres.port,
                mode=self.mode,
                users=str(users),
                version=self._version,
                tls=tls,
            )
        )
        for path in (service.folder, users, ini, *tls):
            give_to(path, account)
        service.start([self._program, str(ini)], account=account)


def proxy_config(
    *,
    port: int,
    metrics_port: int,
    server_port: int,
    mode: str,
    guard: str,
    logins: Mapping[str, Login],
    tls: Pem | None = None,
) -> dict[str, Any]:
    """The configuration of tenant_proxy for one run: secrets come by environment."""
    return {
        "workers": 1,
        "listen": {
            "addresses": ["127.0.0.1"],
            "port": port,
            "tls": {"mode": "allow", "cert": str(tls.cert), "key": str(tls.key)} if tls else {},
        },
        "clusters": [
            {
                "name": "main",
                "host": "127.0.0.1",
                "port": server_port,
                "database": DATABASE,
                "tls": {"mode": "disable"},
                "max_backends": POOL_SIZE[mode] * len(logins),
            }
        ],
        "tenants": [{"name": name} for name in logins],
        "users": [
            {"name": login.name, "tenant": name, "verifier": {"env": secret_variable(name)}}
            for name, login in logins.items()
        ],
        "pool": {"mode": mode, "max": POOL_SIZE[mode], "max_prepared_statements": MAX_PREPARED},
        "policy": {"mode": guard},
        "limits": {"max_clients": MAX_CLIENTS},
        "metrics": {"port": metrics_port},
        "log": {"level": "warning", "connections": False, "disconnections": False},
    }


def secret_variable(tenant: str) -> str:
    return f"LOADTESTS_SECRET_{tenant.upper()}"


class TenantProxy(StartedTarget):
    name = "proxy"
    guard = "enforce"

    def _launch(self, service: Service) -> None:
        config = proxy_config(
            port=self.port,
            metrics_port=free_port(avoid=[self.port]),
            server_port=self._postgres.port,
            mode=self.mode,
            guard=self.guard,
            logins=self._postgres.logins,
            tls=self_signed(service.folder),
        )
        self._configure(config)
        path = service.folder / "tenant_proxy.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        verifiers = {secret_variable(name): x.verifier for name, x in self._postgres.logins.items()}
        # the tenant-proxy command of this Python and, in a source tree, of this tree
        service.start([sys.executable, "-m", "tenant_proxy", "serve", "-c", str(path)], env=verifiers)

    def _configure(self, config: dict[str, Any]) -> None:
        """What is different from `proxy_config`."""


class TenantProxyUnguarded(TenantProxy):
    """To show what the guard costs; not a way to run it."""

    name = "proxy-noguard"
    guard = "off"


class TenantProxyShared(TenantProxy):
    """To show what sharing backends costs a tenant that keeps them: its transactions need no switch."""

    name = "proxy-shared"

    def _configure(self, config: dict[str, Any]) -> None:
        password = secrets.token_urlsafe(18)
        for sql in (
            f"DROP ROLE IF EXISTS {SERVICE}",
            f"CREATE ROLE {SERVICE} LOGIN NOINHERIT PASSWORD '{password}'",
            *(f"GRANT {name} TO {SERVICE}" for name in self._postgres.logins),
        ):
            self._postgres.superuser_query(sql)
        config["isolation"] = "shared"
        config["clusters"][0]["service"] = {
            "user": SERVICE,
            "password": {"value": password},
            "max_backends": POOL_SIZE[self.mode],
        }


TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (Direct, PgBouncer, TenantProxy, TenantProxyUnguarded, TenantProxyShared)
}
DEFAULT_TARGETS = ("direct", "pgbouncer", "proxy")
