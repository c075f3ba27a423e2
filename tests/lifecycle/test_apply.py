"""Tenants declared in files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.states import State
from tenant_proxy.cli import main
from tenant_proxy.lifecycle import declared
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tests.fix_lifecycle import each_major

FILES = {
    "plans.yaml": """
plans:
  - {name: standard, description: Most, spec: {max_clients: 50, pool: {max: 5}}}
""",
    "tenants/a.yml": """
tenants:
  - name: acme
    plan: standard
    labels: {tier: gold}
    spec: {pool: {max: 9}}
    access:
      - {login: alice}
      - {login: bob, level: readonly}
""",
    "tenants/b.yaml": """
tenants:
  - {name: beta, state: suspended, reason: unpaid}
---
tenants:
  - {name: gamma, state: ready}
""",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "declared" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "declared"


async def applied(verbs, folder, **options) -> list[str]:
    """What differed, made as declared."""
    changes = await declared.difference(verbs, declared.read([folder]), **options)
    made = await declared.make(verbs, [change for change in changes if change.make])
    assert made.failed == []
    return [f"{change.sign} {change.kind} {change.name}" for change in changes]


async def test_made_as_declared_and_again_nothing(verbs, folder):
    assert await applied(verbs, folder) == [
        "+ plan standard",
        "+ tenant acme",
        "+ access alice on acme",
        "+ access bob on acme",
        "+ tenant beta",
        "+ tenant gamma",
    ]
    states = {tenant.name: tenant.state for tenant in await verbs.tenant_list()}
    assert states == {"acme": State.ACTIVE, "beta": State.SUSPENDED, "gamma": State.READY}
    assert await applied(verbs, folder) == []


async def test_only_what_differs_is_changed(verbs, folder):
    await applied(verbs, folder)
    await verbs.tenant_set("acme", labels={"more": "x"}, spec={"pool": {"min": 1}, "max_clients": 3})
    (changed,) = await declared.difference(verbs, declared.read([folder]))
    assert {"pool.min: 1 → not its own", "max_clients: 3 → not its own"} <= set(changed.details)
    await verbs.tenant_resume("beta")
    await verbs.access_revoke("acme", "bob")
    await verbs.tenant_create(NewTenant(name="stray"))
    text = (folder / "tenants/a.yml").read_text()
    (folder / "tenants/a.yml").write_text(text.replace("{login: alice}", "{login: alice, level: readwrite}"))
    assert await applied(verbs, folder) == [
        "~ tenant acme",
        "~ access alice on acme",
        "+ access bob on acme",
        "~ tenant beta",
        "? tenant stray",
    ]
    acme = await verbs.tenant_get("acme")
    assert (acme.labels, acme.spec.given()) == ({"tier": "gold"}, {"pool": {"max": 9}})
    assert await applied(verbs, folder, prune=True) == ["- tenant stray"]
    (folder / "tenants/a.yml").write_text(
        "tenants: [{name: acme, schema: other, access: [{login: bob, level: readonly}]}]"
    )
    assert await applied(verbs, folder) == ["? tenant acme", "~ tenant acme", "- access alice on acme"]
    assert (await verbs.tenant_get("acme")).plan is None


async def test_where_logins_may_come_from(verbs, folder):
    (folder / "tenants/a.yml").write_text(
        "tenants: [{name: acme, access: [{login: alice, addresses: [10.0.0.0/8]}]}]"
    )
    await applied(verbs, folder)
    assert await applied(verbs, folder) == []
    await verbs.login_set("alice", addresses=["127.0.0.1"])
    assert await applied(verbs, folder) == ["~ access alice on acme"]
    assert (await verbs.login_get("alice")).addresses == ["10.0.0.0/8"]


async def test_one_that_fails_does_not_stop_the_others(verbs, folder, town):
    with town.connect() as conn:
        conn.execute("CREATE SCHEMA acme")
    changes = await declared.difference(verbs, declared.read([folder]))
    made = await declared.make(verbs, changes)
    assert [(change.name, failure.code) for change, failure in made.failed] == [("acme", "exists")]
    assert {change.name for change in made.done} == {"standard", "beta", "gamma"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tenants: [{name: acme}, {name: acme}]", "declared twice"),
        ("tenants: [{name: acme, nonsense: 1}]", "nonsense"),
        ("tenants: [", "a.yaml"),
        ("[]", "neither plans nor tenants"),
        ("tenants: [{name: acme, plan: gold}]", 'no plan "gold"'),
    ],
)
async def test_mistakes_name_the_file(verbs, tmp_path, text, told):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(Failure, match=told):
        await declared.difference(verbs, declared.read([tmp_path / "a.yaml"]))


@each_major
async def test_what_changes_of_an_end_is_said(verbs, folder):
    """It said "readwrite → readwrite"."""
    await applied(verbs, folder)
    end = datetime(2099, 1, 2, tzinfo=UTC)
    await verbs.access_grant("acme", NewAccess(login="alice", expires_at=end))
    (change,) = [
        one for one in await declared.difference(verbs, declared.read([folder])) if one.kind == "access"
    ]
    assert change.details == ("owner until 2099-01-02 → owner",)


def test_the_command(town, folder, tmp_path, capsys):
    path = tmp_path / "tenant_proxy.yaml"
    path.write_text(yaml.safe_dump(town.config()))
    path.chmod(0o600)
    apply = ["apply", "-c", str(path), "-f", str(folder)]
    assert main([*apply, "--dry-run"]) == 1
    said = capsys.readouterr().out
    assert "+ tenant acme" in said
    assert "6 to be made" in said
    assert main([*apply, "--yes"]) == 0
    said = capsys.readouterr().out
    assert "alice: postgresql://alice:" in said
    assert "6 changes made" in said
    assert main([*apply, "--dry-run"]) == 0
    assert "all is as declared" in capsys.readouterr().out
    assert main(["tenant", "suspend", "-c", str(path), "acme"]) == 0
    capsys.readouterr()
    assert main([*apply, "--json"]) == 1  # nobody said yes
    assert capsys.readouterr().out.strip() == ""
    assert main([*apply, "--json", "--dry-run"]) == 1
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["details"] == ["state: suspended → active"]
