"""What is wrong within one section: each kind with its line, column, key and the allowed values."""

from __future__ import annotations

import pytest

from tenant_proxy.config.load import load, load_text
from tenant_proxy.config.problems import ConfigError
from tests.unit.config.files import config, only_problem, problems


def test_an_unknown_key_is_named_with_what_was_meant():
    found = only_problem("""
        listen:
          prot: 6432
        """)
    assert (found.line, found.column, found.key) == (2, 3, "listen.prot")
    assert found.message == 'unknown key "prot"'
    assert found.allowed == ("addresses", "port", "backlog", "unix_socket_dir", "tls")
    assert found.hint == 'did you mean "port"?'


def test_an_unknown_section_lists_the_sections():
    found = only_problem("limit: {}")
    assert (found.line, found.key, found.hint) == (1, "limit", 'did you mean "limits"?')
    assert {"clusters", "tenants", "users", "pool", "policy"} <= set(found.allowed)


def test_a_word_that_is_no_value_of_the_key():
    found = only_problem("""
        pool:
          mode: transactional
        """)
    assert (found.line, found.column, found.key) == (2, 9, "pool.mode")
    assert found.allowed == ("session", "transaction")
    assert found.hint == 'did you mean "transaction"?'


def test_a_literal_that_is_no_value_of_the_key():
    found = only_problem("listen: {tls: {min_version: TLSv1.1}}")
    assert (found.line, found.column) == (1, 29)
    assert found.allowed == ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("listen: {port: 65536}", "listen.port", "1 to 65535"),
        ("workers: 0", "workers", "1 to 256"),
        ("pool: {server_lifetime_jitter: 0.95}", "pool.server_lifetime_jitter", "0 to 0.9"),
        ("pool: {connect_timeout_s: 0}", "pool.connect_timeout_s", "more than 0 to 3600"),
        ("timeouts: {drain_s: -1}", "timeouts.drain_s", "0 to 31536000"),
    ],
)
def test_a_number_out_of_range_shows_the_range(text, key, allowed):
    found = only_problem(text)
    assert (found.line, found.key, found.allowed) == (1, key, (allowed,))
    assert found.message.endswith("is out of range")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers: many", "must be a whole number"),
        ("workers: 1.5", "must be a whole number"),
        ("workers: true", "must be a whole number"),
        ("tenants: [{name: acme, pool: {query_timeout_s: false}}]", "must be a number"),
        ("workers:", "must be a whole number, not null"),
        ("timeouts: {drain_s: long}", "must be a number"),
        ("metrics: {enabled: maybe}", "must be true or false"),
        ("tenants: {name: acme}", "must be a list"),
        ("listen: 6432", "must be a mapping (keys and values)"),
        ("listen: {addresses: [[1]]}", "must be text"),
        ("tenants: [{name: acme, pool: [1]}]", "must be a mapping (keys and values)"),
    ],
)
def test_a_value_of_the_wrong_kind(text, message):
    found = only_problem(text)
    assert (found.line, found.message) == (1, message)


def test_a_missing_key_is_said_where_its_section_begins():
    found = only_problem("""
        clusters:
          - name: main
            host: localhost
        """)
    assert (found.line, found.key, found.message) == (2, "clusters[0]", 'the key "database" is missing')


def test_a_missing_method_lists_the_methods():
    found = only_problem("auth: {rules: [{type: host}]}")
    assert found.key == "auth.rules[0]"
    assert found.hint == "allowed: scram-sha-256, md5, password, jwt, cert, trust, reject"


def test_no_cluster_at_all():
    assert "at least 1" in only_problem("clusters: []").message
    with pytest.raises(ConfigError, match='the key "clusters" is missing'):
        load_text("workers: 1")


def test_a_tenants_name_says_what_it_may_be():
    found = only_problem("tenants: [{name: Acme}]")
    assert found.message == '"Acme" is not a valid name'
    assert found.hint.startswith("lower case letters, digits")


def test_overrides_of_a_tenant_are_checked_like_their_sections():
    first, second = problems("""
        tenants:
          - name: acme
            pool:
              max_connections: 3
            policy: {mode: none}
        """)
    assert (first.line, first.key) == (4, "tenants[0].pool.max_connections")
    assert "max" in first.allowed
    assert "queue_limit" in first.allowed
    assert (second.line, second.key) == (5, "tenants[0].policy.mode")
    assert second.allowed == ("enforce", "observe", "off")


def test_everything_is_reported_in_the_order_of_the_file():
    found = problems("""
        workers: none
        listen: {port: 0}
        tenants:
          - {name: acme, cluster: mian}
          - {name: acme, cluster: main, schema: two}
        users:
          - {name: app, tenant: acne, password: {env: NOT_SET}}
        log: {level: verbose}
        """)
    assert [(p.line, p.key) for p in found] == [
        (1, "workers"),
        (2, "listen.port"),
        (4, "tenants[0].cluster"),
        (5, "tenants[1].name"),
        (7, "users[0].tenant"),
        (7, "users[0].password.env"),
        (8, "log.level"),
    ]


def test_what_only_follows_from_a_problem_is_not_reported_too():
    """The tenant's bad name must not make its login's tenant unknown, nor the login useless."""
    found = problems("""
        tenants: [{name: Acme}]
        users: [{name: app, tenant: Acme, password: {env: A, file: b}}]
        """)
    assert [p.key for p in found] == ["tenants[0].name", "users[0].tenant", "users[0].password"]


# --- what is no problem -----------------------------------------------------------


def test_numbers_and_booleans_where_text_belongs_are_taken_as_written():
    built = config("""
        tenants:
          - {name: 2024, settings: {jit: off, statement_timeout: 5000, plpgsql.flag: true, n.x: 007}}
        users:
          - {name: 1, tenant: 2024, password: {value: 0042}}
        """)
    assert built.tenants[0].name == "2024"
    assert built.tenants[0].settings == {
        "jit": "off",
        "statement_timeout": "5000",
        "plpgsql.flag": "true",
        "n.x": "007",
    }
    assert built.users[0].password is not None
    assert built.users[0].password.reveal() == "0042"


def test_off_is_the_word_off():
    assert config("policy: {mode: off}").policy.mode == "off"


def test_sections_whose_keys_are_all_commented_out():
    assert config("tenants:\nlisten:\npool:\n  # max: 3\n") == config("")


def test_defaults_are_spelled_out_for_the_other_parts():
    built = config("tenants: [{name: acme}, {name: beta, schema: other}]")
    assert [(t.cluster, t.schema_) for t in built.tenants] == [("main", "acme"), ("main", "other")]


def test_paths_are_seen_from_the_files_directory(tmp_path):
    (tmp_path / "sockets").mkdir()
    (tmp_path / "c.yaml").write_text(
        "listen: {unix_socket_dir: sockets}\nclusters: [{name: a, host: h, database: d}]"
    )
    assert load(tmp_path / "c.yaml").config.listen.unix_socket_dir == str(tmp_path / "sockets")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.yaml")
    assert (
        str(caught.value) == f"{tmp_path}/none.yaml: error: cannot read the file: No such file or directory"
    )
