"""The commands of the tenants' life, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import yaml

from tenant_proxy.cli import main
from tenant_proxy.cli.town import moment, seconds, spec

Run = Callable[..., str]


@pytest.fixture
def run(town, tmp_path, capsys, monkeypatch) -> Run:
    """`run("tenant list")` gives what it prints; the exit status must be the one expected."""
    path = tmp_path / "tenant_proxy.yaml"
    path.write_text(yaml.safe_dump(town.config()))
    path.chmod(0o600)
    monkeypatch.setenv("TENANT_PROXY_CONFIG", str(path))

    def run(command: str, status: int = 0) -> str:
        found = main(command.split())
        said = capsys.readouterr()
        assert found == status, said.out + said.err
        return said.out + said.err if status else said.out

    return run


def answer(run: Run, command: str, status: int = 0) -> Any:
    return json.loads(run(f"{command} --json", status))


def test_the_five_steps(run, town):
    run("plan set standard --set max_clients=50 --set settings.work_mem=8MB --description Most")
    assert "acme is draft" in run("tenant create acme --plan standard --label tier=gold")
    assert "acme is ready" in run("tenant provision acme")
    dsn = run("access grant acme alice --role readwrite --expires 30d").strip()
    assert dsn.startswith("postgresql://alice:")
    assert "acme is active" in run("tenant activate acme")
    password = dsn.split(":")[2].split("@")[0]
    with town.connect("alice", password) as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("acme_readwrite",)
    shown = run("tenant show acme")
    for text in ("standard", "tier=gold", "max_clients", "alice", "readwrite"):
        assert text in shown
    assert "acme" in run("tenant list --label tier=gold --state active")
    assert "there are none" in run("tenant list --label tier=tin")
    assert "the log is whole" in run("audit verify")
    assert "access.grant" in run("audit log")
    assert password not in run("audit log --json") + run("job list --json") + run("job show 2 --json")
    # each again
    for command in ("create acme --plan standard --label tier=gold", "provision acme", "activate acme"):
        run(f"tenant {command}")
    assert "Traceback" not in run("access grant acme alice --role readwrite", 0)


def test_onboard_prints_a_dsn(run, town):
    dsn = run("tenant onboard acme").strip()
    assert dsn.startswith("postgresql://acme:")
    assert run("tenant onboard acme").strip() == "postgresql://acme@127.0.0.1:6432/acme"
    assert answer(run, "tenant show acme")["tenant"]["state"] == "active"


def test_dry_runs_print_sql_and_change_nothing(run, town):
    sql = run("tenant onboard acme --dry-run")
    assert 'CREATE SCHEMA "acme" AUTHORIZATION "acme_owner";' in sql
    assert 'CREATE ROLE "acme" LOGIN NOINHERIT PASSWORD' in sql
    assert answer(run, "tenant list") == []
    assert "acme" not in town.schemas()
    run("tenant create acme")
    place, told = answer(run, "tenant provision acme --dry-run")["sql"]
    assert place == f"-- cluster main, database {town.database}"
    assert told.startswith('BEGIN;\nCREATE ROLE "acme_owner"')
    assert told.endswith("\nCOMMIT;")
    run("tenant provision acme")
    assert "CREATE" not in run("access revoke acme nobody --dry-run")


def test_dry_runs_of_what_the_catalog_alone_is_told(run):
    run("tenant onboard acme")
    run("plan set gold --set max_clients=5")
    run("token create old --role reader")
    head = answer(run, "audit verify")["head"]
    for command, told in {
        "plan set gold --billing base=49 --unset max_clients": "UPDATE plan",
        "plan delete gold": "DELETE FROM plan",
        "token create x --role auditor": "INSERT INTO token",
        "token revoke old": "DELETE FROM token",
        "access login acme --disable": "UPDATE login",
        "job upkeep": "DELETE FROM idempotency",
        "job resume 1": "nothing to do",
    }.items():
        assert told in run(f"{command} --dry-run"), command
    assert answer(run, "audit verify")["head"] == head


def test_what_a_login_is_held_to(run):
    run("tenant onboard acme")
    assert "anywhere" in run("access login acme")
    run("access login acme --from 10.0.0.0/8 --from 127.0.0.1 --max-clients 3 --expires 30d --disable")
    found = answer(run, "access login acme")
    assert (found["addresses"], found["max_clients"]) == (["10.0.0.0/8", "127.0.0.1/32"], 3)
    assert found["disabled"]
    assert found["expires_at"] is not None
    found = answer(run, "access login acme --anywhere --max-clients 0 --expires never --enable")
    assert (found["addresses"], found["max_clients"], found["expires_at"]) == ([], 0, None)
    assert not found["disabled"]
    assert "--from or --anywhere" in run("access login acme --anywhere --from 10.0.0.0/8", 2)


def test_prices_of_a_plan(run):
    run("plan set gold --billing base=49.00 --billing meters.transactions.price=0.5")
    run("plan set gold --billing meters.transactions.included=100 --billing currency=CHF")
    wanted = {
        "base": "49.00",
        "currency": "CHF",
        "meters": {"transactions": {"price": "0.5", "included": "100"}},
    }
    assert answer(run, "plan show gold")["billing"] == wanted
    assert "49.00" in run("plan show gold")
    assert "decimal" in run("plan set gold --billing base=much", 1)
    assert "meters.nonsense" in run("plan set gold --billing meters.nonsense.price=1", 1)
    assert "a value" in run("plan set gold --billing base.x=1", 2)
    run("plan set gold --billing meters= --billing base=")
    assert answer(run, "plan show gold")["billing"] == {"currency": "CHF"}


def test_errors_are_lines_with_a_hint(run):
    said = run("tenant activate acme", 1)
    assert 'there is no tenant "acme"' in said
    run("tenant create acme")
    said = run("tenant activate acme", 1)
    assert 'tenant "acme" is draft' in said
    assert "hint: provision it first: tenant-proxy tenant provision acme" in said
    error = json.loads(run("tenant activate acme --json", 1))["error"]
    assert error["code"] == "conflict"
    assert "NAME=VALUE" in run("tenant create beta --label x", 2)
    assert "no time" in run("access grant acme x --expires soon", 2)
    assert "no job" in run("job show 99", 1)
    assert "name: takes lower-case letters, digits" in run("tenant create Beta", 1)
    assert "nonsense: there is no such key" in run("tenant create beta --set nonsense=1", 1)
    assert 'did you mean "max"?' in run("tenant create beta --set pool.maxx=1", 1)
    assert 'did you mean "max_clients"?' in run("tenant create beta --set max_client=1", 1)
    assert "tenant-proxy plan list" in run("tenant create beta --plan golden", 1)
    assert "clusters[].labels.region" in run("tenant create beta --label region=mars", 1)


def test_the_catalog_away_is_said_in_a_line(run, tmp_path, monkeypatch):
    path = tmp_path / "other.yaml"
    config = yaml.safe_load((tmp_path / "tenant_proxy.yaml").read_text())
    config["catalog"]["dsn"]["value"] = "postgresql://x@127.0.0.1:1/x"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    monkeypatch.setenv("TENANT_PROXY_CONFIG", str(path))
    assert "the catalog can't be reached" in run("tenant list", 1)
    assert "the catalog can't be reached" in run("db status", 1)
    del config["catalog"]
    path.write_text(yaml.safe_dump(config))
    assert "names no catalog" in run("tenant list", 1)


def test_a_life_to_its_end(run, town):
    run("tenant onboard acme")
    run("tenant set acme --set max_clients=3 --label tier=gold")
    assert "suspended: unpaid" in run("tenant suspend acme --reason unpaid")
    run("tenant resume acme")
    run("tenant rename acme anvil")
    assert "to be erased after" in run("tenant delete anvil --grace 7d --yes")
    assert "is suspended: restored" in run("tenant restore anvil")
    rotated = run("access rotate acme --overlap 1h").strip()
    assert rotated.startswith("postgresql://acme:")
    assert rotated.endswith("/anvil")
    run("access rotate acme --end")
    assert "may not reach" in run("access revoke anvil acme --yes")
    assert answer(run, "access list anvil") == []


def test_custom_roles(run, town):
    dsn = run("tenant onboard acme").strip()
    password = dsn.split(":")[2].split("@")[0]
    with psycopg.connect(town.pg.dsn(user="acme", password=password, database=town.database)) as conn:
        conn.execute("CREATE TABLE orders (id int)")
    assert "INSERT, SELECT" in run("access role acme clerk --table orders=select,insert")
    assert run("access grant acme carl --role clerk").startswith("postgresql://carl:")
    assert "at least one" in run("access role acme clerk", 2)
    assert "still granted" in run("access role acme clerk --drop", 1)


def test_plans(run):
    run("plan set big --set own_database=true --set pool.max=9")
    run("plan set big --unset own_database --set pool.min=1")
    assert answer(run, "plan show big")["spec"]["pool"] == {"max": 9, "min": 1}
    run("tenant create acme --plan big")
    assert "tenants have the plan" in run("plan delete big --yes", 1)
    assert answer(run, "plan delete big --yes", 1)["error"]["code"] == "conflict"
    assert answer(run, "plan delete none --yes", 1)["error"]["code"] == "not_found"
    run("plan set small")
    assert answer(run, "plan delete small --yes") == {"done": True, "plan": "small"}
    assert "big" in run("plan list")


def test_db(run, town, tmp_path):
    assert json.loads(run("db status --json"))["ok"]
    assert "nothing to do" in run("db migrate --dry-run")
    assert "at version" in run("db init --follower acme_app")
    with town.pg.connect("acme_app", "acme-secret", town.catalog_dsn.rsplit("/", 1)[1]) as conn:
        assert conn.execute("SELECT count(*) FROM tenant_proxy.served_tenants").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM tenant_proxy.login_secret")
    with town.connect(database=town.catalog_dsn.rsplit("/", 1)[1]) as conn:
        conn.execute("DROP OWNED BY acme_app")


def test_jobs(run, town):
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA acme")
    said = run("tenant onboard acme", 1)
    assert "hint: make it the tenant's: tenant-proxy tenant adopt acme" in said
    assert "undone" in run("job list --tenant acme")
    assert answer(run, "job show 1")["state"] == "undone"
    assert "nothing to do" in run("job upkeep")
    assert "failed" in run("tenant list")


def test_shells_complete_names(run, monkeypatch, capsys):
    run("tenant create acme")
    run("tenant create anvil")
    monkeypatch.setenv("_TENANT_PROXY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "tenant-proxy tenant show a")
    monkeypatch.setenv("COMP_CWORD", "3")
    main([])
    assert capsys.readouterr().out.split() == ["acme", "anvil"]
    monkeypatch.setenv("COMP_WORDS", "tenant-proxy access grant acme alice --role read")
    monkeypatch.setenv("COMP_CWORD", "6")
    main([])
    assert capsys.readouterr().out.split() == ["readwrite", "readonly"]


def test_times_and_values():
    assert seconds("90s") == 90
    assert seconds("2w") == 14 * 86400
    assert moment("never") is None
    assert str(moment("2027-01-31")) == "2027-01-31 00:00:00+00:00"
    assert spec(["pool.max=5", "settings.work_mem=4MB", "isolation=shared"], ["grace_s", "pool.min"]) == {
        "pool": {"max": 5, "min": None},
        "settings": {"work_mem": "4MB"},
        "isolation": "shared",
        "grace_s": None,
    }


def test_usage(run, town):
    with psycopg.connect(town.catalog_dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO tenant_proxy.usage (tenant, hour, proxy, transactions, bytes_out, backend_us)"
            " VALUES ('acme', '2026-11-03 12:00+00', 'a', 1234, 1500000, 90000000)"
        )
        conn.execute("INSERT INTO tenant_proxy.plan (name, billing) VALUES ('gold', '{\"base\": 49}')")
    shown = run("usage show --since 2026-11-01 --until 2026-12-01")
    for text in ("acme", "1,234", "1.5 MB", "0:01:30"):
        assert text in shown
    assert (
        json.loads(run("usage show --since 2026-11-01 --until 2026-12-01 --json"))[0]["transactions"] == 1234
    )
    assert run("usage show --since 2026-10-01 --until 2026-11-01").strip() == "nothing was used"
    assert "acme,2026-11-03T12:00:00Z,1234" in run("usage export --since 2026-11-01 --until 2026-12-01")
    run("tenant create acme --plan gold")
    assert run("usage invoice 2020-01").strip() == "no tenant has a plan with prices"
    assert "is no month" in run("usage invoice november", 1)


def test_a_clash_of_file_and_catalog_fails_the_check(run, town, tmp_path):
    """Proxies go on with what the file says; who looks before a reload is told that it is an error."""
    run("tenant onboard acme")
    run("tenant onboard beta")

    assert "error" not in {one["severity"] for one in json.loads(run("check --json"))["findings"]}
    path = tmp_path / "tenant_proxy.yaml"
    whole = yaml.safe_load(path.read_text())
    whole["tenants"] = [{"name": "acme"}, {"name": "mine", "schema": "beta"}]
    path.write_text(yaml.safe_dump(whole))
    found = json.loads(run("check --json", 1))["findings"]
    assert [(one["code"], one["message"]) for one in found if one["severity"] == "error"] == [
        ("catalog_clash", 'the catalog\'s tenant "acme" is not served: the file has one of this name'),
        ("catalog_clash", 'the catalog\'s tenant "beta" is not served: its schema is that of tenant "mine"'),
    ]


def test_settings_that_a_server_does_not_take(run, tmp_path):
    """They were taken, and then nobody could log in."""
    run("tenant create beta")
    (tmp_path / "tenants.yaml").write_text(
        yaml.safe_dump({"tenants": [{"name": "acme", "spec": {"settings": {"work_mem": "lots"}}}]})
    )
    for command in (
        "tenant onboard acme --set settings.work_mem=lots",
        "tenant create acme --set settings.work_mem=lots",
        "tenant set beta --set settings.work_mem=lots",
        "plan set gold --set settings.work_mem=lots",
        f"apply -f {tmp_path / 'tenants.yaml'} --yes",
    ):
        said = " ".join(run(command, 1).split())
        assert 'settings.work_mem: invalid value for parameter "work_mem": "lots"' in said, command
        assert "an integer from 64 to 2147483647" in said, command
    assert [one["name"] for one in answer(run, "tenant list")] == ["beta"]
