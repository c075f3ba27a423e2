"""The commands about whole tenants and migrations, as a user types them."""

from __future__ import annotations

import json

import pytest
import yaml

from tenant_proxy.cli import main
from tests.fix_lifecycle import each_major


@pytest.fixture
def run(town, tmp_path, capsys, monkeypatch):
    """`run("tenant list")` gives what it prints; the exit status must be the one expected."""
    path = tmp_path / "tenant_proxy.yaml"
    config = town.config(lifecycle={"signing_key": {"file": str(tmp_path / "key.pem")}})
    assert main(["tenant", "signing-key", str(tmp_path / "key.pem")]) == 0
    (tmp_path / "public.pem").write_text(capsys.readouterr().out)
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    monkeypatch.setenv("TENANT_PROXY_CONFIG", str(path))
    monkeypatch.chdir(tmp_path)

    def run(command: str, status: int = 0) -> str:
        found = main(command.split())
        said = capsys.readouterr()
        assert found == status, said.out + said.err
        return said.out + said.err

    return run


@pytest.mark.slow
@each_major
def test_a_whole_life(run, town, tmp_path):
    (tmp_path / "words").write_text("some secret words\n")
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "V001__notes.up.sql").write_text("CREATE TABLE notes (id int PRIMARY KEY)")
    (tmp_path / "sql" / "V001__notes.down.sql").write_text("DROP TABLE notes")
    run("tenant onboard acme")
    run("tenant onboard beta")
    assert "none" in run("migrate status -d sql", 1)
    assert "2 tenants done" in run("migrate up -d sql --stop-at 10% --canary acme")
    assert json.loads(run("migrate status -d sql --json"))["tenants"][0]["version"] == 1
    assert "1 tenant done" in run("migrate down -d sql --to 0 --tenant beta --yes")
    assert "beta" in run("migrate status -d sql", 1)
    run("migrate up -d sql --stop-at 110%", 2)

    assert "1 tables with 0 rows" in run("tenant export acme acme.tar --pass-phrase-file words")
    assert "pass phrase" in run("tenant archive acme.tar", 1)
    assert "acme" in run("tenant archive acme.tar --pass-phrase-file words")
    run("tenant decrypt acme.tar plain.tar --pass-phrase-file words")
    assert "manifest.json" in (tmp_path / "plain.tar").read_bytes()[:600].decode(errors="replace")
    said = run("tenant import plain.tar gamma")
    assert "tenant gamma is ready" in said
    assert "access grant gamma acme --role owner" in said
    assert "tenant delta is ready" in run("tenant clone acme delta")
    assert "a clone is a new tenant" in run("tenant clone acme beta", 1)

    run("tenant delete acme --yes --grace 1d")
    assert "may be restored until" in run("tenant erase acme --yes", 1)
    assert "none left (signed)" in run("tenant erase acme --yes --now --record erasure.json")
    assert "tenant acme (acme on main) was erased" in run(
        "tenant verify-erasure erasure.json --public-key public.pem"
    )
    run("tenant erasure acme --record again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(
        (tmp_path / "erasure.json").read_text()
    )
    (tmp_path / "erasure.json").write_text((tmp_path / "erasure.json").read_text().replace("acme", "acne"))
    assert "not what was signed" in run("tenant verify-erasure erasure.json", 1)


def test_a_schema_is_scanned_and_adopted(run, town):
    with town.connect() as conn:
        conn.execute("ALTER ROLE town_admin SUPERUSER")
        conn.execute("CREATE SCHEMA old_one; CREATE TABLE old_one.t (id int)")
        conn.execute("GRANT USAGE ON SCHEMA old_one TO PUBLIC")
    try:
        run("tenant create acme --schema old_one")
        assert "PUBLIC has USAGE" in run("tenant scan acme", 1)
        assert "REVOKE USAGE ON SCHEMA old_one FROM PUBLIC;" in run("tenant scan acme --sql", 1)
        assert "tenant acme is ready" in run("tenant adopt acme --yes")
        run("tenant scan acme")
    finally:
        with town.connect() as conn:
            conn.execute("ALTER ROLE town_admin NOSUPERUSER")


def test_hints_lead_to_what_is_wanted(run):
    """ "activate it first" was said to who restored or erased what is ready."""
    run("tenant onboard acme")
    run("tenant create beta")
    run("tenant provision beta")
    for command in ("tenant restore beta", "tenant clone acme beta", "tenant adopt beta --yes"):
        assert "activate" not in run(command, 1)
    assert "hint: delete it first: tenant-proxy tenant delete beta" in run("tenant erase beta --now --yes", 1)


def test_a_scan_knows_what_was_granted(run, town):
    run("tenant onboard acme --login alice")
    run("tenant onboard beta")
    run("access rotate alice")
    run("access grant beta alice --role readonly")
    with town.connect() as conn:
        conn.execute("SET ROLE acme_owner; CREATE TABLE acme.orders (id int)")
    run("access role acme clerk --table orders=select")
    run("access grant acme carl --role clerk")
    run("tenant scan acme")
    run("tenant scan beta")
    with town.connect() as conn:
        conn.execute("GRANT acme_owner TO beta")
    assert "REVOKE acme_owner FROM beta;" in run("tenant scan acme --sql", 1)


def test_any_tool_for_each_tenant(run, town, tmp_path):
    run("tenant onboard acme")
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\ntest $TENANT_OWNER = acme_owner && echo $TENANT >> made\n")
    tool.chmod(0o755)
    assert "1 tenant done" in run("migrate exec --parallel 2 -- ./tool up --now")
    assert (tmp_path / "made").read_text() == "acme\n"
    failed = run("migrate exec -- false", 1)
    assert "1 tenant failed" in failed
    assert "the tool has to know" in failed
