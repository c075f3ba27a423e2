"""The habits that a machine can check: lint, types, who imports whom, sizes, what must not be in the text."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tenant_proxy"

BASE = {"errors", "model", "settings_policy", "obs", "config.schema"}

#: package or module -> what of ours it may import (besides itself).  A name stands for all below
#: it.  The data plane's order is wire < net < pool < relay < worker; auth, guard and tenancy are
#: pure and never touch it, so that they can be tested on values; control and admin know it only
#: through the hub.  What stands under `if TYPE_CHECKING:` imports nothing and is not counted.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "settings_policy": {"errors"},
    "obs": {"config.schema"},
    "config": BASE | {"texts"},
    "wire": {"errors", "model", "obs"},
    "net": BASE | {"wire"},
    "auth": BASE,
    # what the guard refuses by name, written into SQL
    "shims": {"guard", "settings_policy"},
    # not what writes SQL for servers
    "guard": BASE | {"shims.names"},
    "tenancy": BASE,
    # edits: a request's text before it was changed
    "pool": BASE | {"wire", "net", "shm", "tenancy", "guard.edits"},
    "relay": BASE | {"wire", "net", "auth", "guard", "shims", "tenancy", "pool", "config", "judge_process"},
    "hub": {"errors", "model", "obs"},
    "judge_process": {"guard", "hub", "model"},
    "shm": set(),
    "texts": set(),
    "usage_shm": {"shm"},
    "preparing": BASE | {"config", "listeners", "system"},
    "served": BASE | {"shm", "tenancy", "pool.budget"},
    "system": set(),
    "listeners": BASE,
    "children": {"hub", "obs", "config.schema"},
    "nursery": {"children", "hub", "obs", "system"},
    "admin": BASE | {"hub", "tenancy", "config"},
    # the tenants' life (decision 14): each may import those before it
    "catalog": BASE | {"auth"},
    "lifecycle": BASE | {"config", "auth", "net.tls", "catalog", "guard", "system", "tenancy.space"},
    "web": set(),
    "api": BASE | {"auth.jwt", "catalog", "lifecycle", "texts", "web"},
    "control": BASE
    | {"hub", "tenancy", "config", "auth", "net.tls", "usage_shm", "catalog", "lifecycle", "api", "web"},
    "devel": set(),
    # these put the others together
    "worker": {"*"},
    "supervisor": {"*"},
    "cli": {"*"},
    "__main__": {"cli"},
}

#: imported by everything above
ALWAYS = {"", "__init__"}

#: nothing here opens a socket, a file or a loop: they are tested on bytes and values alone
PURE = ("wire", "auth", "guard", "tenancy")
PURE_EXCEPTIONS = {
    ("auth.rules", "socket"): "inet_pton alone",
    ("guard.judge", "threading"): "a lock alone",
}
IMPURE_MODULES = {"asyncio", "socket", "selectors", "select", "uvloop", "threading", "subprocess"}

MAX_LINES = 700
#: file -> why it is longer
LONG_FILES: dict[str, str] = {}

SOURCE_SUFFIXES = {".py", ".pyi", ".pyx", ".pxd"}


def test_who_imports_whom():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {own} must not import {target}"
        for path, own in ours()
        for line, target in imports_of(path)
        if not allowed(own, target)
    ]
    assert not wrong, "the layers are in LAYERS (this file) and docs:\n" + "\n".join(wrong)


def test_pure_packages_do_no_io():
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, own in ours()
        if own.split(".")[0] in PURE
        for number, line in numbered(path)
        if (match := re.match(r"\s*(?:import|from)\s+(\w+)", line))
        and match[1] in IMPURE_MODULES
        and (own, match[1]) not in PURE_EXCEPTIONS
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_too_long():
    too_long = {
        name: count
        for path in tracked()
        if path.suffix in SOURCE_SUFFIXES
        and (count := len(path.read_text().splitlines())) > MAX_LINES
        and (name := str(path.relative_to(ROOT))) not in LONG_FILES
    }
    assert not too_long, f"more than {MAX_LINES} lines: split them, or say why in LONG_FILES: {too_long}"


def test_compiled_modules_have_types():
    """mypy and editors see a compiled module only through its stub; those that Python imports need one."""
    imported = {target for path in tracked() if path.suffix == ".py" for _, target in imports_of(path)}
    bare = [
        str(path.relative_to(ROOT))
        for path, own in ours()
        if path.suffix == ".pyx" and own in imported and not path.with_suffix(".pyi").exists()
    ]
    assert not bare, f"write a .pyi beside: {bare}"


def test_stubs_name_what_there_is():
    missing = []
    for path in PACKAGE.rglob("*.pyi"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(name)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not hasattr(module, node.name):
                missing.append(f"{name}.{node.name}")
            if isinstance(node, ast.ClassDef):
                found = getattr(module, node.name, None)
                methods = [member.name for member in node.body if isinstance(member, ast.FunctionDef)]
                missing += [
                    f"{name}.{node.name}.{method}" for method in methods if not hasattr(found, method)
                ]
    assert not missing


@pytest.mark.lint
@pytest.mark.timeout(300)
def test_cython_sees_no_hidden_cost(tmp_path):
    """A performance hint means that a hot function takes the GIL after each call: declare it noexcept."""
    sources = sorted(PACKAGE.rglob("*.pyx"))
    for path in PACKAGE.rglob("*"):
        if path.suffix in SOURCE_SUFFIXES:
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    if not sources:
        pytest.skip("nothing is compiled yet")
    done = subprocess.run(
        [sys.executable, "-m", "cython", "-3", *(str(path.relative_to(ROOT)) for path in sources)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [
        line for line in (done.stdout + done.stderr).splitlines() if re.search("(?i)hint|warning|error", line)
    ]
    assert done.returncode == 0, done.stdout + done.stderr
    assert not said, "\n".join(said)


def test_nothing_of_a_certain_machine_is_in_the_text():
    """Paths of somebody's machine, addresses of registries, credentials in URLs."""
    patterns = [
        r"(?<![\w.])/(?:root|work|home/\w+)/[\w.]+",
        r"/opt/(?:pypi|wheels)",
        r"--(?:extra-)?index-url|index_url|find-links|PIP_INDEX",
        r"://(?:files\.pythonhosted|pypi|test\.pypi)\.org",
        r"-----BEGIN (?:RSA |EC )?PRIVATE KEY-----\n",
    ]
    wrong = []
    for path in tracked():
        if path == Path(__file__) or path.suffix in {".png", ".svg"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            wrong += [
                f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for p in patterns if re.search(p, line)
            ]
    assert not wrong, "\n".join(wrong)


def test_links_between_documents_lead_somewhere():
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in tracked()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert not broken, "\n".join(broken)


def test_the_lock_has_what_pyproject_asks_for():
    asked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "requirements.py", "dev"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {normalized(re.split(r"[\[<>=!~ ]", line)[0]) for line in asked.splitlines()}
    locked = {
        normalized(line.split("==")[0])
        for line in (ROOT / "requirements-dev.lock").read_text().splitlines()
        if "==" in line
    }
    assert names <= locked, f"run `make lock`: {names - locked}"


# --- helpers ---------------------------------------------------------------------


def tracked() -> Iterator[Path]:
    """What is in the repository: by git where this is a clone, else (an sdist) what lies about."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [p for top in ("tenant_proxy", "tests", "docs", "config") for p in (ROOT / top).rglob("*.*")]
    return (path for path in paths if path.is_file())


def ours() -> Iterator[tuple[Path, str]]:
    """Files of the package with their dotted names below it."""
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in SOURCE_SUFFIXES:
            yield path, ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def numbered(path: Path) -> Iterator[tuple[int, str]]:
    return enumerate(path.read_text().splitlines(), start=1)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Dotted names below tenant_proxy that a file imports or cimports, with the line."""
    text = re.sub(
        r"^if TYPE_CHECKING:\n((?:[ \t]+.*\n|\n)+)",
        lambda block: "\n" * block[0].count("\n"),
        path.read_text(),
        flags=re.MULTILINE,
    )
    for match in re.finditer(
        r"^[ \t]*from[ \t]+tenant_proxy((?:\.\w+)*)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n#]*)"
        r"|^[ \t]*c?import[ \t]+tenant_proxy((?:\.\w+)+)",
        text,
        re.MULTILINE,
    ):
        line = text.count("\n", 0, match.start()) + 1
        if match[3]:
            yield line, match[3].lstrip(".")
        else:
            package = match[1].lstrip(".")
            if package:
                yield line, package
            # of `from tenant_proxy.a import b, c` b may be a module too
            for name in re.findall(r"(\w+)(?:\s+as\s+\w+)?\s*(?:,|$|\))", match[2].strip("()\n ") + ","):
                if not package or package_has_module(f"{package}.{name}"):
                    yield line, f"{package}.{name}".lstrip(".")


def package_has_module(dotted: str) -> bool:
    base = PACKAGE.joinpath(*dotted.split("."))
    return base.is_dir() or any(base.with_suffix(suffix).exists() for suffix in SOURCE_SUFFIXES)


def allowed(own: str, target: str) -> bool:
    top, target_top = own.split(".")[0], target.split(".")[0]
    if target_top in ALWAYS or target_top.startswith("__") or top == target_top or top in ALWAYS:
        return True
    assert top in LAYERS, f"tenant_proxy/{top} is new: give it a place in LAYERS"
    may = LAYERS[top]
    if "*" in may:
        return target_top != "devel"
    return any(target == name or target.startswith(name + ".") for name in may)


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
