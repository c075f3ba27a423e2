"""A supervisor as a real process, with stub workers, for the tests beside this file."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
STUB = HERE / "stub_worker.py"

#: runs in the supervisor's process; the configuration is JSON, a bad one has "problems": [[line, text]]
MAIN = """
import json, sys
from tenant_proxy import supervisor
from tenant_proxy.children import RestartPolicy
from tenant_proxy.config.load import Loaded
from tenant_proxy.config.problems import ConfigError, Problem
from tenant_proxy.config.schema import Config

path, stub, pidfile = sys.argv[1:4]

def load():
    data = json.load(open(path))
    if "problems" in data:
        raise ConfigError([Problem(path, line, 1, "", text) for line, text in data["problems"]])
    return Loaded(Config.model_validate(data))

sys.exit(supervisor.serve(
    load,
    commands=supervisor.Commands(worker=[sys.executable, stub]),
    policy=RestartPolicy(**json.loads(sys.argv[4])),
    pidfile=pidfile or None,
))
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RunningSupervisor:
    def __init__(self, tmp_path: Path, *, env: dict[str, str] | None = None, pidfile: str = "", **config):
        self.port = free_port()
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
        policy = {"first_s": 0.02, "max_s": 0.5, "stable_s": 0.5, "start_timeout_s": 2}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MAIN, str(self.path), str(STUB), pidfile, json.dumps(policy)],
                stderr=log, env=os.environ | {"NOTIFY_SOCKET": ""} | (env or {}),
            )  # fmt: skip

    def write(self, config) -> None:
        self.path.write_text(json.dumps(config))

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_log(self, pattern: str, count: int = 1, timeout_s: float = 10) -> list[str]:
        """Waits until `pattern` is in the log `count` times; returns the matches."""
        end = time.monotonic() + timeout_s
        while len(found := re.findall(pattern, self.log)) < count:
            if time.monotonic() > end:
                raise AssertionError(f"not in the log within {timeout_s} s: {pattern}\n{self.log}")
            time.sleep(0.01)
        return found

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait(self, timeout_s: float = 10) -> int:
        return self.process.wait(timeout_s)

    def connect(self) -> tuple[socket.socket, int, int, int]:
        """A client: (socket, slot, pid of the worker, generation)."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        slot, pid, generation = (int(word) for word in sock.makefile().readline().split())
        return sock, slot, pid, generation

    def workers(self) -> dict[int, int]:
        """slot -> pid, as they answer on the port; of all slots."""
        found: dict[int, int] = {}
        end = time.monotonic() + 10
        while len(found) < self.config["workers"]:
            assert time.monotonic() < end, f"only {found} answer"
            sock, slot, pid, _ = self.connect()
            found[slot] = pid
            sock.close()
        return found

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGINT)
            try:
                self.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(5)


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
