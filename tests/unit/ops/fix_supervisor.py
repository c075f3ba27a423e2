"""A supervisor as a real process, with stub workers, for the tests beside this file."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tenant_proxy.hub import HubError
from tests.pg_server import free_port
from tests.warm import Warm

HERE = Path(__file__).parent

#: runs in the supervisor's process; the configuration is JSON, a bad one has "problems": [[line, text]]
MAIN = """
import json, sys
from tenant_proxy import nursery, supervisor
from tenant_proxy.children import RestartPolicy
from tenant_proxy.config.load import Loaded
from tenant_proxy.config.problems import ConfigError, Problem
from tenant_proxy.config.schema import Config

path, stub, pidfile = sys.argv[1:4]

def load():
    data = json.load(open(path))
    if "problems" in data:
        errors = [Problem(path, line, 1, "", text) for line, text in data["problems"]]
        raise ConfigError([*errors, Problem(path, 1, 1, "", "only a warning", severity="warning")])
    return Loaded(Config.model_validate(data))

sys.path.insert(0, stub)
nursery.ENTRIES["tenant_proxy.worker"] = "stub_worker"
sys.exit(supervisor.serve(
    load,
    policy=RestartPolicy(**json.loads(sys.argv[4])),
    pidfile=pidfile or None,
))
"""


class RunningSupervisor:
    def __init__(
        self,
        tmp_path: Path,
        warm: Warm,
        *,
        env: dict[str, str] | None = None,
        pidfile: str = "",
        start_timeout_s: float = 30,
        stable_s: float = 30,
        **config,
    ):
        self.port = free_port()
        self.clients: list[Client] = []
        self.path = tmp_path / "config.json"
        self.config = {
            "workers": 2,
            "listen": {"port": self.port},
            "clusters": [{"name": "main", "host": "127.0.0.1", "database": "app"}],
            "metrics": {"enabled": False},
            **config,
        }
        self.config["listen"].setdefault("port", self.port)
        self.write(self.config)
        self.log_path = tmp_path / "log"
        policy = {
            "first_s": 0.02,
            "max_s": 0.5,
            "stable_s": stable_s,
            "start_timeout_s": start_timeout_s,
            "exit_grace_s": 1,
        }
        self.log_path.touch()
        self.process = warm.start(
            MAIN,
            [str(self.path), str(HERE), pidfile, json.dumps(policy)],
            env=os.environ | {"NOTIFY_SOCKET": ""} | (env or {}),
            log=self.log_path,
        )

    def write(self, config) -> None:
        self.path.write_text(json.dumps(config))

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_log(self, pattern: str, count: int = 1, timeout_s: float = 30) -> list[str]:
        """Waits until `pattern` is in the log `count` times; returns the matches."""
        end = time.monotonic() + timeout_s
        while len(found := re.findall(pattern, self.log)) < count:
            if time.monotonic() > end:
                raise AssertionError(f"not in the log within {timeout_s} s: {pattern}\n{self.log}")
            time.sleep(0.01)
        return found

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait(self, timeout_s: float = 30) -> int:
        return self.process.wait(timeout_s)

    def connect(self) -> "Client":
        client = Client(socket.create_connection(("127.0.0.1", self.port), timeout=30))
        self.clients.append(client)
        client.hello()
        return client

    def connect_when_bound(self) -> "Client":
        end = time.monotonic() + 30
        while True:
            try:
                return self.connect()
            except ConnectionRefusedError:
                assert time.monotonic() < end, self.log
                time.sleep(0.01)

    def connect_to(self, slot: int) -> "Client":
        """A client of a certain worker."""
        end = time.monotonic() + 30
        while True:
            client = self.connect()
            if client.slot == slot:
                return client
            client.close()
            assert time.monotonic() < end, f"worker {slot} does not answer"
            time.sleep(0.01)

    def status(self) -> dict[str, Any]:
        client = self.connect()
        try:
            status: dict[str, Any] = client.call("supervisor", "status")
            return status
        finally:
            client.close()

    def workers(self) -> dict[int, int]:
        """slot -> pid, when all are ready."""
        end = time.monotonic() + 30
        while True:
            workers = self.status()["workers"]
            if all(worker["phase"] == "ready" for worker in workers):
                return {worker["slot"]: worker["pid"] for worker in workers}
            assert time.monotonic() < end, workers
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGINT)
            try:
                self.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(5)
        for client in self.clients:
            client.close()


class Client:
    """A connection to a stub worker, and through it into the hub."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rw")
        self.slot = self.pid = self.generation = -1

    def hello(self) -> None:
        line = self.file.readline()
        if not line:
            raise ConnectionResetError("the worker hung up")
        self.slot, self.pid, self.generation = (int(word) for word in line.split())

    def call(self, target: str, method: str, **params: Any) -> Any:
        self.file.write(json.dumps({"target": target, "method": method, "params": params}) + "\n")
        self.file.flush()
        answer = json.loads(self.file.readline())
        if "error" in answer:
            raise HubError(answer["error"])
        return answer["result"]

    def is_open(self) -> bool:
        try:
            return self.call("supervisor", "status") is not None
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        self.file.close()
        self.sock.close()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_dead(pid: int, timeout_s: float = 5) -> None:
    end = time.monotonic() + timeout_s
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} is still alive"
        time.sleep(0.01)
