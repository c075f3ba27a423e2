"""What the catalog says is laid under the file, by difference."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.config.load import load_text
from tenant_proxy.tenancy.records import Builder, Served
from tenant_proxy.tenancy.registry import Registry

FILE = """
clusters:
  - {name: main, host: h, database: app, service: {user: service}}
  - {name: other, host: h, port: 5433, database: app}
pool: {mode: transaction}
tenants: [{name: acme, cluster: main}]
users: [{name: acme_app, tenant: acme, password: {value: s}}]
"""
VERIFIER = "SCRAM-SHA-256$4096:c2FsdA==$" + "A" * 43 + "=:" + "B" * 43 + "="


@pytest.fixture
def registry() -> Registry:
    return Registry.build(load_text(FILE, environ={}).config)


def tenant(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "cluster": "main", "schema": name, **more}


def login(name: str, *tenants: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "tenants": list(tenants), "verifier": {"value": VERIFIER}, **more}


def problems(registry: Registry, served: Served) -> dict[str, str]:
    return {name: why for _, name, why in registry.serve(served).problems}


def test_only_what_differs_has_changed(registry: Registry):
    logins = [login("b", "beta"), login("g", "gamma")]
    first = registry.serve(Served([tenant("beta"), tenant("gamma")], logins))
    assert (first.tenants, first.logins) == ({"beta", "gamma"}, {"b", "g"})
    acme, gamma = registry.tenants["acme"], registry.tenants["gamma"]
    second = registry.serve(Served([tenant("beta", max_clients=5)], [], ["delta"], [], whole=False))
    assert (second.tenants, second.logins, second.granted) == ({"beta"}, set(), set())
    assert registry.tenants["beta"].max_clients == 5
    # all once more, without one tenant and one login
    third = registry.serve(Served([tenant("beta", max_clients=5)], [login("b", "beta")]))
    assert (third.tenants, third.logins, third.granted) == ({"gamma"}, {"g"}, {"gamma"})
    assert registry.tenants["acme"] is acme
    assert gamma not in registry.tenants.values()
    assert [one.name for one in registry.logins_of("beta")] == ["b"]
    assert registry.logins_of("gamma") == []


def test_what_is_alike_is_made_once(registry: Registry):
    pool = {"max": 5}
    registry.serve(Served([tenant("beta", pool=pool), tenant("gamma", pool=dict(pool))]))
    assert registry.tenants["beta"].pool is registry.tenants["gamma"].pool


def test_a_row_without_a_space_is_as_alike_as_one_with(monkeypatch: pytest.MonkeyPatch):
    """Only tenants that were renamed have one."""
    builder = Builder(load_text(FILE, environ={}).config)
    first = builder.served_tenant(tenant("beta", space=None))
    monkeypatch.delattr(Builder, "_served_tenant")
    second = builder.served_tenant(tenant("gamma", space=None))
    assert (second.name, len(second.space), second.space != first.space) == ("gamma", 13, True)
    assert builder.served_tenant(tenant("delta", space="abc")).space == "abc"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (tenant("acme"), "the file has one of this name"),
        (tenant("beta", cluster="nowhere"), 'this proxy has no cluster "nowhere"'),
        (tenant("beta", schema="acme"), 'its schema is that of tenant "acme"'),
        (tenant("beta", schema="pg_catalog"), '"pg_catalog" is a schema of PostgreSQL itself'),
        (tenant("pgbouncer"), "the name is that of the admin console"),
        (tenant("beta", pool={"maxx": 1}), "maxx: Extra inputs are not permitted"),
        (tenant("beta", settings={"role": "postgres"}), 'the setting "role" is refused'),
        (tenant("beta", cluster="other", isolation="shared"), 'needs service.user of cluster "other"'),
        (tenant("beta", isolation="shared", database="own"), "doesn't go with a database of its own"),
        (tenant("beta", isolation="shared", pool={"mode": "session"}), "needs pool mode transaction"),
        (
            tenant("beta", locked_settings={"app.id": "1"}, policy={"mode": "off"}),
            "locked_settings need policy mode enforce",
        ),
    ],
)
def test_what_cannot_be_used_is_left_out_and_nothing_else(registry: Registry, row: dict[str, Any], why: str):
    found = problems(registry, Served([row, tenant("good")]))
    assert list(found) == [row["name"]]
    assert why in found[row["name"]]
    assert registry.tenants.keys() == {"acme", "good"}
    assert registry.tenants["acme"].schema == "acme"


def test_no_login_of_the_catalog_is_an_admin(registry: Registry):
    found = problems(registry, Served([], [login("evil", admin=True), login("acme_app", "acme")]))
    assert "no rights on the console" in found["evil"]
    assert found["acme_app"] == "the file has one of this name"
    assert registry.logins["acme_app"].password == "s"


def test_a_secret_is_in_no_problem(registry: Registry):
    row = login("a", verifier={"value": VERIFIER, "x": "hidden"})
    (why,) = problems(registry, Served([], [row])).values()
    assert "hidden" not in why
    assert VERIFIER not in why


def test_a_tenant_takes_the_place_that_another_leaves(registry: Registry):
    registry.serve(Served([tenant("beta", schema="s")]))
    found = problems(registry, Served([tenant("gamma", schema="s")], whole=False))
    assert found == {"gamma": 'its schema is that of tenant "beta"'}
    assert not problems(registry, Served([tenant("gamma", schema="s")], [], ["beta"], whole=False))
    assert registry.tenants.keys() == {"acme", "gamma"}


def test_tenants_with_locked_settings_share_a_schema(registry: Registry):
    rows = [tenant(name, schema="shop", locked_settings={"app.id": name}) for name in ("north", "south")]
    assert not problems(registry, Served(rows))
    changed = registry.serve(Served([rows[0] | {"locked_settings": {"app.id": "x"}}], whole=False))
    assert changed.unlocked == {"north"}


def test_a_role_in_place_of_the_tenants_own(registry: Registry):
    registry.serve(Served([tenant("beta")], [login("b", "beta", roles={"beta": "beta_readonly"})]))
    found = registry.tenant_as("beta", "beta_readonly")
    assert found is not None
    assert found.role == "beta_readonly"
    registry.serve(Served([tenant("beta", max_clients=1)], whole=False))
    found = registry.tenant_as("beta", "beta_readonly")
    assert found is not None
    assert found.max_clients == 1
    assert registry.tenant_as("beta", None) is registry.tenants["beta"]
    assert registry.tenant_as("nobody", "x") is None


_WORDS: st.SearchStrategy[Any] = st.sampled_from(
    ["beta", "gamma", "pg_x", "pgbouncer", "Bad", "", "x" * 64, "a b", None, 7, []]
)
_TENANTS = st.fixed_dictionaries(
    {"name": _WORDS, "schema": _WORDS, "cluster": st.sampled_from(["main", "nowhere"])},
    optional={
        "space": _WORDS,
        "max_clients": st.sampled_from([0, 5, -1]),
        "settings": st.sampled_from([{}, {"work_mem": "1MB"}, {"role": "postgres"}]),
        "policy": st.sampled_from([{}, {"mode": "off"}, {"modee": 1}]),
        "labels": st.just({"region": "eu"}),
        "surplus": st.just(1),
    },
)
_LOGINS = st.fixed_dictionaries(
    {"name": _WORDS, "tenants": st.lists(_WORDS, max_size=2)},
    optional={
        "roles": st.sampled_from([{}, {"beta": "beta_rw"}, {"Bad": "x"}, {"beta": None}, []]),
        "server_user": _WORDS,
        "verifier": st.sampled_from([{"value": VERIFIER}, {"value": 1}, {"env": "HOME"}, {}, None]),
        "previous": st.sampled_from([{}, {"verifier": {"value": VERIFIER}, "server_user": "old"}]),
        "tenant": st.sampled_from(["beta", None]),
        "admin": st.booleans(),
        "addresses": st.sampled_from([[], ["10.0.0.0/8"], ["nowhere"]]),
    },
)


@given(st.lists(_TENANTS, max_size=6), st.lists(_LOGINS, max_size=6))
def test_what_is_made_of_one_that_is_alike_is_what_its_row_says(tenants: list[Any], logins: list[Any]):
    config = load_text(FILE, environ={}).config
    builder = Builder(config)

    def made(what: str, row: Any, builder: Builder) -> object:
        try:
            return getattr(builder, what)(row)
        except (ValueError, LookupError) as error:
            return str(error)

    for what, rows in (("served_tenant", tenants), ("served_login", logins)):
        # the second time there is one that is alike
        for row in [*rows, *rows]:
            assert made(what, row, builder) == made(what, row, Builder(config))
