"""What a client may ask for in its startup packet: the same that it may SET."""

from __future__ import annotations

import pytest

from tests.wire_client import LoginFailed, sqlstates

REFUSED = [
    {"role": "beta_app"},
    {"role": "postgres"},
    {"role": "none"},
    {"ROLE": "beta_app"},
    {"session_authorization": "beta_app"},
    {"search_path": "beta"},
    {"search_path": "acme, beta"},
    {"search_path": '"acme", "beta"'},
    {"SEARCH_PATH": "beta"},
    {"options": "-c search_path=beta"},
    {"options": "--search_path=beta"},
    {"options": "--search-path=beta"},
    {"options": "-csearch_path=beta"},
    {"options": r"-c search_path=acme,\ beta"},
    {"options": "-c work_mem=4MB -c search_path=acme -c search_path=beta"},
    {"options": "-c role=beta_app"},
    {"options": "-c session_authorization=beta_app"},
    {"options": "-c ROLE=beta_app"},
    {"options": "-c exit_on_error=on"},
    {"exit_on_error": "on"},
    {"standard_conforming_strings": "off"},
    {"backslash_quote": "on"},
    {"client_encoding": "SJIS"},
    {"client_encoding": "GBK"},
    {"session_replication_role": "replica"},
    {"local_preload_libraries": "x"},
    {"is_superuser": "on"},
]


@pytest.mark.parametrize("settings", REFUSED, ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()))
def test_refused(each_mode, settings):
    with pytest.raises(LoginFailed) as failed:
        each_mode.wire(**settings)
    said = failed.value.fields
    assert said["S"] == "FATAL"
    assert said["C"] in ("42501", "22023")
    assert "H" in said or said["C"] == "22023"


@pytest.mark.parametrize("settings", REFUSED[:8], ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()))
def test_policy_is_not_told_before_the_password(proxy, settings):
    with pytest.raises(LoginFailed) as failed:
        proxy.wire(password="wrong", **settings)
    assert failed.value.fields["C"] == "28P01"


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, "acme, public"),
        ({"search_path": "acme"}, "acme"),
        ({"search_path": "ACME, public"}, "acme, public"),
        ({"search_path": '"acme",pg_catalog'}, "acme, pg_catalog"),
        ({"options": "-c search_path=public,acme"}, "public, acme"),
    ],
)
def test_a_search_path_that_stays_inside(each_mode, settings, shown):
    with each_mode.wire(**settings) as c:
        assert (c.value("SHOW search_path") or "").replace('"', "").lower().replace(",", ", ").replace(
            "  ", " "
        ) == shown
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"
        assert (
            c.value(
                "SELECT name FROM countries WHERE code = 'FR'" if "public" in shown else "SELECT 'France'"
            )
            == "France"
        )


def test_the_default_is_what_reset_returns_to(each_mode):
    with each_mode.wire() as c:
        before = c.value("SHOW search_path")
        c.query("SET search_path = pg_catalog")
        assert sqlstates(c.query("SELECT * FROM orders")) == ["42P01"]
        c.query("RESET search_path")
        assert c.value("SHOW search_path") == before
        c.query("SET search_path TO DEFAULT")
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"
        c.query("DISCARD ALL")
        assert c.value("SHOW search_path") == before


def test_role_and_search_path_hold_before_the_first_byte(each_mode):
    """Also for a statement sent in the same write as the last message of the login."""
    with each_mode.wire() as c:
        assert (
            c.value("SELECT current_user || ' ' || session_user || ' ' || current_schema()")
            == "acme_app acme_app acme"
        )


def test_denied_settings_of_the_policy(proxies):
    proxy = proxies(policy={"denied_settings": ["work_mem", "my.*"]})
    for settings in ({"work_mem": "4MB"}, {"my.flag": "1"}, {"options": "-c my.other=1"}):
        with pytest.raises(LoginFailed) as failed:
            proxy.wire(**settings)
        assert failed.value.fields["C"] == "42501"
    with proxy.wire(maintenance_work_mem="8MB") as c:
        assert sqlstates(c.query("SET work_mem = '4MB'")) == ["42501"]
        assert sqlstates(c.query("SET my.flag = 1")) == ["42501"]
        assert sqlstates(c.query("SELECT set_config('my.flag', '1', false)")) == ["42501"]
        assert c.value("SHOW maintenance_work_mem") == "8MB"


def test_observe_mode_keeps_identity_all_the_same(proxies):
    """Observe lets statements through; who a connection is stays the proxy's."""
    proxy = proxies(policy={"mode": "observe"})
    for settings in ({"role": "beta_app"}, {"session_authorization": "beta_app"}):
        with pytest.raises(LoginFailed):
            proxy.wire(**settings)
