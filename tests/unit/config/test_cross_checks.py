"""What no single key can tell: names, pairs, files, secrets."""

from __future__ import annotations

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tenant_proxy.auth.scram import build_verifier
from tenant_proxy.config.load import load
from tests.unit.config.files import config, only_problem, problems

TWO_CLUSTERS = """
clusters:
  - {name: main, host: localhost, database: app}
  - {name: other, host: localhost, database: app}
"""
A_CLUSTER = "{name: a, host: h, database: d}"
A_USER = "{name: a, admin: true, password: {value: s}}"
VERIFIER = str(build_verifier("secret"))


# --- names -----------------------------------------------------------------------


def test_an_unknown_cluster():
    found = only_problem("tenants: [{name: acme, cluster: mian}]")
    assert (found.line, found.key) == (1, "tenants[0].cluster")
    assert (found.allowed, found.hint) == (("main",), 'did you mean "main"?')


def test_a_cluster_must_be_named_when_there_are_several():
    found = only_problem(TWO_CLUSTERS + "tenants: [{name: acme}]")
    assert (found.line, found.allowed) == (4, ("main", "other"))


def test_an_unknown_tenant_of_a_login():
    first, second = problems("""
        tenants: [{name: acme}]
        users:
          - name: app
            tenant: acm
            tenants: [acme, beta]
            password: {value: s}
        """)
    assert (first.line, first.key, first.hint) == (4, "users[0].tenant", 'did you mean "acme"?')
    assert (second.line, second.key, second.allowed) == (5, "users[0].tenants[1]", ("acme",))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tenants:\n  - {name: a}\n  - {name: a, schema: b}", "tenants[1].name"),
        (f"clusters:\n  - {A_CLUSTER}\n  - {A_CLUSTER}", "clusters[1].name"),
        (f"users:\n  - {A_USER}\n  - {A_USER}", "users[1].name"),
        ("listen:\n  addresses:\n  - '::1'\n  - '::1'", "listen.addresses[1]"),
        ("mapping:\n  - login\n  - sni\n  - login", "mapping[2]"),
    ],
)  # fmt: skip
def test_what_is_given_twice(text, key):
    found = only_problem(text)
    assert found.key == key
    assert found.line > 2
    assert "given twice (first in line" in found.message


def test_two_tenants_in_one_schema():
    found = only_problem("""
        tenants:
          - {name: acme}
          - {name: beta, schema: acme}
        """)
    assert (found.line, found.key) == (3, "tenants[1].schema")
    assert 'tenant "acme" (line' in found.message


def test_tenants_of_one_schema_that_locked_settings_tell_apart():
    assert not problems("""
        tenants:
          - {name: acme, locked_settings: {app.tenant: '1'}}
          - {name: beta, schema: acme, locked_settings: {app.tenant: '2'}}
        """)
    found = only_problem("""
        tenants:
          - {name: acme, locked_settings: {app.tenant: '1'}}
          - {name: beta, schema: acme}
        """)
    assert found.key == "tenants[1].schema"


def test_the_same_schema_in_two_clusters_is_fine():
    assert not problems(
        TWO_CLUSTERS
        + "tenants:\n  - {name: a, cluster: main, schema: x}\n  - {name: b, cluster: other, schema: x}"
    )


def test_a_host_name_that_means_two_tenants():
    found = only_problem("tenants: [{name: a, sni: [x.example]}, {name: b, sni: [y.example, X.Example]}]")
    assert found.key == "tenants[1].sni[1]"


@pytest.mark.parametrize("name", ["tenant_proxy", "pgbouncer"])
def test_a_tenant_named_like_the_console(name):
    assert "admin console" in only_problem(f"tenants: [{{name: {name}}}]").message


@pytest.mark.parametrize("schema", ["pg_catalog", "pg_toast", "information_schema"])
def test_a_schema_of_the_system(schema):
    assert only_problem(f"tenants: [{{name: a, schema: {schema}}}]").key == "tenants[0].schema"


def test_a_name_that_postgresql_would_cut():
    found = only_problem(f"tenants: [{{name: a, schema: {'ä' * 32}}}]")
    assert "longer than 63 bytes" in found.message


SERVICE = "clusters: [{name: main, host: h, database: d, service: {user: s, password: {value: s}}}]\n"


def test_shared_backends_need_a_service_login_and_transaction_mode():
    service, mode = problems("tenants: [{name: a, isolation: shared}]")
    assert service.key == mode.key == "tenants[0].isolation"
    assert "service" in service.message
    assert "transaction" in mode.message


@pytest.mark.parametrize("policy", ["mode: observe", "mode: off", "allowed_functions: [pg_read_file]"])
def test_shared_backends_need_the_guard(policy):
    tenant = f"tenants: [{{name: a, policy: {{{policy}}}}}]"
    found = only_problem(f"{SERVICE}isolation: shared\npool: {{mode: transaction}}\n{tenant}")
    assert (found.line, found.key) == (4, "tenants[0]")


def test_shared_backends_with_all_that_they_need():
    text = f"{SERVICE}isolation: shared\npool: {{mode: transaction}}\ntenants: [{{name: a}}]"
    assert not problems(text)


def test_more_shared_backends_than_backends():
    text = "clusters: [{name: m, host: h, database: d, max_backends: 5, service: {max_backends: 6}}]"
    assert only_problem(text).key == "clusters[0].service.max_backends"


# --- pool, policy, settings --------------------------------------------------------


def test_min_above_max():
    found = only_problem("pool:\n  max: 3\n  min: 4")
    assert (found.line, found.key, found.message) == (3, "pool.min", "min (4) is more than max (3)")


def test_min_above_max_once_the_override_is_merged():
    found = only_problem("pool: {min: 4}\ntenants:\n  - name: a\n    pool:\n      max: 3")
    assert (found.line, found.key) == (5, "tenants[0].pool.max")


def test_retry_pauses():
    assert only_problem("pool: {retry_min_s: 20}").key == "pool.retry_min_s"


def test_replication_needs_sessions():
    found = only_problem("pool: {mode: transaction}\npolicy: {allow_replication: true}")
    assert (found.line, found.key) == (2, "policy.allow_replication")


def test_the_cache_is_not_per_tenant():
    assert (
        only_problem("tenants: [{name: a, policy: {cache_entries: 50}}]").key
        == "tenants[0].policy.cache_entries"
    )


def test_a_policy_that_opens_another_tenants_schema_is_warned_of():
    found = only_problem("policy: {allowed_schemas: [beta]}\ntenants: [{name: acme}, {name: beta}]")
    assert found.severity == "warning"
    assert 'lets tenant "acme" name the schema "beta"' in found.message


def test_denied_settings_are_names_or_beginnings():
    assert not problems("policy: {denied_settings: [work_mem, plpgsql.*, log_*, '*']}")
    found = only_problem("policy:\n  denied_settings:\n    - work mem")
    assert (found.line, found.key) == (3, "policy.denied_settings[0]")


def test_shared_backends_run_no_code_of_another_tenants_schema():
    text = f"{SERVICE}isolation: shared\npool: {{mode: transaction}}\n"
    found = only_problem(
        text
        + "tenants: [{name: acme, policy: {allowed_schemas: [beta]}}, {name: beta, isolation: dedicated}]"
    )
    assert (found.severity, found.key) == ("error", "tenants[0].policy.allowed_schemas")


def test_locked_settings_need_the_guard():
    found = only_problem("policy: {mode: observe}\ntenants: [{name: a, locked_settings: {app.id: x}}]")
    assert found.key == "tenants[0].locked_settings"
    found = only_problem(
        "policy: {mode: observe}\ntenants: [{name: a}]\n"
        "users: [{name: u, tenant: a, password: {value: p}, locked_settings: {app.id: x}}]"
    )
    assert found.key == "users[0].locked_settings"


def test_locked_settings_are_settings_that_clients_could_have():
    assert (
        only_problem("tenants: [{name: a, locked_settings: {role: x}}]").key
        == "tenants[0].locked_settings.role"
    )


@pytest.mark.parametrize("setting", ["role: x", "search_path: beta", "client_encoding: SJIS", "no name: x"])
def test_settings_of_a_tenant_obey_the_policy(setting):
    found = only_problem(f"tenants:\n  - name: acme\n    settings:\n      {setting}")
    assert found.line == 4
    assert found.key.startswith("tenants[0].settings.")


# --- logins and rules ----------------------------------------------------------------


def test_a_login_without_the_secret_that_its_rule_needs():
    found = only_problem("""
        tenants: [{name: acme}]
        users: [{name: app, tenant: acme, server_password: {value: s}}]
        auth:
          rules:
            - {type: local, method: trust}
            - {method: md5}
        """)
    assert (found.line, found.key) == (2, "users[0]")
    assert "neither password nor verifier" in found.message
    assert "(md5)" in found.message


def test_a_rule_that_is_hidden_needs_nothing():
    assert not problems("""
        tenants: [{name: acme}]
        users: [{name: app, tenant: acme, server_password: {value: s}}]
        auth:
          rules:
            - {user: [app], method: trust}
            - {type: local, user: [app], method: trust}
            - {method: md5}
        """)


def test_without_rules_in_the_file_the_default_needs_a_secret():
    found = only_problem("users: [{name: boss, admin: true}]")
    assert "the default rule asks for one (scram-sha-256)" in found.message


def test_password_or_verifier():
    found = only_problem(
        f"users: [{{name: a, admin: true, password: {{value: s}}, verifier: {{value: '{VERIFIER}'}}}}]"
    )
    assert (found.key, found.message) == ("users[0].verifier", "give password or verifier, not both")


def test_a_plain_password_as_verifier_is_not_shown():
    found = only_problem("users: [{name: a, admin: true, verifier: {value: hunter2}}]")
    assert found.message.startswith("not a verifier")
    assert found.allowed[0].startswith("SCRAM-SHA-256$")
    assert "hunter2" not in str(found)


def test_an_md5_verifier_does_not_do_for_scram():
    found = only_problem(f"users: [{{name: a, admin: true, verifier: {{value: md5{'0' * 32}}}}}]")
    assert "md5 verifier, which the method scram-sha-256 can't check" in found.message


def test_no_way_to_the_server_is_warned_of():
    found = only_problem("""
        tenants: [{name: acme}]
        users: [{name: app, tenant: acme}]
        auth: {rules: [{method: trust}, {type: local, method: trust}]}
        """)
    assert (found.severity, found.key) == ("warning", "users[0]")
    assert "no password for the server" in found.message


def test_a_login_that_can_do_nothing_is_warned_of():
    found = only_problem("users: [{name: a, password: {value: s}}]")
    assert (found.severity, found.key) == ("warning", "users[0]")
    assert "belongs to no tenant" in found.message


def test_two_tenants_by_one_login_of_the_server_are_warned_of():
    found = only_problem("""
        tenants: [{name: acme}, {name: beta}]
        users:
          - {name: a, tenant: acme, server_user: app, password: {value: s}}
          - {name: b, tenant: beta, server_user: app, password: {value: s}}
        """)
    assert (found.severity, found.line, found.key) == ("warning", 4, "users[1].server_user")
    assert 'as the same role "app"' in found.message


@pytest.mark.parametrize(
    ("rule", "key", "says"),
    [
        ("{method: trust, address: 10.0.0.1/33}", "address", "not an address or range"),
        ("{method: trust, address: example.com}", "address", "not an address or range"),
        ("{type: local, method: trust, address: 10.0.0.0/8}", "address", "has no address"),
    ],
)
def test_rules_and_addresses(rule, key, says):
    found = only_problem(f"auth:\n  rules:\n    - {rule}")
    assert (found.line, found.key) == (3, f"auth.rules[0].{key}")
    assert says in found.message


@pytest.mark.parametrize("address", ["all", "samehost", "10.0.0.1", "10.0.0.1/8", "::1", "fd00::/8"])
def test_addresses_of_rules(address):
    assert not problems(f"auth: {{rules: [{{method: md5, address: '{address}'}}]}}")


def test_an_admin_by_trust_is_warned_of():
    text = "users: [{name: boss, admin: true}]\nauth: {rules: [{type: TYPE, method: trust}]}"
    assert not problems(text.replace("TYPE", "local"))
    found = only_problem(text.replace("TYPE", "host"))
    assert (found.severity, found.key) == ("warning", "users[0]")


def test_method_cert_needs_tls_and_a_ca():
    found = {p.key: p for p in problems("auth: {rules: [{method: cert}]}")}
    assert found.keys() == {"auth.rules[0].type", "auth.rules[0].method"}
    assert found["auth.rules[0].type"].allowed == ("hostssl",)
    assert "listen.tls.client_ca" in found["auth.rules[0].method"].message


def test_a_rule_that_nobody_reaches_is_warned_of():
    found = only_problem("auth:\n  rules:\n    - {method: trust}\n    - {type: hostnossl, method: reject}")
    assert (found.severity, found.line) == ("warning", 4)
    assert found.message == "no connection gets as far as this rule"


# --- listen, TLS -----------------------------------------------------------------------


def test_an_empty_address():
    found = only_problem("listen: {addresses: ['*', '']}")
    assert (found.key, found.hint) == ("listen.addresses[1]", "* is every address")


def test_nowhere_to_listen():
    assert only_problem("listen: {addresses: []}").key == "listen"


def test_a_socket_directory_that_is_not_there(tmp_path):
    assert "is not a directory" in only_problem("listen: {unix_socket_dir: none}", base=tmp_path).message


def test_metrics_on_the_port_of_clients():
    assert only_problem("metrics: {port: 6432}").key == "metrics.port"


def test_tls_needs_certificate_and_key():
    found = problems("listen:\n  tls:\n    mode: require")
    assert {(p.line, p.key) for p in found} == {(3, "listen.tls")}
    assert [p.message for p in found] == [f'mode require needs the key "{key}"' for key in ("cert", "key")]


def test_a_certificate_that_is_not_there(tmp_path):
    cert, key = problems("listen: {tls: {mode: allow, cert: a.pem, key: b.pem}}", base=tmp_path)
    assert (cert.key, key.key) == ("listen.tls.cert", "listen.tls.key")
    assert cert.message == f'cannot read "{tmp_path}/a.pem": No such file or directory'


def test_a_key_of_another_certificate(tmp_path):
    write_certificate(tmp_path, "a")
    write_certificate(tmp_path, "b")
    assert not problems(
        "listen: {tls: {mode: require, cert: a.crt, key: a.key, client_ca: b.crt}}", base=tmp_path
    )
    found = only_problem("listen: {tls: {mode: require, cert: a.crt, key: b.key}}", base=tmp_path)
    assert found.key == "listen.tls.key"
    assert "does not belong to the certificate" in found.message


def test_files_that_are_no_pem(tmp_path):
    (tmp_path / "x").write_text("hello")
    (tmp_path / "x").chmod(0o600)
    cert, ca = problems("listen: {tls: {mode: require, cert: x, key: x, client_ca: x}}", base=tmp_path)
    assert {cert.key, ca.key} == {"listen.tls.cert", "listen.tls.client_ca"}


def test_a_key_that_everybody_can_read_is_warned_of(tmp_path):
    write_certificate(tmp_path, "a")
    (tmp_path / "a.key").chmod(0o644)
    found = only_problem("listen: {tls: {mode: require, cert: a.crt, key: a.key}}", base=tmp_path)
    assert (found.severity, found.key, found.hint) == ("warning", "listen.tls.key", "chmod o-r it")


def test_direct_tls_can_not_fall_back():
    found = only_problem("clusters: [{name: a, host: h, database: d, tls: {negotiation: direct}}]")
    assert (found.key, found.allowed) == ("clusters[0].tls.mode", ("require", "verify-ca", "verify-full"))


def test_an_auth_query_without_its_parameter():
    found = only_problem(
        "clusters: [{name: a, host: h, database: d, auth_query: {enabled: true, query: SELECT 1}}]"
    )
    assert found.key == "clusters[0].auth_query.query"


# --- secrets ---------------------------------------------------------------------------


USER = "users: [{{name: boss, admin: true, password: {}}}]"


def password_of(reference: str, **where) -> str:
    secret = config(USER.format(reference), **where).users[0].password
    assert secret is not None
    return secret.reveal()


def test_a_secret_from_the_environment():
    assert password_of("{env: PW}", environ={"PW": "s3cret\n"}) == "s3cret\n"
    found = only_problem(USER.format("{env: PW}"))
    assert (found.line, found.key) == (1, "users[0].password.env")
    assert found.message == 'the environment variable "PW" is not set'
    assert only_problem(USER.format("{env: PW}"), environ={"PW": ""}).message == "the secret is empty"


@pytest.mark.parametrize(
    ("content", "secret"), [("x", "x"), ("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), (" x ", " x ")]
)
def test_a_secret_from_a_file_loses_one_newline(tmp_path, content, secret):
    (tmp_path / "pw").write_bytes(content.encode())
    (tmp_path / "pw").chmod(0o600)
    assert password_of("{file: pw}", base=tmp_path) == secret


def test_a_secret_file_that_is_not_there(tmp_path):
    found = only_problem(USER.format("{file: pw}"), base=tmp_path)
    assert (found.key, found.message) == (
        "users[0].password.file",
        f'cannot read "{tmp_path}/pw": No such file or directory',
    )


def test_a_secret_file_that_everybody_can_read_is_warned_of(tmp_path):
    (tmp_path / "pw").write_text("hunter2")
    (tmp_path / "pw").chmod(0o644)
    found = only_problem(USER.format("{file: pw}"), base=tmp_path)
    assert (found.severity, found.hint) == ("warning", "chmod o-r it")
    assert "hunter2" not in str(found)


@pytest.mark.parametrize("reference", ["{}", "{env: A, value: b}"])
def test_exactly_one_source_of_a_secret(reference):
    found = only_problem(USER.format(reference))
    assert (found.key, found.message) == ("users[0].password", "give exactly one of env, file, value")


@pytest.mark.parametrize(
    "reference", ["hunter2", "[hunter2]", "{hunter2: }", "{value: [hunter2]}", "{value: {a: hunter2}}"]
)
def test_a_misplaced_secret_is_not_shown(reference):
    found = problems(USER.format(reference))
    assert found
    assert all("hunter2" not in str(problem) for problem in found)


def test_a_secret_in_a_file_that_everybody_can_read_is_warned_of(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("clusters: [{name: a, host: h, database: d}]\n" + USER.format("{value: x}"))
    file.chmod(0o644)
    assert [(w.line, w.severity) for w in load(file).warnings] == [(2, "warning")]
    file.chmod(0o640)
    assert not load(file).warnings


def test_a_configuration_does_not_show_its_secrets():
    built = config(USER.format("{value: hunter2}"))
    assert "hunter2" not in repr(built)
    assert "hunter2" not in str(built.model_dump(mode="json"))


# --- helpers -----------------------------------------------------------------------------


def write_certificate(directory, name: str) -> None:
    """A self-signed certificate NAME.crt and its key NAME.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    (directory / f"{name}.crt").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / f"{name}.key").write_bytes(secret)
    (directory / f"{name}.key").chmod(0o600)


# --- catalog and API -------------------------------------------------------------------


def test_the_catalogs_address_is_a_url():
    found = only_problem('catalog: {dsn: {value: "host=db dbname=tenants"}}')
    assert found.key == "catalog.dsn"
    assert "postgresql://" in found.message


def test_the_api_needs_a_catalog():
    assert only_problem("api: {enabled: true}").key == "api.enabled"


def test_the_api_has_a_port_of_its_own():
    found = only_problem("""
        catalog: {dsn: {value: "postgresql://db/tenants"}}
        api: {enabled: true, port: 9127}
        """)
    assert found.key == "api.port"
    assert found.message == "port 9127 is also that of metrics, at the same address"


def test_the_catalogs_secrets_are_resolved():
    found = config(
        """
        catalog: {dsn: {env: DSN}}
        """,
        environ={"DSN": "postgresql://u:p@db/tenants"},
    )
    assert found.catalog.dsn is not None
    assert found.catalog.dsn.reveal() == "postgresql://u:p@db/tenants"
    assert "p@db" not in repr(found)


def test_what_is_resolved_replaces_what_was_given_and_nothing_else(tmp_path):
    (tmp_path / "pw").write_text("from a file\n")
    (tmp_path / "pw").chmod(0o600)
    (tmp_path / "p.yaml").write_text("mode: observe\n")
    built = config(
        """
tenants:
  - {name: a, pool: {max: 3}}
  - {name: b, policy_file: p.yaml}
  - {name: c}
users:
  - {name: ua, tenant: a, password: {file: pw}}
  - {name: ub, tenant: b, password: {env: PW}}
  - {name: uc, tenant: c, password: {value: as it stands}}
""",
        base=tmp_path,
        environ={"PW": "of the environment"},
    )
    assert [user.password and user.password.reveal() for user in built.users] == [
        "from a file", "of the environment", "as it stands",
    ]  # fmt: skip
    assert [dict(tenant.pool) for tenant in built.tenants] == [{"max": 3}, {}, {}]
    assert built.tenants[1].policy == {"mode": "observe"}
    assert built.tenants[1].policy_file == str(tmp_path / "p.yaml")
