"""What a reload changes, from when on, and what stays."""

from __future__ import annotations

import json

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.config.reference import keys
from tenant_proxy.config.reload import FIXED_KEYS, When, changes, keep_fixed, when_of
from tenant_proxy.config.transport import from_transport, packed, to_transport
from tests.unit.config.files import config

OLD = """
tenants:
  - {name: acme, pool: {max: 3}, settings: {jit: off}}
  - {name: gone}
users:
  - {name: app, tenant: acme, password: {value: hunter2}}
"""


def sentences(new: str, old: str = OLD) -> list[str]:
    return [str(change) for change in changes(config(old), config(new))]


def test_nothing():
    assert sentences(OLD) == []


def test_a_key_of_a_section():
    assert sentences(OLD + "pool: {max: 30}") == ["pool.max: was 20, is now 30"]


def test_what_counts_for_new_connections_only():
    assert sentences(OLD + "mapping: [login]") == [
        "mapping: was login, user_suffix, options, database, sni, certificate, is now login"
        " (for new connections)"
    ]


def test_tenants_come_and_go():
    assert sentences(OLD.replace("gone", "beta")) == ['tenant "gone" is removed', 'tenant "beta" is added']


def test_the_order_of_tenants_does_not_matter():
    assert not sentences("tenants: [{name: a}, {name: b}]", "tenants: [{name: b}, {name: a}]")


def test_overrides_of_a_tenant():
    assert sentences(OLD.replace("{max: 3}", "{min: 1}").replace("off", "on")) == [
        "tenants[acme].pool.max is removed (was 3)",
        "tenants[acme].pool.min is set to 1",
        'tenants[acme].settings.jit: was "off", is now "on" (for new connections)',
    ]


def test_a_secret_is_not_shown():
    assert sentences(OLD.replace("hunter2", "swordfish")) == [
        "users[app].password is changed (for new connections)"
    ]


def test_what_needs_a_restart_stays():
    old = config("listen: {tls: {min_version: TLSv1.2}}")
    new = config("workers: 3\nlisten: {port: 7000, tls: {min_version: TLSv1.3}}")
    kept, said = keep_fixed(old, new)
    assert (kept.workers, kept.listen.port, kept.listen.tls.min_version) == (1, 6432, "TLSv1.3")
    assert said == [
        "listen.port: 6432 stays in force, a change needs a restart",
        "workers: 1 stays in force, a change needs a restart",
    ]
    assert {change.key for change in changes(old, new) if change.when is When.RESTART} == {
        "workers",
        "listen.port",
    }


def test_what_can_change_is_taken_whole():
    new = config(OLD + "pool: {max: 30}")
    assert keep_fixed(config(OLD), new) == (new, [])


def test_every_key_has_its_time():
    restart = {key.name for key in keys() if when_of(key.name) is When.RESTART}
    assert restart == FIXED_KEYS
    assert when_of("users[].password.env") is When.NEW
    assert when_of("tenants[].pool.max") is When.AT_ONCE


@given(
    st.sampled_from([OLD, OLD + "pool: {max: 7}\n", "workers: 2\n", OLD + "auth: {rules: [{method: md5}]}\n"])
)
def test_a_configuration_survives_its_way_to_a_worker(text):
    built = config(text)
    assert from_transport(json.loads(json.dumps(to_transport(built)))) == built
    assert from_transport(orjson.loads(orjson.dumps({"config": packed(built)}))["config"]) == built


def test_a_password_that_is_no_utf8_survives_its_way_too():
    built = config("secret: {env: SECRET}\n", environ={"SECRET": "caf\udce9"})
    frame = json.loads(json.dumps({"config": packed(built)}))
    assert from_transport(frame["config"]) == built


def test_what_is_dumped_otherwise_has_no_secrets():
    built = config("secret: {value: hunter2}\n")
    assert "hunter2" not in built.model_dump_json() + str(built.model_dump()) + str(
        built.model_dump(mode="json")
    )
    assert built.secret is not None
    assert built.secret.reveal() == "hunter2"
