"""The supervisor as a process, with stub workers: restarts, signals, and what survives whom."""

import os
import signal
import socket
import time

import pytest

from tests.pg_server import free_port

from .fix_supervisor import is_alive, wait_dead


def refused(supervisor):
    try:
        supervisor.connect().close()
    except OSError:
        return True
    return False


# --- start ---------------------------------------------------------------------------


def test_says_where_it_listens_when_all_workers_are_ready(start):
    supervisor = start()
    assert f"listen=127.0.0.1:{supervisor.port} workers=2 metrics=off" in supervisor.log
    assert set(supervisor.workers()) == {0, 1}


def test_one_worker_has_the_same_shape(start):
    supervisor = start(workers=1)
    assert len(supervisor.status()["workers"]) == 1


def test_a_taken_port_is_one_clear_line_and_status_1(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        supervisor = start(listen={"port": port}, wait=False)
        assert supervisor.wait() == 1
    (line,) = supervisor.log.splitlines()
    assert f"could not listen on 127.0.0.1:{port}: the address is in use" in line


def test_a_taken_metrics_port_stops_the_start_too(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        supervisor = start(metrics={"port": port}, wait=False)
        assert supervisor.wait() == 1
    assert f"could not listen on 127.0.0.1:{port}" in supervisor.log


def test_listens_on_a_unix_socket_too_and_takes_it_away(start, tmp_path):
    port = free_port()
    path = tmp_path / f".s.PGSQL.{port}"
    supervisor = start(listen={"port": port, "unix_socket_dir": str(tmp_path)})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert client.recv(100).split()[2] == b"1"
    supervisor.signal(signal.SIGINT)
    assert supervisor.wait() == 0
    assert not path.exists()


def test_a_bad_configuration_is_told_whole_and_nothing_starts(start):
    supervisor = start(problems=[[3, "port is no number"], [7, "no such key"]], wait=False)
    assert supervisor.wait() == 1
    assert "config.json:3:1: error: port is no number" in supervisor.log
    assert "config.json:7:1: error: no such key" in supervisor.log


def test_writes_a_pid_file_and_takes_it_away(start, tmp_path):
    pidfile = tmp_path / "pid"
    supervisor = start(pidfile=str(pidfile))
    assert int(pidfile.read_text()) == supervisor.process.pid
    supervisor.signal(signal.SIGTERM)
    supervisor.wait()
    assert not pidfile.exists()


def test_tells_systemd(start, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        supervisor = start(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert listener.recv(100) == b"READY=1"
        supervisor.signal(signal.SIGHUP)
        assert listener.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert listener.recv(100) == b"READY=1"
        supervisor.signal(signal.SIGTERM)
        assert listener.recv(100) == b"STOPPING=1"


# --- a worker dies --------------------------------------------------------------------


def test_a_killed_worker_comes_back_and_takes_only_its_own_clients_with_it(start):
    supervisor = start()
    zero, one = supervisor.connect_to(0), supervisor.connect_to(1)
    os.kill(zero.pid, signal.SIGKILL)
    supervisor.wait_log('child=worker:0 exit="killed by SIGKILL"')
    new = supervisor.connect_to(0)
    assert new.pid != zero.pid
    assert not zero.is_open()
    assert one.is_open()
    restarts = {w["slot"]: w["restarts"] for w in supervisor.status()["workers"]}
    assert restarts == {0: 1, 1: 0}


def test_connections_wait_in_the_queue_while_the_only_worker_restarts(start):
    supervisor = start(workers=1)
    pid = supervisor.connect().pid
    os.kill(pid, signal.SIGKILL)
    wait_dead(pid)
    assert supervisor.connect().pid != pid


def test_the_budget_of_a_dead_worker_is_given_back_and_that_of_others_stays(start):
    supervisor = start()
    zero, one = supervisor.connect_to(0), supervisor.connect_to(1)
    zero.call("worker:0", "take_budget", tenant=3, n=5)
    one.call("worker:1", "take_budget", tenant=3, n=7)
    assert one.call("worker:1", "read_budget", tenant=3) == [5, 7]
    os.kill(zero.pid, signal.SIGKILL)
    supervisor.wait_log("child=worker:0 exit=")
    assert one.call("worker:1", "read_budget", tenant=3) == [0, 7]


def test_mail_for_a_dead_worker_is_there_for_the_next_one(start):
    supervisor = start()
    zero, one = supervisor.connect_to(0), supervisor.connect_to(1)
    os.kill(one.pid, signal.SIGKILL)
    supervisor.wait_log("child=worker:1 exit=")
    zero.call("worker:0", "mail", to=1, text="a socket")
    assert supervisor.connect_to(1).call("worker:1", "read_mail") == "a socket"


def test_pauses_between_restarts_grow(start):
    supervisor = start()
    for count in range(1, 5):
        os.kill(supervisor.workers()[0], signal.SIGKILL)
        supervisor.wait_log("child=worker:0 exit=", count=count)
    pauses = [float(text) for text in supervisor.wait_log(r"pause_s=([\d.]+)", count=4)]
    # 0.02 doubled each time, a fifth of jitter
    assert all(0.8 * 0.02 * 2**n <= pause <= 0.02 * 2**n + 0.001 for n, pause in enumerate(pauses))


def test_after_a_stable_run_the_pause_is_short_again(start):
    supervisor = start(stable_s=0.2)
    for count in range(1, 4):
        supervisor.workers()
        time.sleep(0.3)
        os.kill(supervisor.workers()[0], signal.SIGKILL)
        supervisor.wait_log("child=worker:0 exit=", count=count)
    pauses = supervisor.wait_log(r"child=worker:0 exit=.* pause_s=([\d.]+)", count=3)
    assert all(float(pause) <= 0.021 for pause in pauses)


def test_workers_that_never_come_up_end_the_start(start):
    supervisor = start(env={"STUB_EXIT": "3"}, wait=False)
    assert supervisor.wait() == 1
    assert 'workers do not start, giving up last_exit="exit status 3"' in supervisor.log


def test_a_worker_that_does_not_get_ready_is_killed(start):
    supervisor = start(env={"STUB_HANG": "1"}, workers=1, start_timeout_s=1, wait=False)
    supervisor.wait_log("child does not get ready, killing it child=worker:0")
    supervisor.wait_log('child=worker:0 exit="killed by SIGKILL"')


# --- the supervisor dies ----------------------------------------------------------------


def test_no_child_outlives_the_supervisor(start):
    supervisor = start(metrics={"port": free_port()})
    status = supervisor.status()
    children = [status["control"]["pid"], *(w["pid"] for w in status["workers"])]
    assert all(is_alive(pid) for pid in children)
    supervisor.process.kill()
    for pid in children:
        wait_dead(pid)


# --- stop -------------------------------------------------------------------------------


def test_sigterm_lets_clients_finish_and_takes_no_new_ones(start):
    supervisor = start()
    client = supervisor.connect()
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_log("supervisor: draining")
    assert client.is_open()
    assert client.call("supervisor", "status")["stopping"]
    assert refused(supervisor)
    client.close()
    assert supervisor.wait() == 0


def test_a_drain_ends_after_drain_s(start):
    supervisor = start(timeouts={"drain_s": 0.3})
    client = supervisor.connect()
    began = time.monotonic()
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait() == 0
    assert 0.3 <= time.monotonic() - began < 5
    assert not client.is_open()


def test_a_worker_that_does_not_drain_is_killed_after_a_grace(start):
    supervisor = start(timeouts={"drain_s": 0.1}, env={"STUB_DEAF": "1"}, workers=1)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait() == 0
    assert "killing a worker that has not finished child=worker:0" in supervisor.log


def test_sigint_stops_fast_whatever_clients_do(start):
    supervisor = start(timeouts={"drain_s": 60})
    client = supervisor.connect()
    began = time.monotonic()
    supervisor.signal(signal.SIGINT)
    assert supervisor.wait() == 0
    assert time.monotonic() - began < 3
    assert not client.is_open()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(start, second):
    supervisor = start(env={"STUB_DEAF": "1"})
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_log("supervisor: draining")
    began = time.monotonic()
    supervisor.signal(second)
    assert supervisor.wait() == 0
    assert time.monotonic() - began < 3


def test_a_worker_that_dies_while_draining_is_not_restarted(start):
    supervisor = start()
    zero, one = supervisor.connect_to(0), supervisor.connect_to(1)
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_log("supervisor: draining")
    os.kill(zero.pid, signal.SIGKILL)
    wait_dead(zero.pid)
    assert one.is_open()
    one.close()
    assert supervisor.wait() == 0
    assert "restarting" not in supervisor.log


def test_a_stop_while_a_worker_waits_for_its_restart(start):
    supervisor = start(workers=1)
    os.kill(supervisor.workers()[0], signal.SIGKILL)
    supervisor.wait_log("child exited, restarting")
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait() == 0
