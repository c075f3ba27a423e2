"""What is read of /proc."""

import os
import subprocess
import sys

import pytest

from loadtests import procfs

STAT = (
    "77 (tenant (proxy) w) S 12 77 77 0 -1 4194560 500 0 3 0 "
    "150 50 20 10 20 0 3 0 12345 1000000 2000 18446744073709551615 0 0 0 0 0 0"
)


def test_a_stat_line_whose_name_has_brackets_and_spaces():
    stat = procfs.parse_stat(STAT)
    assert (stat.pid, stat.parent, stat.name) == (77, 12, "tenant (proxy) w")
    assert stat.cpu_s == pytest.approx(200 * procfs.TICK_S)
    assert stat.children_cpu_s == pytest.approx(30 * procfs.TICK_S)


def test_descendants_are_found_whatever_the_order_of_pids():
    parents = {1: 0, 50: 1, 20: 50, 30: 20, 99: 1, 10: 30}
    assert procfs.descendants(50, parents) == (10, 20, 30, 50)


def test_pss_of_a_rollup():
    text = (
        "55d0-7ffe ---p 00000000 00:00 0  [rollup]\nRss:  900 kB\nPss:  700 kB\nPss_Dirty: 10 kB\n"
        "Pss_Anon: 400 kB\nPss_File: 290 kB\nPss_Shmem: 10 kB\n"
    )
    assert procfs.parse_rollup(text) == (700 * 1024, 410 * 1024)
    assert procfs.parse_rollup("") == (0, 0)


def test_busy_and_stolen_time_of_the_machine():
    cpu = procfs.parse_system_cpu("cpu  100 10 50 9999 77 5 5 20 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert cpu.busy_s == pytest.approx(170 * procfs.TICK_S)
    assert cpu.steal_s == pytest.approx(20 * procfs.TICK_S)


def test_a_live_tree_has_its_children_and_their_time():
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        found = procfs.tree_cpu(os.getpid())
        assert child.pid in found.pids
        assert procfs.process_cpu_s(child.pid) >= 0.2
        assert procfs.cpu_of((child.pid,)) >= 0.2
        memory = procfs.tree_memory(child.pid)
        assert 0 < memory.growing_bytes <= memory.total_bytes <= memory.rss_bytes
        assert procfs.wait_for_rest(child.pid, timeout_s=10)
        before = procfs.tree_cpu(os.getpid()).cpu_s
        child.stdin.write(b"\n")
    # waited for: its time is ours now, in ticks
    assert procfs.tree_cpu(os.getpid()).cpu_s >= before - 4 * procfs.TICK_S


def test_a_process_that_has_gone():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    assert procfs.read_stat(child.pid) is None
    assert procfs.process_cpu_s(child.pid) == 0
