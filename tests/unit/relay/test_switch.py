"""The SQL that makes shared backends tenants'."""

from tenant_proxy.relay.switch import BASE, ahead_messages, switch_sql

SETTINGS = {**BASE, "search_path": "acme", "application_name": "report", "idle_session_timeout": "10s"}


def test_only_what_differs_from_nobodys_is_set():
    sql = ahead_messages("acme_app", SETTINGS)
    assert sql.count(b"set_config") == 3
    for name, value in ((b"role", b"acme_app"), (b"search_path", b"acme"), (b"application_name", b"report")):
        assert b"set_config('%s', '%s', false)" % (name, value) in sql


def test_another_tenants_backend_is_nobodys_first():
    sql = switch_sql("acme_app", SETTINGS, from_other=True, forget=True, sequences=True)
    before, _, after = sql.partition("SELECT")
    assert before.split("; ")[:4] == ["RESET ROLE", "RESET ALL", "DEALLOCATE ALL", "DISCARD SEQUENCES"]
    assert "standard_conforming_strings" not in after
