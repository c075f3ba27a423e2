"""One configuration, ready for use: what is made of it, and what stays the same over reloads."""

import ssl

import pytest

from tenant_proxy.auth.secret import SecretKind
from tenant_proxy.auth.tls import server_end_point
from tenant_proxy.config.load import load_text
from tenant_proxy.relay.state import State

FILE = """
clusters:
  - {{name: main, host: localhost, database: app}}
tenants:
  - {{name: acme, cluster: main}}
users:
  - {{name: plain, tenant: acme, password: {{value: {password}}}}}
  - {{name: none, tenant: acme}}
auth: {{rules: [{{method: trust}}]}}
{more}
"""


def state(password: str = "secret", more: str = "") -> State:
    return State.build(load_text(FILE.format(password=password, more=more), environ={}).config)


def test_secrets_of_logins():
    built = state()
    plain = built.secrets["plain"]
    assert plain is not None
    assert plain.kind is SecretKind.PLAIN
    assert built.secrets["none"] is None


def test_without_tls():
    built = state()
    assert (built.client_tls, built.end_point) == (None, None)


def test_with_tls_the_certificate_is_bound(certificates):
    pem = certificates.proxy
    built = state(more=f"listen: {{tls: {{mode: allow, cert: {pem.cert}, key: {pem.key}}}}}")
    assert built.client_tls is not None
    assert built.end_point == server_end_point(ssl.PEM_cert_to_DER_cert(pem.cert.read_text()))


def test_a_key_in_front_of_the_certificate_is_passed_over(certificates, tmp_path):
    pem = certificates.proxy
    both = tmp_path / "both.pem"
    both.write_text(pem.key.read_text() + pem.cert.read_text())
    built = state(more=f"listen: {{tls: {{mode: allow, cert: {both}, key: {both}}}}}")
    alone = state(more=f"listen: {{tls: {{mode: allow, cert: {pem.cert}, key: {pem.key}}}}}")
    assert built.end_point == alone.end_point


def test_a_certificate_that_is_not_there(tmp_path):
    text = FILE.format(password="secret", more="")
    config = load_text(text, environ={}).config
    missing = config.listen.tls.model_copy(
        update={"mode": "allow", "cert": str(tmp_path / "a.crt"), "key": str(tmp_path / "a.key")}
    )
    broken = config.model_copy(update={"listen": config.listen.model_copy(update={"tls": missing})})
    with pytest.raises(OSError):
        State.build(broken)


def test_salts_of_unknown_users_stay_over_reloads_and_differ_between_installations():
    assert state().mock_key == state().mock_key
    assert state(password="other").mock_key != state().mock_key
