"""Very many tenants with a login each, on few backends: the servers, and a client for all of them.

PgBouncer has a pool a login, and may open so many backends of the database (max_db_connections); tenant_proxy
shares them (`isolation: shared`).  Both get as many as the scenario says.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from loadtests import procfs
from loadtests.postgres import DATABASE, TENANTS, Login, Postgres
from loadtests.process import Service, give_to
from loadtests.targets import PgBouncer, StartedTarget, pgbouncer_ini, proxy_config
from loadtests.wire import READY_IDLE, Connection, Endpoint, make_verifier, message
from tenant_proxy.devel.installs import server_account
from tenant_proxy.devel.postgres import free_port

PREFIX = "many_"
TABLES = 20
ROWS = 20
PASSWORD = "crowd"
#: connections that make tenants
MAKERS = 4
LOGINS_AT_ONCE = 32
SERVICE = "crowd_service"
#: one of the usual tenants, which has pgbench's tables
FLOOD = TENANTS[0]

FILL = """
DO $do$ BEGIN
    EXECUTE format('CREATE ROLE %1$I LOGIN PASSWORD %2$L', {name}, {verifier});
    EXECUTE format('GRANT %1$I TO {service}; ALTER ROLE %1$I SET search_path = %1$I', {name});
    EXECUTE format('CREATE SCHEMA %1$I AUTHORIZATION %1$I', {name});
    FOR n IN 0..{tables} - 1 LOOP
        EXECUTE format(
            'CREATE TABLE %1$I.t%2$s AS SELECT k, %1$L::varchar(20) AS v FROM generate_series(1, {rows}) k;'
            'ALTER TABLE %1$I.t%2$s ADD PRIMARY KEY (k); ALTER TABLE %1$I.t%2$s OWNER TO %1$I', {name}, n);
    END LOOP;
END $do$
"""


def names(count: int) -> list[str]:
    return [f"{PREFIX}{number:04}" for number in range(count)]


class Crowd:
    """Tenants on a server: made when they are first asked for, and kept."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        found = self._ask(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{SERVICE}'")
        self.verifier = found[0][0] if found and found[0][0] else make_verifier(PASSWORD)
        if not found:
            self._ask(
                f"CREATE ROLE {SERVICE} LOGIN NOINHERIT PASSWORD '{self.verifier}'",
                f"GRANT {FLOOD} TO {SERVICE}",
            )

    def _ask(self, *statements: str) -> list[list[str | None]]:
        found: list[list[str | None]] = []
        with self.postgres.superuser(DATABASE) as connection:
            for sql in statements:
                found = connection.query(sql)
        return found

    def provide(self, count: int) -> None:
        """At least so many."""
        made = int(self._ask(f"SELECT count(*) FROM pg_namespace WHERE nspname ^@ '{PREFIX}'")[0][0] or 0)
        if made >= count:
            return
        statements = []
        for name in names(count)[made:]:
            sql = FILL
            for key, value in {
                "name": f"'{name}'",
                "verifier": f"'{self.verifier}'",
                "service": SERVICE,
                "tables": str(TABLES),
                "rows": str(ROWS),
            }.items():
                sql = sql.replace("{" + key + "}", value)
            statements.append(sql)
        # the tables themselves are small enough for any plan
        catalogs = (
            "pg_class",
            "pg_attribute",
            "pg_authid",
            "pg_auth_members",
            "pg_proc",
            "pg_type",
            "pg_index",
        )
        with ThreadPoolExecutor(MAKERS) as makers:
            for done in [makers.submit(self._ask, *statements[n::MAKERS]) for n in range(MAKERS)]:
                done.result()
        self._ask(*(f"VACUUM ANALYZE pg_catalog.{catalog}" for catalog in catalogs))

    def logins(self, count: int) -> dict[str, Login]:
        return {name: Login(name, PASSWORD, self.verifier) for name in names(count)}


class CrowdTarget(StartedTarget):
    """A target for so many of the crowd's tenants, over so many backends."""

    def __init__(self, crowd: Crowd, tenants: int, backends: int) -> None:
        super().__init__(crowd.postgres, "transaction")
        self.crowd = crowd
        self.tenants = tenants
        self.backends = backends

    def flood(self) -> Endpoint:
        """Of one tenant more, with pgbench's tables."""
        return replace(self.crowd.postgres.endpoint(FLOOD), port=self.port)

    def _logins(self) -> dict[str, Login]:
        return self.crowd.logins(self.tenants) | {FLOOD: self.crowd.postgres.logins[FLOOD]}

    def endpoint(self, tenant: str) -> Endpoint:
        # the start asks as one of the usual tenants, which are not here
        name = tenant if tenant.startswith(PREFIX) else names(1)[0]
        return Endpoint("127.0.0.1", self.port, name, PASSWORD, DATABASE)


class CrowdDirect(CrowdTarget):
    """The server itself, which gives each client a backend."""

    name = "direct"

    def start(self) -> None:
        self.port = self.crowd.postgres.port

    def _launch(self, service: Service) -> None:
        """It runs."""

    def stop(self) -> None:
        """It goes on."""


class CrowdPgBouncer(CrowdTarget):
    name = "pgbouncer"

    def _launch(self, service: Service) -> None:
        program, version = PgBouncer(self.crowd.postgres, self.mode).program()
        account = server_account()
        users = service.folder / "users.txt"
        users.write_text("".join(f'"{x.name}" "{x.verifier}"\n' for x in self._logins().values()))
        ini = service.folder / "pgbouncer.ini"
        text = pgbouncer_ini(
            port=self.port,
            server_port=self.crowd.postgres.port,
            mode=self.mode,
            users=str(users),
            version=version,
        )
        ini.write_text(text + f"max_db_connections = {self.backends}\n")
        for path in (service.folder, users, ini):
            give_to(path, account)
        service.start([program, str(ini)], account=account)


class CrowdProxy(CrowdTarget):
    name = "proxy"
    isolation = "shared"
    workers = 1

    def _launch(self, service: Service) -> None:
        self._folder = service.folder
        self._metrics_port = free_port(avoid=[self.port])
        service.start([sys.executable, "-m", "tenant_proxy", "serve", "-c", str(self._write(self._logins()))])

    def reload(self, tenants: int) -> float:
        """With so many tenants, by the file and a signal; returns when that was sent."""
        assert self.pid is not None, "it has been started"
        self.tenants = tenants
        self._write(self._logins())
        sent = time.monotonic()
        os.kill(self.pid, signal.SIGHUP)
        return sent

    def _write(self, logins: dict[str, Login]) -> Path:
        path = self._folder / "tenant_proxy.yaml"
        config: dict[str, Any] = proxy_config(
            port=self.port,
            metrics_port=self._metrics_port,
            server_port=self.crowd.postgres.port,
            mode=self.mode,
            guard="enforce",
            logins={},
        )
        config["workers"] = self.workers
        config["tenants"] = [{"name": name} for name in logins]
        config["users"] = [
            {"name": name, "tenant": name, "verifier": {"value": login.verifier}}
            for name, login in logins.items()
        ]
        config["isolation"] = self.isolation
        cluster = config["clusters"][0]
        cluster["max_backends"] = 2 * self.backends
        cluster["service"] = {
            "user": SERVICE,
            "password": {"value": PASSWORD},
            "max_backends": self.backends,
        }
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return path


class CrowdDedicated(CrowdProxy):
    name = "proxy-dedicated"
    isolation = "dedicated"


class CrowdWorkers(CrowdProxy):
    """Two workers, which have the backends together."""

    workers = 2


# --- the client ------------------------------------------------------------------------------


class Clients:
    """Connections of tenants, each with at most one statement under way."""

    def __init__(self, target: CrowdTarget, tenants: Iterable[str]) -> None:
        self.tenants = list(tenants)
        with ThreadPoolExecutor(LOGINS_AT_ONCE) as pool:
            self._connections = list(pool.map(lambda name: Connection(target.endpoint(name)), self.tenants))
        self._socks = [one.sock for one in self._connections]

    def close(self) -> None:
        for one in self._connections:
            one.close()

    def run(
        self,
        seconds: float,
        in_flight: int,
        statement: Callable[[int], bytes],
        count: int = 0,
    ) -> tuple[list[float], float]:
        """Latencies in µs, and how long it took; `count` statements if given, else for so long.

        `in_flight` at a time, each by one of the connections that are free, chosen by chance.
        """
        free = list(range(len(self._socks)))
        random.shuffle(free)
        poll = select.epoll()
        by_fd = {}
        for number, sock in enumerate(self._socks):
            sock.setblocking(False)
            poll.register(sock.fileno(), select.EPOLLIN)
            by_fd[sock.fileno()] = number
        began = [0.0] * len(self._socks)
        tails = [b""] * len(self._socks)
        sends = [sock.send for sock in self._socks]
        receives = [sock.recv for sock in self._socks]
        clock = time.perf_counter
        latencies: list[float] = []
        sent = 0
        start = time.perf_counter()

        def begin() -> None:
            nonlocal sent
            at = int(random.random() * len(free))
            free[at], free[-1] = free[-1], free[at]
            number = free.pop()
            began[number] = clock()
            sends[number](statement(sent))
            sent += 1

        for _ in range(min(in_flight, len(free))):
            begin()
        under_way = min(in_flight, len(self._socks))
        end = start + seconds
        while under_way:
            for fd, _ in poll.poll(10):
                number = by_fd[fd]
                data = receives[number](65536)
                if tails[number]:
                    data = tails[number] + data
                if not data.endswith(READY_IDLE):
                    tails[number] = data[-6:]
                    continue
                if data[:1] == b"E":
                    raise OSError(f"{self.tenants[number]}: {data[:200]!r}")
                now = clock()
                tails[number] = b""
                latencies.append((now - began[number]) * 1e6)
                free.append(number)
                if (sent < count) if count else now < end:
                    begin()
                else:
                    under_way -= 1
        took = time.perf_counter() - start
        poll.close()
        for sock in self._socks:
            sock.setblocking(True)
        return latencies, took

    def pace(self, seconds: float, pause_s: float, statement: Callable[[int], bytes]) -> list[float]:
        """Latencies in µs of clients that ask every `pause_s`, evenly spread."""
        latencies: list[float] = []
        step = pause_s / len(self._socks)
        by_fd = {sock.fileno(): sock for sock in self._socks}
        began: dict[int, float] = {}
        poll = select.epoll()
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)

        def collect(wait_s: float) -> None:
            # epoll itself waits for whole milliseconds
            select.select([poll], [], [], max(0.0, wait_s))
            for fd, _ in poll.poll(0):
                if by_fd[fd].recv(65536).endswith(READY_IDLE):
                    latencies.append((time.perf_counter() - began.pop(fd)) * 1e6)

        start = time.perf_counter()
        for number in range(int(seconds / step)):
            # counted from when it is due: who can't send because he waits has waited
            due = start + number * step
            while (left := due - time.perf_counter()) > 0:
                collect(left)
            sock = self._socks[number % len(self._socks)]
            while sock.fileno() in began:
                collect(1)
            began[sock.fileno()] = due
            sock.send(statement(number))
        while began:
            collect(1)
        poll.close()
        return latencies


#: a query of each of a tenant's tables; made once, as the client shares the machine with what it measures
QUERIES = [message(b"Q", f"SELECT v FROM t{number} WHERE k = 7".encode() + b"\0") for number in range(TABLES)]


def point_query(number: int) -> bytes:
    """One row of one of a tenant's tables, chosen by chance."""
    return QUERIES[int(random.random() * TABLES)]


def table_query(number: int) -> bytes:
    """One table after the other."""
    return QUERIES[number % TABLES]


def private_bytes(postgres: Postgres) -> float:
    """Memory that only one of the server's processes each has, of all that serve connections."""
    return float(sum(procfs.private_memory(pid) for pid in procfs.tree(postgres.pid) if pid != postgres.pid))
