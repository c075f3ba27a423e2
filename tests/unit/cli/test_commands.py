"""The command: what it prints where, its exit status, and that no traceback gets out."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tenant_proxy.supervisor
from tenant_proxy import __version__
from tenant_proxy.auth.scram import derive_keys, parse_verifier
from tenant_proxy.cli import _url_first, check, main

GOOD = "clusters: [{name: main, host: localhost, database: app}]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tp.yaml"
    path.write_text(GOOD)
    return path


# --- --url ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("tenant list --url http://a", "--url http://a tenant list"),
        ("tenant list --url=http://a --json", "--url=http://a tenant list --json"),
        ("--url http://a tenant list", "--url http://a tenant list"),
        ("migrate exec -- curl --url http://a", "migrate exec -- curl --url http://a"),
        ("migrate exec curl --url http://a", "migrate exec curl --url http://a"),
        ("tenant list", "tenant list"),
    ],
)
def test_the_url_may_stand_behind_the_command(given, taken):
    assert _url_first(given.split()) == taken.split()


# --- check ----------------------------------------------------------------------


def test_a_good_file(file, capsys):
    assert main(["check", "--offline", "-c", str(file)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{file}: the file is valid\n", "")


def test_every_problem_on_a_line_of_its_own(file, capsys):
    file.write_text(GOOD + "workers: 0\npool: {mode: transactional}\n")
    assert main(["check", "--offline", "-c", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"{file}:2:10: error: workers: 0 is out of range (allowed: 1 to 256)",
        f'{file}:3:14: error: pool.mode: "transactional" is not a value of this key'
        ' (allowed: session, transaction); did you mean "transaction"?',
    ]


def test_problems_as_json(file, capsys):
    file.write_text(GOOD + "workers: 0\n")
    assert main(["check", "--json", "-c", str(file)]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert answer["problems"] == [
        {
            "file": str(file),
            "line": 2,
            "column": 10,
            "key": "workers",
            "message": "0 is out of range",
            "allowed": ["1 to 256"],
            "hint": "",
            "severity": "error",
        }
    ]
    assert answer["findings"] == []


def test_warnings_alone_are_no_failure(file, capsys):
    file.write_text(GOOD + "auth: {rules: []}\n")
    assert main(["check", "--offline", "-c", str(file)]) == 0
    assert "warning: auth.rules: there is no rule" in capsys.readouterr().err


def test_names_that_look_like_markup_are_printed_as_they_are(file, capsys):
    file.write_text(GOOD + "tenants: [{name: a, cluster: '[red]x[/red]'}]\n")
    main(["check", "--offline", "-c", str(file)])
    assert 'there is no cluster "[red]x[/red]"' in capsys.readouterr().err


def test_the_file_may_come_from_the_environment(file, monkeypatch, capsys):
    monkeypatch.setenv("TENANT_PROXY_CONFIG", str(file))
    assert main(["check", "--offline"]) == 0


# --- serve ------------------------------------------------------------------------


def test_serve_runs_the_supervisor(file, monkeypatch):
    seen = []

    def run(config_path: Path, *, pidfile: Path | None = None) -> int:
        seen.append((config_path, pidfile))
        return 1

    monkeypatch.setattr(tenant_proxy.supervisor, "run", run)
    assert main(["serve", "-c", str(file), "--pidfile", "p"]) == 1
    assert seen == [(file, Path("p"))]


# --- hash-password -----------------------------------------------------------------


def hashed(monkeypatch, capsys, typed: str, *arguments: str) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert main(["hash-password", *arguments]) == 0
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("typed", ["pa ss", "pa ss\n", "pa ss\r\n", "pa ss\nmore\n"])
def test_a_verifier_of_one_line(monkeypatch, capsys, typed):
    verifier = parse_verifier(hashed(monkeypatch, capsys, typed))
    assert derive_keys(b"pa ss", verifier.salt, verifier.iterations).verifier() == verifier


def test_iterations(monkeypatch, capsys):
    assert hashed(monkeypatch, capsys, "x", "--iterations", "5000").startswith("SCRAM-SHA-256$5000:")
    assert main(["hash-password", "--iterations", "1"]) == 2


@pytest.mark.parametrize("typed", ["", "\n", "a\0b\n"])
def test_no_password(monkeypatch, capsys, typed):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert main(["hash-password"]) == 1
    assert capsys.readouterr().err.startswith("tenant-proxy: the password ")


# --- the rest -----------------------------------------------------------------------


def test_version(capsys):
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"tenant-proxy {__version__}\n"


def test_the_json_schema(capsys):
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "tenant_proxy"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["check"], ["check", "--nonsense", "-c", "x"], ["serve", "-c"]]
)
def test_wrong_usage(arguments, monkeypatch, capsys):
    monkeypatch.delenv("TENANT_PROXY_CONFIG", raising=False)
    assert main(arguments) == 2
    assert "Error" in capsys.readouterr().err


def test_help_tells_the_exit_status(capsys):
    assert main(["--help"]) == 0
    assert "0 all is well, 1 problems were found, 2 wrong usage" in capsys.readouterr().out


def test_a_bug_is_one_line_without_what_it_was_about(file, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(check, "load", fail)
    assert main(["check", "-c", str(file)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("tenant-proxy: internal error (RuntimeError at ")
    assert said.count("\n") == 1
    assert "hunter2" not in said


def test_a_problem_of_the_machine_is_one_line(file, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(check, "load", fail)
    assert main(["check", "-c", str(file)]) == 1
    assert capsys.readouterr().err == "tenant-proxy: Permission denied: /x\n"


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "tenant_proxy", "version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"tenant-proxy {__version__}\n")


def test_a_command_imports_what_it_needs_alone():
    """Nearly all the time that a verb takes is imports."""
    heavy = ["rich", "fastapi", "uvicorn", "prometheus_client", "pglast"]
    heavy += ["tenant_proxy.config.crosscheck", "tenant_proxy.cli.estates"]
    code = f"import sys, tenant_proxy.cli.tenant; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_commands_of_another_module_belong_to_the_group(capsys: pytest.CaptureFixture[str]):
    """They are imported when one of them is asked for, or all are listed."""
    for arguments, said in ((["tenant", "--help"], "verify-erasure"), (["tenant", "clone", "--help"], "NEW")):
        assert main(arguments) == 0
        assert said in capsys.readouterr().out
    assert main(["tenant", "nothing"]) == 2
    assert "No such command 'nothing'" in capsys.readouterr().err


def test_options_that_are_not_given(capsys: pytest.CaptureFixture[str]):
    """They get no validator; one that is missing, or wrong, is told all the same."""
    for arguments, said in (
        (["tenant", "list", "--limit", "0"], "--limit"),
        (["tenant", "list", "-c", "/nowhere", "--limit", "x"], "--limit"),
        (["access", "grant", "acme"], "LOGIN"),
    ):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err
