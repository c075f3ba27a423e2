"""The embedded PostgreSQL that demo, tests and load tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tenant_proxy.devel import installs
from tenant_proxy.devel.postgres import PostgresError, Server, free_port, port_is_free


def test_takes_connections_and_leaves_nothing():
    with Server() as server:
        assert server.psql("SELECT 1") == "1"
        directory, pid = server.directory, server.pid
    assert not directory.exists()
    assert not _lives(pid)


def test_every_installation_serves():
    for install in installs.installs():
        with Server(install) as server:
            assert server.psql("SHOW server_version_num").startswith(str(install.major))


def test_keeps_data_and_port_over_a_restart():
    with Server() as server:
        server.psql("CREATE TABLE kept(x int); INSERT INTO kept VALUES (7)")
        port = server.port
        server.restart()
        assert (server.psql("TABLE kept"), server.port) == ("7", port)


def test_comes_back_after_kill_9():
    with Server() as server:
        server.psql("CREATE TABLE kept(x int)")
        server.kill()
        assert not server.running
        with pytest.raises(PostgresError, match="refused"):
            server.psql("TABLE kept")
        assert server.start().psql("TABLE kept") == ""


def test_settings_and_hba_lines_hold():
    with Server(
        settings={"max_connections": "17"}, hba=["host all nobody_at_all 127.0.0.1/32 reject"]
    ) as server:
        assert server.psql("SHOW max_connections") == "17"
        server.psql("CREATE ROLE nobody_at_all LOGIN PASSWORD 'it''s'")
        with pytest.raises(PostgresError, match="rejects connection"):
            server.psql("SELECT 1", user="nobody_at_all", password="it's")


def test_wants_a_password_also_on_its_socket():
    with Server() as server:
        refused = server.run_tool(
            "psql", ["-w", "-h", str(server.socket_dir), "-p", str(server.port), "-U", "postgres"]
        )
        assert "no password supplied" in refused.stderr


def test_start_fails_with_the_log():
    server = Server(settings={"no_such_setting": "1"})
    try:
        with pytest.raises(PostgresError, match="no_such_setting"):
            server.start()
    finally:
        server.close()


def test_psql_reports_the_first_error():
    with Server() as server, pytest.raises(PostgresError, match='relation "missing" does not exist'):
        server.psql("SELECT 1; TABLE missing; SELECT 2")


def test_keeps_a_directory_that_was_given(tmp_path_factory):
    # below a directory of pytest's the server's account could not reach it
    directory = installs.open_dir() / f"test-{os.getpid()}"
    try:
        with Server(directory=directory) as server:
            server.psql("CREATE TABLE kept()")
        with Server(directory=directory) as server:
            assert server.psql("TABLE kept") == ""
    finally:
        subprocess.run(["rm", "-rf", str(directory)], check=True)


def test_ends_with_a_process_that_was_killed():
    code = (
        "import os, sys; from tenant_proxy.devel.postgres import Server; s = Server().start();"
        "print(s.pid, s.directory, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    pid, directory = child.stdout.readline().split()
    assert _lives(int(pid))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    deadline = time.monotonic() + 20
    while (_lives(int(pid)) or Path(directory).exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(int(pid))
    assert not Path(directory).exists()


def test_free_port_is_free():
    port = free_port()
    assert port_is_free(port)
    with Server(port=port):
        assert not port_is_free(port)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
