"""scripts/check-machine.sh: what is missing is said in one line, with the command that installs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "check-machine.sh"


def check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, env=os.environ | environment, check=False
    )


@pytest.fixture
def fake_python(tmp_path):
    """A Python that does as `answers` says (part of the code -> shell commands), else what ours does."""

    def make(answers: dict[str, str]) -> str:
        path = tmp_path / "python"
        # the script goes on with what sys.executable is: let that be the fake itself
        cases = {"print(sys.executable)": f"echo {path}", **answers}
        lines = [f'*"{code}"*) {commands}; exit;;' for code, commands in cases.items()]
        path.write_text(
            "\n".join(["#!/bin/sh", 'case "$*" in', *lines, "esac", f'exec "{sys.executable}" "$@"', ""])
        )
        path.chmod(0o755)
        return str(path)

    return make


def test_prints_the_python_when_all_is_there():
    done = check(sys.executable)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).resolve() == Path(sys.executable).resolve()


def test_too_old_a_python():
    assert_one_line(check("false"), "Python >= 3.11 (false is not)")


def test_no_compiler():
    assert_one_line(check(sys.executable, CC="/nonexistent/cc"), "a C compiler (/nonexistent/cc)")


def test_no_venv_module(fake_python):
    assert_one_line(check(fake_python({"import venv": "false"})), "Python's venv module")


def test_no_headers(fake_python):
    assert_one_line(check(fake_python({"get_path": "echo /nowhere"})), "Python's headers (Python.h)")


def assert_one_line(done: subprocess.CompletedProcess[str], what: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"tenant_proxy needs {what}: run   ")
    assert done.stderr.count("\n") == 1
    assert "install" in done.stderr
