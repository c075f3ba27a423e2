"""The load tests run, in small, through everything that they are made of."""

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.results import load

ROOT = Path(__file__).parents[2]


def loadtests(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtests", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_quick_run_leaves_figures_report_and_plots(tmp_path):
    done = loadtests(
        "select-simple-1", "copy-in", "--quick", "--targets", "direct,proxy", "--output", str(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr

    results = load(tmp_path / "results.json")
    assert results.quick
    select, copy = results.scenarios
    assert select.targets() == copy.targets() == ["direct", "proxy"]
    assert set(select.values("proxy", "cpu_us")) == {1}
    assert not select.values("direct", "cpu_us"), "there is nothing in between"
    assert copy.values("proxy", "mb_s")[1] > 0

    assert "mean nothing" in (tmp_path / "RESULTS.md").read_text()
    assert {path.name for path in (tmp_path / "plots").iterdir()} >= {"select-cpu.png", "bulk-throughput.png"}

    again = loadtests("check", str(tmp_path / "results.json"))
    assert again.returncode == 1, "a quick run meets no goal"
    assert "not measured" in again.stdout, "there was no PgBouncer to compare with"


def test_what_is_not_there_is_said_with_what_is():
    done = loadtests("nosuch")
    assert done.returncode == 2
    assert "select-simple-16" in done.stdout
    done = loadtests("idle", "--targets", "odyssey")
    assert done.returncode == 2
    assert "pgbouncer" in done.stdout
