"""`make demo` as a newcomer runs it: the tour holds, taken ports are noticed, nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenant_proxy.devel import installs
from tenant_proxy.devel.postgres import client_environment, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ENV_NAMES = {"DSN_ACME", "DSN_BETA", "ADMIN_DSN", "DIRECT_DSN", "METRICS_URL", "PROXY_PID"}


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    port = free_port()
    ports = ["--port", str(port), "--metrics-port", str(free_port(avoid=[port]))]
    return [sys.executable, "-m", "tenant_proxy.devel.demo", "--directory", str(tmp_path / "demo"), *ports]


@contextlib.contextmanager
def staying_demo(arguments: list[str], env_file: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo past its tour."""
    demo = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 60
        while not env_file.exists() and demo.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert env_file.exists(), f"the demo does not stay up:\n{ended(demo)}"
        yield demo
    finally:
        ended(demo)


def test_the_tour_holds_beside_taken_ports_and_leaves_nothing(arguments, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as also:
        port, metrics_port = taken.getsockname()[1], also.getsockname()[1]
        ports = ["--port", str(port), "--metrics-port", str(metrics_port)]
        done = subprocess.run([*arguments, *ports, "--once"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"port {port} is taken" in done.stdout
    assert f"port {metrics_port} is taken" in done.stdout
    assert "✗" not in done.stdout
    assert "SQLSTATE 42501" in done.stdout
    assert not (tmp_path / "demo" / "env").exists()
    assert_nothing_runs(tmp_path)


def test_stays_until_ctrl_c(arguments, tmp_path):
    env_file = tmp_path / "demo" / "env"
    with staying_demo(arguments, env_file) as demo:
        assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
        env = sourced(env_file)
        assert env.keys() >= ENV_NAMES
        assert psql(env["DSN_ACME"], "SELECT count(*) FROM orders") == "3"
        assert psql(env["DSN_BETA"], "SELECT count(*) FROM orders") == "2"
        assert psql(env["DIRECT_DSN"], "SHOW is_superuser") == "on"
        assert "acme" in psql(env["ADMIN_DSN"], "SHOW POOLS")
        os.kill(int(env["PROXY_PID"]), 0)
        demo.send_signal(signal.SIGINT)
        printed, _ = demo.communicate(timeout=30)
    assert demo.returncode == 0, printed
    # what was printed is what was written
    assert all(value in printed for name, value in env.items() if name in ENV_NAMES)
    assert not env_file.exists()
    assert_nothing_runs(tmp_path)


def test_a_second_one_refuses_and_the_first_goes_on_until_it_is_told_to_end(arguments, tmp_path):
    with staying_demo(arguments, tmp_path / "demo" / "env") as demo:
        second = subprocess.run([*arguments, "--once"], capture_output=True, text=True, check=False)
        assert demo.poll() is None
        demo.send_signal(signal.SIGTERM)
        printed, _ = demo.communicate(timeout=30)
    assert second.returncode == 1
    assert "a demo is running here already" in second.stdout
    assert demo.returncode == 0, printed
    assert_nothing_runs(tmp_path)


def test_kill_9_leaves_nothing(arguments, tmp_path):
    with staying_demo(arguments, tmp_path / "demo" / "env") as demo:
        demo.kill()
    assert_nothing_runs(tmp_path, wait_s=20)


def test_says_why_when_the_proxy_dies(arguments, tmp_path):
    env_file = tmp_path / "demo" / "env"
    with staying_demo(arguments, env_file) as demo:
        os.kill(int(sourced(env_file)["PROXY_PID"]), signal.SIGKILL)
        printed, _ = demo.communicate(timeout=30)
    assert demo.returncode == 1
    assert "the proxy ended with status -9" in printed
    assert "proxy.log" in printed
    assert_nothing_runs(tmp_path, wait_s=20)


# --- helpers ---------------------------------------------------------------------


def ended(demo: subprocess.Popen[str]) -> str:
    """What it printed, after it was asked to end if it had not."""
    if demo.poll() is None:
        demo.terminate()
    return "" if demo.stdout is None or demo.stdout.closed else demo.communicate(timeout=30)[0]


def sourced(env_file: Path) -> dict[str, str]:
    """What a shell has after `. .demo/env`."""
    script = f". {shlex.quote(str(env_file))}; " + "; ".join(f'echo "{n}=${n}"' for n in sorted(ENV_NAMES))
    done = subprocess.run(["/bin/sh", "-euc", script], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def psql(dsn: str, sql: str) -> str:
    done = subprocess.run(
        [installs.find().tool("psql"), "-X", "-A", "-t", "-c", sql, dsn],
        capture_output=True,
        text=True,
        env=client_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def assert_nothing_runs(tmp_path: Path, wait_s: float = 0) -> None:
    """No process has the demo's directory in its arguments, or its PostgreSQL's log open."""
    deadline = time.monotonic() + wait_s
    while (left := users_of(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def users_of(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if int(process.name) == os.getpid():
                continue
            opened = [os.readlink(fd) for fd in (process / "fd").iterdir()]
            if str(directory) in command or any(name.startswith(str(directory)) for name in opened):
                found.append(f"{process.name} {command}")
    return found
