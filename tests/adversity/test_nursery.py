"""The process that children are forked from: it knows nothing, holds nothing, and may be killed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.fix_proxy import PASSWORDS, Proxy
from tests.wire_client import query, wait_until


def commands(proxy: Proxy) -> dict[int, str]:
    return {
        pid: Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        for pid in proxy.process_tree()
    }


def nurseries(proxy: Proxy) -> list[int]:
    return [pid for pid, command in commands(proxy).items() if "nursery" in command]


def state_and_parent(pid: int) -> tuple[str, int]:
    state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    return state, int(parent)


def contains(pid: int, secrets: list[bytes]) -> list[bytes]:
    """Those that are somewhere in the memory that a process may write to."""
    found = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line):
                begin, end = (int(number, 16) for number in match.groups())
                memory.seek(begin)
                data = memory.read(end - begin)
                found |= {secret for secret in secrets if secret in data}
    return sorted(found)


def replaced(proxy: Proxy, victim: int) -> None:
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: proxy.worker_pids() not in ([], [victim]) and proxy.is_ready(), "the worker is replaced"
    )


def test_it_has_no_secrets_and_no_files(own_proxy):
    proxy = own_proxy(fresh=True)
    (nursery,) = nurseries(proxy)
    secrets = [password.encode() for password in PASSWORDS.values()]
    assert contains(proxy.worker_pids()[0], secrets), "the search finds nothing anywhere"
    assert contains(nursery, secrets) == []
    files = [os.readlink(f"/proc/{nursery}/fd/{number}") for number in os.listdir(f"/proc/{nursery}/fd")]
    # its socket to the supervisor
    assert len([file for file in files if file.startswith("socket:")]) == 1
    assert not [file for file in files if "memfd" in file or str(proxy.config_path) in file]


def test_children_are_the_supervisors(own_proxy):
    proxy = own_proxy(fresh=True, workers=2)
    with proxy.log_contains("killed by SIGKILL"):
        victim = proxy.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(proxy.worker_pids()) == 2 and proxy.is_ready(), "the worker is replaced")
    supervisor, *children = proxy.process_tree()
    assert len(children) == 4
    for child in children:
        assert state_and_parent(child)[1] == supervisor
        # a group of its own: Ctrl-C in a terminal is for the supervisor
        assert os.getpgid(child) == child


def test_what_a_killed_worker_leaves_is_reaped(own_proxy):
    proxy = own_proxy(fresh=True)
    (victim,) = proxy.worker_pids()
    with proxy.wire() as c:
        # long enough for a judge process
        c.send(query("SELECT " + "+".join(["1"] * 5000)))
        assert c.until_ready()
    judges = [pid for pid, command in commands(proxy).items() if "judge" in command]
    assert judges
    replaced(proxy, victim)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in judges), "no zombie is left")


def test_it_is_killed(own_proxy):
    """Its children live on, and those that follow are started afresh."""
    proxy = own_proxy(fresh=True)
    (nursery,) = nurseries(proxy)
    with proxy.wire() as c:
        with proxy.log_contains("the nursery has ended"):
            os.kill(nursery, signal.SIGKILL)
        assert c.value("SELECT 1") == "1"
    wait_until(lambda: not Path(f"/proc/{nursery}").exists(), "it is reaped")
    for _ in range(2):
        replaced(proxy, *proxy.worker_pids())
    with proxy.wire() as c:
        assert c.value("SELECT 1") == "1"
    assert nurseries(proxy) == []
