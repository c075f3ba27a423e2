"""Settings: startup packet, options, SET, RESET and what ParameterStatus tells of them."""

from __future__ import annotations

import pytest

from tests.wire_client import LoginFailed, WireClient, parameter_status, rows, sqlstates, types


def test_login_reports_the_servers_parameters(both):
    for c in both():
        assert c.parameters["client_encoding"] == "UTF8"
        assert c.parameters["session_authorization"] == "acme_app"
        assert c.parameters["is_superuser"] == "off"
        assert c.parameters["standard_conforming_strings"] == "on"
        assert "server_version" in c.parameters


@pytest.mark.parametrize(
    ("name", "given", "reported"),
    [
        ("client_encoding", "utf-8", "UTF8"),
        # the one name that is not made canonical, for old drivers (check_client_encoding)
        ("client_encoding", "UNICODE", "UNICODE"),
        ("client_encoding", "latin1", "LATIN1"),
        ("DateStyle", "german", "German, DMY"),
        ("datestyle", "iso, dmy", "ISO, DMY"),
        ("TimeZone", "europe/paris", "Europe/Paris"),
        ("timezone", "Asia/Tokyo", "Asia/Tokyo"),
        ("IntervalStyle", "ISO_8601", "iso_8601"),
        ("application_name", "my app", "my app"),
        ("application_name", "żółć", "\\xc5\\xbc\\xc3\\xb3\\xc5\\x82\\xc4\\x87"),
    ],
)
def test_startup_settings_are_reported_as_the_server_writes_them(both, name, given, reported):
    for c in both(**{name: given}):
        (told,) = (value for key, value in c.parameters.items() if key.lower() == name.lower())
        if both.server.major >= 16 or name != "application_name":
            assert told == reported
        assert rows(c.query(f"SHOW {name}")) == [(told,)]


@pytest.mark.parametrize("way", ["startup", "options"])
def test_reset_returns_to_the_startup_value(both, way):
    settings = {
        "startup": {"TimeZone": "Asia/Tokyo", "work_mem": "5MB", "my.flag": "a b'c"},
        "options": {"options": r"-c TimeZone=Asia/Tokyo -c work_mem=5MB --my.flag=a\ b'c"},
    }[way]
    for c in both(**settings):
        for name, value in (("TimeZone", "Asia/Tokyo"), ("work_mem", "5MB"), ("my.flag", "a b'c")):
            assert c.value(f"SHOW {name}") == value
        c.query("SET TimeZone = 'UTC'; SET work_mem = '7MB'; SET my.flag = 'other'")
        assert c.parameters["TimeZone"] == "UTC"
        c.query("RESET TimeZone; RESET work_mem; RESET my.flag")
        assert c.parameters["TimeZone"] == "Asia/Tokyo"
        for name, value in (("work_mem", "5MB"), ("my.flag", "a b'c")):
            assert c.value(f"SHOW {name}") == value
        c.query("SET TimeZone = 'UTC'; SET work_mem = '7MB'")
        c.query("RESET ALL")
        assert c.parameters["TimeZone"] == "Asia/Tokyo"
        assert c.value("SHOW work_mem") == "5MB"


def test_discard_all_returns_to_the_startup_value(both):
    for c in both(TimeZone="Asia/Tokyo", options="-c my.flag=first"):
        c.query("SET TimeZone = 'UTC'; SET my.flag = 'second'")
        c.query("DISCARD ALL")
        assert c.parameters["TimeZone"] == "Asia/Tokyo"
        assert c.value("SHOW TimeZone") == "Asia/Tokyo"
        assert c.value("SHOW my.flag") == "first"


def test_options_in_every_form_that_the_server_takes(both):
    for c in both(options=r"-c geqo=off  --enable_seqscan=off -cwork_mem=6MB -c statement_timeout=30s"):
        assert c.value("SHOW geqo") == "off"
        assert c.value("SHOW enable_seqscan") == "off"
        assert c.value("SHOW work_mem") == "6MB"
        assert c.value("SHOW statement_timeout") == "30s"


def test_options_with_dashes_in_a_name(both):
    for c in both(options="--statement-timeout=31s"):
        assert c.value("SHOW statement_timeout") == "31s"


def test_startup_settings_hold_after_a_failed_transaction(both):
    for c in both(TimeZone="Asia/Tokyo"):
        c.query("BEGIN; SET TimeZone = 'UTC'")
        assert c.parameters["TimeZone"] == "UTC"
        c.query("SELECT 1/0")
        c.query("ROLLBACK")
        assert c.parameters["TimeZone"] == "Asia/Tokyo"
        assert c.value("SHOW TimeZone") == "Asia/Tokyo"


def test_set_is_reported_and_stays(both):
    for c in both():
        replies = c.query("SET application_name = 'renamed'")
        assert types(replies) == "CSZ"
        assert parameter_status(replies[1]) == ("application_name", "renamed")
        c.query("SELECT 1")
        assert c.value("SHOW application_name") == "renamed"


def test_set_local_ends_with_the_transaction(both):
    for c in both():
        c.query("SET my.flag = 'outside'")
        c.query("BEGIN")
        c.query("SET LOCAL my.flag = 'inside'; SET LOCAL TimeZone = 'Asia/Tokyo'")
        assert c.value("SHOW my.flag") == "inside"
        c.query("COMMIT")
        assert c.value("SHOW my.flag") == "outside"
        assert c.parameters["TimeZone"] == "UTC"


def test_set_is_undone_by_rollback_and_kept_by_commit(both):
    for c in both():
        c.query("BEGIN; SET my.flag = 'undone'; ROLLBACK")
        assert c.value("SELECT current_setting('my.flag', true)") in ("", None)
        c.query("BEGIN; SET my.flag = 'kept'; COMMIT")
        assert c.value("SHOW my.flag") == "kept"
        c.query("BEGIN; SAVEPOINT a; SET my.flag = 'inner'; ROLLBACK TO a; COMMIT")
        assert c.value("SHOW my.flag") == "kept"


def test_set_config(both):
    for c in both():
        assert c.value("SELECT set_config('my.flag', 'by function', false)") == "by function"
        assert c.value("SHOW my.flag") == "by function"
        replies = c.extended("SELECT set_config('my.flag', $1, false)", "by parameter")
        assert rows(replies) == [("by parameter",)]
        assert c.value("SHOW my.flag") == "by parameter"


def test_session_characteristics(both):
    for c in both():
        c.query("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        assert c.value("SHOW transaction_isolation") == "serializable"
        c.query("BEGIN READ ONLY; SAVEPOINT a")
        assert c.value("SHOW transaction_read_only") == "on"
        c.query("ROLLBACK")


def test_a_change_of_client_encoding(both):
    for c in both():
        c.query("SET client_encoding = 'LATIN1'")
        assert c.parameters["client_encoding"] == "LATIN1"
        assert [m.body[-1:] for m in c.query("SELECT U&'\\00e9'") if m.type == "D"] == [b"\xe9"]
        c.query("RESET client_encoding")
        assert c.parameters["client_encoding"] == "UTF8"


def test_errors_of_set(both):
    for c in both():
        assert sqlstates(c.query("SET TimeZone = 'Nowhere/Land'")) == ["22023"]
        assert sqlstates(c.query("SET nothing_such = 1")) == ["42704"]
        assert sqlstates(c.query("SET server_version = '1'")) == ["55P02"]
        assert sqlstates(c.query("SET max_connections = 5")) == ["55P02"]
        assert c.value("SHOW TimeZone") == "UTC"


@pytest.mark.parametrize(
    ("settings", "sqlstate"),
    [
        ({"nothing_such": "1"}, "42704"),
        ({"TimeZone": "Nowhere/Land"}, "22023"),
        ({"work_mem": "much"}, "22023"),
        ({"max_connections": "5"}, "55P02"),
        ({"options": "-c nothing_such=1"}, "42704"),
    ],
)
def test_a_wrong_startup_setting_is_refused(both, settings, sqlstate):
    """The login fails as it does directly: FATAL, and the server's words."""
    seen = []
    for peer in both.peers:
        with pytest.raises(LoginFailed) as failed:
            WireClient.open(peer.host, peer.port, **{**peer.settings, **settings})
        assert failed.value.fields["S"] == "FATAL"
        assert failed.value.fields["C"] == sqlstate
        seen.append({k: v for k, v in failed.value.fields.items() if k in "SVCMDH"})
    assert seen[0] == seen[1]


def test_a_wrong_startup_setting_harms_nobody_else(both):
    for _ in both.peers:
        with pytest.raises(LoginFailed):
            WireClient.open(both.peers[1].host, both.peers[1].port, nothing_such="1")
    for c in both():
        assert c.value("SELECT 1") == "1"


def test_an_empty_options_string(both):
    for c in both(options=""):
        assert c.value("SELECT 1") == "1"
    for c in both(options="   "):
        assert c.value("SELECT 1") == "1"
