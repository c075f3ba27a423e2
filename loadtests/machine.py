"""Facts of the machine and versions of what runs on it; no host names, no paths."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from pathlib import Path

from loadtests import pgbench
from loadtests.postgres import Postgres, program_version
from loadtests.targets import PgBouncer, TenantProxy, find_pgbouncer


def cpu_model(text: str) -> str:
    """The first model name of a /proc/cpuinfo."""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def memory_gib(text: str) -> float:
    """MemTotal of a /proc/meminfo."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024**2 if found else 0.0


def virtual(text: str) -> bool:
    """Whether a /proc/cpuinfo is of a virtual machine."""
    return re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE) is not None


def facts() -> dict[str, str]:
    """What a reader needs to compare with another machine."""
    info = Path("/proc/cpuinfo").read_text()
    kind = "virtual machine" if virtual(info) else "physical machine"
    return {
        "CPU": f"{os.cpu_count()} × {cpu_model(info)}, {kind}",
        "memory": f"{memory_gib(Path('/proc/meminfo').read_text()):.0f} GiB",
        "kernel": f"Linux {platform.release().split('-')[0]}",
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def versions(postgres: Postgres, targets: list[str]) -> dict[str, str]:
    found = {
        "PostgreSQL": postgres.version(),
        "pgbench": program_version(pgbench.program()),
        "Python": platform.python_version(),
    }
    pgbouncer = find_pgbouncer()
    if PgBouncer.name in targets and pgbouncer:
        found["PgBouncer"] = program_version(pgbouncer)
    if any(name.startswith(TenantProxy.name) for name in targets):
        import tenant_proxy

        found["tenant_proxy"] = tenant_proxy.__version__ + commit()
    return found


def commit() -> str:
    """The commit of the source tree, as in " (1a2b3c4)" or " (1a2b3c4, changed)"; empty outside a tree."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", "tenant_proxy", "setup.py"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f" ({head.stdout.strip()}{', changed' if changed.stdout.strip() else ''})"


def raise_file_limit(wanted: int) -> int:
    """Lifts RLIMIT_NOFILE to `wanted` as far as may be, and returns it; servers started later inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    for limit in ((wanted, max(hard, wanted)), (min(wanted, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
