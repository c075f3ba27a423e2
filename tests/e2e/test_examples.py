"""What docs/developers.md tells developers: each of docs/examples/ runs, for two tenants with one login."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tenant_proxy.cli import main
from tests.wire_client import wait_until

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TENANTS = ("acme", "beta")

#: its folder -> migrating a tenant, ordering something; what must be there for it
PROGRAMS = {
    "django": ([sys.executable, "manage.py", "migrate", "--verbosity", "0", "--database"], "manage.py"),
    "sqlalchemy": ([sys.executable, "shop.py", "migrate"], "shop.py"),
    "node": (["node", "shop.js", "migrate"], "shop.js"),
    "rails": (["ruby", "shop.rb", "migrate"], "shop.rb"),
}
NEEDED = {
    "node": (["node", "-e", "require('pg')"], "node, and its package pg where NODE_PATH leads"),
    "rails": (["ruby", "-e", "require 'active_record'; require 'pg'"], "ruby with activerecord and pg"),
}


@pytest.fixture
def dsn(own_proxy, town, capsys, monkeypatch) -> str:
    """Of a login with both tenants, without a database's name."""
    config = town.config(pool={"mode": "transaction"})
    proxy = own_proxy(**config, tenants=[], users=[])
    monkeypatch.setenv("TENANT_PROXY_CONFIG", str(proxy.config_path))

    def command(text: str) -> str:
        assert main(text.split()) == 0
        return str(capsys.readouterr().out).strip()

    found = command("tenant onboard acme --login shop")
    command("tenant onboard beta --login other")
    command("access grant beta shop --role owner")

    def served() -> bool:
        try:
            for tenant in TENANTS:
                psycopg.connect(found.removesuffix("acme") + tenant).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(served, "both tenants are served", 10)
    return found.removesuffix("/acme")


@pytest.mark.parametrize("example", PROGRAMS)
def test_one_process_serves_two_tenants(example: str, dsn: str, tmp_path: Path):
    migrate, program = PROGRAMS[example]
    if example in NEEDED:
        probe, words = NEEDED[example]
        if (
            shutil.which(probe[0]) is None
            or subprocess.run(probe, capture_output=True, check=False).returncode
        ):
            pytest.skip(f"this machine has no {words}")
    run = runner(EXAMPLES / example, dsn)
    for tenant in TENANTS:
        run([*migrate, tenant])
        run([*migrate, tenant])  # it may be repeated
    order = [*migrate[: migrate.index(program) + 1], "order"]
    assert run([*order, "acme", "anvil"]) == "anvil"
    assert run([*order, "beta", "bolt"]) == "bolt"
    assert run([*order, "acme", "rocket"]) == "anvil rocket"


def runner(folder: Path, dsn: str) -> Callable[[list[str]], Any]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    environ |= {"SHOP_DSN": dsn, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
