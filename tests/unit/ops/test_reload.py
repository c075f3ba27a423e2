"""SIGHUP and RELOAD: all of a good configuration or nothing of a bad one."""

import os
import signal
import urllib.error
import urllib.request

import pytest

from tenant_proxy.config.reload import FIXED_KEYS, keep_fixed
from tenant_proxy.config.schema import Config
from tenant_proxy.hub import HubError
from tests.pg_server import free_port


def generations(supervisor):
    return {supervisor.connect_to(slot).generation for slot in range(2)}


def test_sighup_gives_all_workers_the_new_configuration(start):
    supervisor = start()
    client = supervisor.connect()
    supervisor.write(supervisor.config | {"limits": {"max_clients": 5}})
    supervisor.signal(signal.SIGHUP)
    supervisor.wait_log("reloaded generation=2")
    assert generations(supervisor) == {2}
    assert client.is_open()


def test_a_worker_restarted_later_starts_with_the_new_configuration(start):
    supervisor = start()
    supervisor.signal(signal.SIGHUP)
    supervisor.wait_log("reloaded generation=2")
    os.kill(supervisor.workers()[0], signal.SIGKILL)
    supervisor.wait_log("child=worker:0 exit=")
    assert supervisor.connect_to(0).generation == 2


def test_a_reload_is_done_when_a_worker_that_was_starting_has_the_new_configuration(start):
    supervisor = start(env={"STUB_SLOW": "2"}, wait=False)
    client = supervisor.connect_when_bound()
    assert generations(supervisor) == {1}
    assert client.call("supervisor", "reload")["generation"] == 2
    assert generations(supervisor) == {2}


def test_a_bad_file_changes_nothing_and_every_problem_is_logged_with_its_line(start):
    supervisor = start()
    supervisor.write({"problems": [[3, "workers: must be a number"], [9, "limit: no such key"]]})
    supervisor.signal(signal.SIGHUP)
    supervisor.wait_log("reload failed, the configuration in force stays problems=2 generation=1")
    assert "config.json:3:1: error: workers: must be a number" in supervisor.log
    assert "config.json:9:1: error: limit: no such key" in supervisor.log
    assert generations(supervisor) == {1}
    assert supervisor.status()["reloads"] == {"ok": 0, "failed": 1}


def test_a_reload_asked_for_by_the_console_answers_with_the_problems(start):
    supervisor = start()
    client = supervisor.connect()
    assert client.call("supervisor", "reload") == {"ok": True, "errors": [], "warnings": [], "generation": 2}
    supervisor.write({"problems": [[3, "bad"]]})
    answer = client.call("supervisor", "reload")
    assert not answer["ok"]
    assert answer["generation"] == 2
    assert [error.rpartition("/")[2] for error in answer["errors"]] == ["config.json:3:1: error: bad"]


def test_a_loader_that_crashes_does_not_end_the_service(start):
    supervisor = start()
    supervisor.path.write_text("{")
    supervisor.signal(signal.SIGHUP)
    supervisor.wait_log("configuration loader failed: JSONDecodeError")
    assert supervisor.connect().is_open()


def test_what_a_worker_can_not_use_is_not_used_by_any(start):
    supervisor = start(env={"STUB_REFUSE": "the certificate is not readable"})
    supervisor.write(supervisor.config | {"log": {"level": "error"}})
    answer = supervisor.connect().call("supervisor", "reload")
    assert answer["errors"] == [
        "worker:0 could not use the new configuration: the certificate is not readable"
    ]
    assert generations(supervisor) == {1}


def test_what_needs_a_restart_stays_and_is_told(start):
    supervisor = start()
    supervisor.write(supervisor.config | {"workers": 5, "listen": {"port": free_port()}})
    answer = supervisor.connect().call("supervisor", "reload")
    assert answer["ok"]
    assert [warning.split(":")[0] for warning in answer["warnings"]] == ["listen.port", "workers"]
    assert set(supervisor.workers()) == {0, 1}


def test_the_log_level_changes_at_once(start):
    supervisor = start(log={"level": "error"}, wait=False)
    client = supervisor.connect_when_bound()
    assert supervisor.log == ""
    supervisor.write(supervisor.config | {"log": {"level": "info", "format": "json"}})
    client.call("supervisor", "reload")
    assert '"event": "reloaded", "part": "supervisor", "generation": 2' in supervisor.log


def test_no_reload_while_stopping(start):
    supervisor = start()
    client = supervisor.connect()
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_log("supervisor: draining")
    assert client.call("supervisor", "reload")["errors"] == ["the proxy is stopping"]


def test_the_metrics_address_can_be_changed_and_switched_off(start):
    def answers(port):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as response:
                return response.status == 200
        except urllib.error.URLError:
            return False

    first, second = free_port(), free_port()
    supervisor = start(metrics={"port": first})
    assert answers(first)
    supervisor.write(supervisor.config | {"metrics": {"port": second}})
    client = supervisor.connect()
    client.call("supervisor", "reload")
    assert answers(second)
    assert not answers(first)
    supervisor.write(supervisor.config | {"metrics": {"enabled": False}})
    client.call("supervisor", "reload")
    assert not answers(second)
    assert client.call("supervisor", "status")["control"] is None


def test_a_taken_metrics_port_refuses_the_reload(start):
    supervisor = start()
    supervisor.write(supervisor.config | {"metrics": {"port": supervisor.port}})
    answer = supervisor.connect().call("supervisor", "reload")
    assert "the address is in use" in answer["errors"][0]
    assert generations(supervisor) == {1}


def test_only_a_worker_bootstraps_as_one(start):
    client = start().connect()
    with pytest.raises(HubError, match="no method"):
        client.call("supervisor", "no_such_method")


def test_fixed_keys_are_the_ones_that_stay():
    clusters = [{"name": "main", "host": "h", "database": "d"}]
    old = Config.model_validate({"clusters": clusters})
    new = Config.model_validate(
        {
            "clusters": clusters,
            "workers": 4,
            "listen": {
                "addresses": ["::1"],
                "port": 1,
                "backlog": 1,
                "unix_socket_dir": "/x",
                "tls": {"mode": "require"},
            },
            "limits": {"max_clients": 1},
        }
    )
    kept, warnings = keep_fixed(old, new)
    assert {warning.split(": ")[0] for warning in warnings} == FIXED_KEYS
    assert kept.workers == 1
    assert kept.listen.port == 6432
    assert kept.listen.tls.mode == "require"
    assert kept.limits.max_clients == 1
    assert keep_fixed(old, old) == (old, [])
