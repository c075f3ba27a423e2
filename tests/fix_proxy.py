"""Fixtures: the proxy as a user starts it, before a real PostgreSQL.

`proxies(…)` gives a running proxy with some options; equal options share one, as starting takes
a second.  `own_proxy(…)` gives one that only this test has, to stop, reload and break.
`proxy` is the plain one: one worker, session mode, guard on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.pg_server import Server, free_port
from tests.warm import Program, Warm
from tests.wire_client import WireClient, wait_until

ROOT = Path(__file__).parent.parent
START_S = 30.0
STOP_S = 20.0

PASSWORDS = {
    "acme_app": "acme-secret",
    "beta_app": "beta-secret",
    "admin": "admin-secret",
    "viewer": "viewer-secret",
}


def base_config(pg: Server) -> dict[str, Any]:
    """Two tenants, a login each, an admin and a viewer; ports are filled in by `Proxy`."""
    return {
        "workers": 1,
        "listen": {"addresses": ["127.0.0.1"]},
        "clusters": [{"name": "main", "host": pg.host, "port": pg.port, "database": "app"}],
        "tenants": [{"name": "acme"}, {"name": "beta"}],
        "users": [
            {"name": "acme_app", "tenant": "acme", "password": {"value": PASSWORDS["acme_app"]}},
            {"name": "beta_app", "tenant": "beta", "password": {"value": PASSWORDS["beta_app"]}},
            {"name": "admin", "admin": True, "password": {"value": PASSWORDS["admin"]}},
            {"name": "viewer", "stats": True, "password": {"value": PASSWORDS["viewer"]}},
        ],
        "timeouts": {"drain_s": 5},
        "log": {"format": "json", "level": "info"},
    }


def merged(base: Any, changes: Any) -> Any:
    """`changes` laid over `base`: mappings merge, everything else replaces."""
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    return {**base, **{key: merged(base.get(key), value) for key, value in changes.items()}}


#: what a proxy runs that is not started afresh
SERVE = "import sys; from tenant_proxy.cli import main; sys.exit(main())"


class Proxy:
    """A `tenant-proxy serve` process with a configuration file of its own."""

    host = "127.0.0.1"

    def __init__(self, directory: Path, config: dict[str, Any], warm: Warm | None = None) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.config_path = directory / "tenant_proxy.yaml"
        self.log_path = directory / "log"
        self.port = free_port()
        self.metrics_port = free_port()
        self.config: dict[str, Any] = {}
        self._configure(config)
        self._warm = warm
        self.process: subprocess.Popen[bytes] | Program | None = None
        #: set by a test that breaks a worker on purpose
        self.expects_dead_workers = False

    def _configure(self, config: dict[str, Any]) -> None:
        self.config = merged(
            config,
            {"listen": {"port": self.port}, "metrics": {"port": self.metrics_port, "address": self.host}},
        )
        self.config_path.write_text(yaml.safe_dump(self.config, sort_keys=False))

    # --- life

    def start(self) -> None:
        # what a developer has set must not decide how the tests end
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "TENANT_PROXY"))}
        arguments = ["serve", "-c", str(self.config_path)]
        if self._warm is not None:
            self.process = self._warm.start(SERVE, arguments, env=env, log=self.log_path)
        else:
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "tenant_proxy", *arguments],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=env,
                )
        try:
            wait_until(lambda: self.process_ended() or self.is_ready(), "the proxy is ready", START_S)
            assert self.process.poll() is None, f"the proxy exited with {self.process.returncode}"
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}; its log ends:\n{self.log()[-4000:]}") from None

    def process_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = STOP_S) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self) -> None:
        """SIGTERM; it must end by itself, with success, leaving no process and no trace of a bug."""
        if self.process is None:
            return
        family = self.process_tree()
        if self.process.poll() is None:
            self.terminate()
        try:
            status = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"SIGTERM did not end the proxy; its log ends:\n{self.log()[-4000:]}"
            ) from None
        self.process = None
        assert status == 0, f"the proxy exited with {status}; its log ends:\n{self.log()[-4000:]}"
        wait_until(lambda: not any(_running(pid) for pid in family), "all of the proxy's processes ended", 5)
        assert "Traceback" not in self.log(), self.log()[-6000:]

    def kill(self) -> None:
        """Ends it the hard way, whatever state it is in."""
        if self.process is None:
            return
        family = self.process_tree()
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not any(_running(pid) for pid in family), "orphans ended by themselves", STOP_S)
        self.process = None

    def process_tree(self) -> list[int]:
        assert self.process is not None
        tree = [self.process.pid]
        for pid in tree:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may just have ended
                for path in Path(f"/proc/{pid}/task").glob("*/children"):
                    tree += [int(child) for child in path.read_text().split()]
        return tree

    def worker_pids(self) -> list[int]:
        """Of the worker processes, in order of their slots as far as pids tell."""
        return [pid for pid in self.process_tree() if "tenant_proxy.worker" in _command(pid)]

    def rss_bytes(self, pid: int) -> int:
        """Resident memory of a process."""
        (line,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(line) * 1024

    # --- configuration

    def reload(self, config: dict[str, Any]) -> None:
        """Writes a new file and has it read through the admin console, which answers when it is in force."""
        self._configure(config)
        self.admin("RELOAD")

    # --- ways in

    def dsn(self, user: str = "acme_app", database: str = "app", **settings: str) -> str:
        """libpq connection string for a login of the proxy."""
        parts = {"host": self.host, "port": str(self.port), "dbname": database, "user": user}
        parts |= {"password": PASSWORDS[user.split(".")[0]]} if user.split(".")[0] in PASSWORDS else {}
        parts |= settings
        return " ".join(f"{k}='{v}'" for k, v in parts.items())

    def url(self, user: str = "acme_app", database: str = "app", scheme: str = "postgresql") -> str:
        return f"{scheme}://{user}:{PASSWORDS[user]}@{self.host}:{self.port}/{database}"

    def wire(self, user: str = "acme_app", **options: Any) -> WireClient:
        """A raw-protocol client that is logged in."""
        options.setdefault("password", PASSWORDS.get(user, ""))
        return WireClient.open(self.host, self.port, user=user, **options)

    def connect(
        self, user: str = "acme_app", *, autocommit: bool = True, **settings: str
    ) -> psycopg.Connection:
        """A psycopg connection."""
        return psycopg.connect(self.dsn(user, **settings), autocommit=autocommit)

    def admin(self, command: str, user: str = "admin") -> list[dict[str, str]]:
        """Runs a command of the admin console; its rows."""
        with psycopg.connect(self.dsn(user, "tenant_proxy"), autocommit=True) as conn:
            cursor = psycopg.ClientCursor(conn, row_factory=psycopg.rows.dict_row)
            cursor.execute(command)
            return cursor.fetchall() if cursor.description else []

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of the HTTP endpoint."""
        url = f"http://{self.host}:{self.metrics_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
        """Every sample: name -> labels -> value."""
        found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name that have these labels."""
        wanted = set(labels.items())
        return sum(value for found, value in self.metrics().get(name, {}).items() if wanted <= found)

    # --- what it says

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @contextmanager
    def log_contains(self, pattern: str, times: int = 1) -> Iterator[None]:
        """What is done inside makes the log say this, at least so often."""
        before = len(self.log())
        yield
        wait_until(
            lambda: len(re.findall(pattern, self.log()[before:])) >= times, f"{pattern!r} in the log {times}×"
        )


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Proxies:
    """Starts proxies, and keeps those that tests share; when there are too many the one that was used
    least ends, uses of long ago counting less: what all files use stays, what one uses goes."""

    MAX_SHARED = 8

    def __init__(self, base: Path, warm: Warm) -> None:
        self._base = base
        self._warm = warm
        self._shared: dict[str, Proxy] = {}
        self._uses: defaultdict[str, float] = defaultdict(float)
        self._count = 0

    def new(self, config: dict[str, Any], *, fresh: bool = False) -> Proxy:
        self._count += 1
        proxy = Proxy(self._base / f"proxy{self._count}", config, None if fresh else self._warm)
        proxy.start()
        return proxy

    def shared(self, config: dict[str, Any]) -> Proxy:
        key = json.dumps(config, sort_keys=True)
        self._uses[key] += 1
        proxy = self._shared.pop(key, None)
        if proxy is not None and proxy.process_ended():
            proxy = None
        if proxy is None:
            if len(self._shared) >= self.MAX_SHARED:
                # the test that asks may be using the latest
                self._shared.pop(min([*self._shared][:-3], key=self._uses.__getitem__)).stop()
                for other in self._uses:
                    self._uses[other] /= 2
            proxy = self.new(config)
        self._shared[key] = proxy  # moves to the end: the most lately used
        return proxy

    def stop(self) -> None:
        problems = []
        for proxy in self._shared.values():
            try:
                proxy.stop()
            except AssertionError as error:
                problems.append(str(error))
        assert not problems, "\n".join(problems)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    warm = Warm()
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def proxy_pool(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[Proxies]:
    pool = Proxies(tmp_path_factory.mktemp("proxy"), warm)
    yield pool
    pool.stop()


@contextmanager
def unbroken(proxy: Proxy) -> Iterator[None]:
    """No worker ends, and no bug of ours is logged, while a test runs: a crash would be restarted."""
    workers, before = proxy.worker_pids(), len(proxy.log())
    yield
    said = proxy.log()[before:]
    assert proxy.worker_pids() == workers, f"a worker ended during this test; the log:\n{said[-4000:]}"
    assert "Traceback" not in said, said[-6000:]


class Direct(Proxy):
    """PostgreSQL in the place of a proxy: what a test expects of the proxy must hold here first."""

    def __init__(self, server: Server) -> None:
        self.port = server.port
        self.directory = server.directory
        self.log_path = server.log_path
        self.process = None
        with server.connect() as conn:
            for name in ("acme", "beta"):
                conn.execute(f"ALTER ROLE {name}_app SET search_path = {name}, public")

    def worker_pids(self) -> list[int]:
        return []

    def admin(self, command: str, user: str = "admin") -> list[dict[str, str]]:
        pytest.skip("the console is the proxy's own")

    def get(self, path: str) -> tuple[int, str]:
        pytest.skip("metrics are the proxy's own")


@pytest.fixture
def proxies(pg: Server, request: pytest.FixtureRequest) -> Iterator[Callable[..., Proxy]]:
    """A shared proxy with these changes to `base_config`."""
    if request.config.getoption("--direct"):
        yield lambda server=None, **_: Direct(server or pg)
        return
    proxy_pool: Proxies = request.getfixturevalue("proxy_pool")
    checks = []

    def make(server: Server | None = None, **changes: Any) -> Proxy:
        proxy = proxy_pool.shared(merged(base_config(server or pg), changes))
        check = unbroken(proxy)
        check.__enter__()
        checks.append(check)
        return proxy

    yield make
    for check in checks:
        check.__exit__(None, None, None)


@pytest.fixture
def own_proxy(pg: Server, proxy_pool: Proxies) -> Iterator[Callable[..., Proxy]]:
    """A proxy of this test's own; it must end cleanly unless the test has ended it.  `fresh`: started as
    users start it, which takes a second."""
    made: list[Proxy] = []

    def make(server: Server | None = None, *, fresh: bool = False, **changes: Any) -> Proxy:
        made.append(proxy_pool.new(merged(base_config(server or pg), changes), fresh=fresh))
        return made[-1]

    yield make
    for proxy in made:
        proxy.stop()


@pytest.fixture
def proxy(proxies: Callable[..., Proxy]) -> Proxy:
    """One worker, session mode, guard on."""
    return proxies()


@pytest.fixture
def tx_proxy(proxies: Callable[..., Proxy]) -> Proxy:
    """One worker, transaction mode."""
    return proxies(pool={"mode": "transaction"})


@pytest.fixture(params=["session", "transaction"])
def each_mode(request: pytest.FixtureRequest, proxies: Callable[..., Proxy]) -> Proxy:
    """Both pool modes, one after the other."""
    return proxies(pool={"mode": request.param})
