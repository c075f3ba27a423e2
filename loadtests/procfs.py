"""CPU time and memory of process trees, from /proc and the kernel's process clocks (Linux only).

`utime + stime` of /proc/<pid>/stat counts in ticks of 10 ms, per process, which is
too coarse for a second at 1 client.  The process CPU clock is the same sum in
nanoseconds (clock_getcpuclockid(3); it includes ended threads), so a live process
is read from its clock, and only children that have ended and were waited for come
from `cutime + cstime`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What is used of /proc/<pid>/stat; times in seconds."""

    pid: int
    parent: int
    name: str
    cpu_s: float
    #: of children that have ended and were waited for
    children_cpu_s: float


@dataclass(frozen=True, slots=True)
class TreeCpu:
    """CPU seconds of a process tree so far, and which processes were in it."""

    cpu_s: float
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TreeMemory:
    """Memory of a process tree in bytes.

    `pss` shares pages among those who map them; `own` is its part without files
    (programs, libraries), which changes with whoever else on the machine maps the
    same ones.  Both are 0 where they may not be read.
    """

    rss_bytes: int
    pss_bytes: int
    own_bytes: int

    @property
    def total_bytes(self) -> int:
        """PSS where it can be read: RSS counts what processes share once for each of them."""
        return self.pss_bytes or self.rss_bytes

    @property
    def growing_bytes(self) -> int:
        """What work can make grow."""
        return self.own_bytes or self.rss_bytes


def parse_stat(text: str) -> ProcessStat:
    """Reads a line of /proc/<pid>/stat (proc(5)); the name may itself hold spaces and brackets."""
    pid, _, rest = text.partition(" (")
    name, _, tail = rest.rpartition(") ")
    fields = tail.split()
    # fields[0] is field 3 (state), so field n of proc(5) is fields[n - 3]
    utime, stime, cutime, cstime = (int(fields[n - 3]) for n in (14, 15, 16, 17))
    return ProcessStat(
        pid=int(pid),
        parent=int(fields[4 - 3]),
        name=name,
        cpu_s=(utime + stime) * TICK_S,
        children_cpu_s=(cutime + cstime) * TICK_S,
    )


def read_stat(pid: int) -> ProcessStat | None:
    """The process's stat, None if it has gone."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def descendants(root: int, parents: dict[int, int]) -> tuple[int, ...]:
    """`root` and all below it, given each process's parent; sorted."""
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return tuple(sorted(found))
        found |= more


def tree(root: int) -> tuple[int, ...]:
    """Pids of `root` and all its descendants that live now."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = read_stat(int(entry))
            if stat is not None:
                parents[stat.pid] = stat.parent
    return descendants(root, parents)


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a live process (all its threads), 0 if it has gone."""
    # the id that clock_getcpuclockid(3) makes: the pid's complement, and 2 for CPUCLOCK_SCHED
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        stat = read_stat(pid)
        return stat.cpu_s if stat is not None else 0.0


def cpu_by_process(root: int) -> dict[int, float]:
    """CPU seconds of `root` and of each process below it."""
    return {pid: process_cpu_s(pid) for pid in tree(root)}


def busiest(before: dict[int, float], after: dict[int, float]) -> int:
    """The process that used most CPU between two readings (`cpu_by_process`)."""
    return max(after, key=lambda pid: after[pid] - before.get(pid, 0.0))


def run_delay_us(pid: int) -> float:
    """How long the main thread of a process has been ready to run and was not let, in all (schedstat)."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[1]) / 1000


def tree_cpu(root: int) -> TreeCpu:
    """CPU of `root` and all below it, with what ended children of theirs have used."""
    pids = tree(root)
    total = 0.0
    for pid in pids:
        total += process_cpu_s(pid)
        stat = read_stat(pid)
        total += stat.children_cpu_s if stat is not None else 0.0
    return TreeCpu(total, pids)


def cpu_of(pids: tuple[int, ...]) -> float:
    """CPU seconds of these live processes: cheap enough for several readings a second."""
    return sum(process_cpu_s(pid) for pid in pids)


def wait_for_rest(root: int, timeout_s: float) -> bool:
    """Waits until the tree uses next to no CPU; False if it still does when time is up."""
    limit = time.monotonic() + timeout_s
    before = tree_cpu(root).cpu_s
    while time.monotonic() < limit:
        time.sleep(0.3)
        now = tree_cpu(root).cpu_s
        if now - before < 0.01:
            return True
        before = now
    return False


def parse_rollup(text: str) -> tuple[int, int]:
    """PSS and the part of it that is no file's, in bytes, of a /proc/<pid>/smaps_rollup."""
    found = {
        name: int(rest.split()[0]) * 1024
        for name, separator, rest in (line.partition(":") for line in text.splitlines())
        if separator and name.startswith("Pss")
    }
    return found.get("Pss", 0), found.get("Pss_Anon", 0) + found.get("Pss_Shmem", 0)


def private_memory(pid: int) -> int:
    """Bytes that no other process maps; 0 if the process has gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(
        int(line.split()[1]) * 1024
        for line in text.splitlines()
        if line.startswith(("Private_Clean", "Private_Dirty"))
    )


def tree_memory(root: int) -> TreeMemory:
    """RSS and PSS of `root` and all below it."""
    page = os.sysconf("SC_PAGE_SIZE")
    rss = pss = own = 0
    readable = True
    for pid in tree(root):
        try:
            rss += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            one_pss, one_own = parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            readable = False
            continue
        pss += one_pss
        own += one_own
    return TreeMemory(rss, pss, own) if readable else TreeMemory(rss, 0, 0)


@dataclass(frozen=True, slots=True)
class SystemCpu:
    """CPU seconds of the whole machine so far."""

    busy_s: float
    #: what the hypervisor gave to others while we wanted to run
    steal_s: float


def parse_system_cpu(text: str) -> SystemCpu:
    """Reads the first line of /proc/stat: cpu user nice system idle iowait irq softirq steal …"""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(field) for field in text.splitlines()[0].split()[1:9]
    )
    return SystemCpu((user + nice + system + irq + softirq) * TICK_S, steal * TICK_S)


def system_cpu() -> SystemCpu:
    return parse_system_cpu(Path("/proc/stat").read_text())
