"""Where a worker's CPU goes: perf record of the busiest process of a target while pgbench runs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from loadtests import bench, pgbench, procfs
from loadtests.postgres import Postgres
from loadtests.scenarios import choose
from loadtests.targets import TARGETS
from loadtests.work import Effort, Pgbench

#: of CPU time; a fixed period also samples processes that run for microseconds at a time
PERIOD_NS = 200_000


class ProfileError(Exception):
    """There is no perf, or it may not, or the scenario is not pgbench's."""


def profile(name: str, target_name: str, effort: Effort, top: int, *, callers: bool) -> str:
    """perf's report as text: share of samples, object and symbol, the first `top` lines."""
    scenario = choose([name])[0]
    if not isinstance(scenario, Pgbench):
        raise ProfileError(f"{name} is not a scenario of pgbench")
    if shutil.which("perf") is None:
        raise ProfileError("perf is not installed (Debian: linux-perf)")
    postgres = Postgres()
    postgres.start(bench.QUICK_SCALE)
    try:
        target = TARGETS[target_name](postgres, scenario.mode)
        target.start()
        try:
            root = target.pid
            assert root is not None
            before = procfs.cpu_by_process(root)
            scenario.warm_up(target, effort)
            pid = procfs.busiest(before, procfs.cpu_by_process(root))
            with tempfile.TemporaryDirectory(prefix="loadtests-perf-") as folder:
                data = Path(folder) / "perf.data"
                recorder = _record(pid, data, callers=callers)
                try:
                    job = pgbench.Job(
                        scenario.builtin,
                        scenario.protocol,
                        scenario.clients,
                        seconds=effort.seconds,
                        connect=scenario.connect,
                        log=False,
                    )
                    [run] = pgbench.run([(job, scenario.endpoint(target))])
                finally:
                    recorder.terminate()
                    _, errors = recorder.communicate(timeout=60)
                if not data.exists():
                    raise ProfileError(f"perf recorded nothing: {errors.strip()[-400:]}")
                head = f"{scenario.name} on {target.name}: {run.summary.tps:,.0f} transactions/s under perf"
                return f"{head}\n{_report(data, top, callers=callers)}"
        finally:
            target.stop()
    finally:
        postgres.stop()


def _record(pid: int, data: Path, *, callers: bool) -> subprocess.Popen[str]:
    command = [
        "perf",
        "record",
        "-q",
        "-e",
        "task-clock",
        "-c",
        str(PERIOD_NS),
        "-p",
        str(pid),
        "-o",
        str(data),
    ]
    if callers:
        command += ["--call-graph", "dwarf,16384"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _report(data: Path, top: int, *, callers: bool) -> str:
    """Objects first, then symbols."""
    parts = []
    for sort in ("dso", "dso,symbol"):
        command = [
            "perf",
            "report",
            "-i",
            str(data),
            "--stdio",
            "--fields",
            f"overhead,{sort}",
            "--percent-limit",
            "0.2",
        ]
        command += ["--no-children"] if callers and sort == "dso,symbol" else ["--no-children", "-g", "none"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise ProfileError(f"perf report failed: {done.stderr.strip()[-400:]}")
        lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip() and line[0] != "#"]
        parts.append("\n".join(lines[:top]))
    return "\n\n".join(parts)
