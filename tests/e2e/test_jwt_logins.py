"""Service accounts: a JSON Web Token for a password, for the login and the tenants that it names."""

from __future__ import annotations

import json
import time
from typing import Any

import psycopg
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from tests.fix_proxy import PASSWORDS

KEY = ECKey.generate_key("P-256", {"kid": "one"})
OTHER = ECKey.generate_key("P-256", {"kid": "one"})


def token(key: Any = KEY, alg: str = "ES256", **changes: Any) -> str:
    claims = {
        "iss": "https://id",
        "aud": "databases",
        "sub": "ci",
        "exp": int(time.time()) + 60,
        "tenants": ["acme"],
        **changes,
    }
    given = {name: value for name, value in claims.items() if value is not None}
    return str(jwt.encode({"alg": alg, "kid": "one"}, given, key))


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("jwt") / "keys.json"
    path.write_text(json.dumps(KeySet([KEY]).as_dict(private=False)))
    return str(path)


@pytest.fixture
def proxy(proxies, keys) -> Any:
    service = {"server_user": "acme_app", "server_password": {"value": PASSWORDS["acme_app"]}}
    return proxies(
        auth={
            "rules": [{"user": ["ci", "deploy"], "method": "jwt"}, {"method": "scram-sha-256"}],
            "jwt": {
                "keys": keys,
                "issuer": "https://id",
                "audience": "databases",
                "tenant_claim": "tenants",
            },
        },
        users=[
            {"name": "ci", "tenants": ["acme", "beta"], **service},
            {"name": "deploy", "tenant": "acme", **service},
            {"name": "acme_app", "tenant": "acme", "password": {"value": PASSWORDS["acme_app"]}},
        ],
    )


def comes_in(proxy: Any, password: str, user: str = "ci", database: str = "acme") -> str:
    """Whose schema it is in, or what it was told."""
    try:
        with psycopg.connect(
            host=proxy.host, port=proxy.port, user=user, password=password, dbname=database
        ) as conn:
            return "".join(conn.execute("SELECT current_schema").fetchone() or ())
    except psycopg.OperationalError as error:
        return str(error)


def test_a_token_opens_the_login_that_it_names(proxy):
    assert comes_in(proxy, token()) == "acme"
    assert comes_in(proxy, token(tenants="acme")) == "acme"
    assert comes_in(proxy, token(sub="deploy"), user="deploy") == "acme"
    assert comes_in(proxy, PASSWORDS["acme_app"], user="acme_app") == "acme"


def test_no_other_login_and_no_other_tenant(proxy):
    assert "authentication failed" in comes_in(proxy, token(), user="deploy")
    assert "authentication failed" in comes_in(proxy, token(sub="acme_app"), user="acme_app")
    assert 'tenant "beta" does not exist' in comes_in(proxy, token(), database="beta")
    assert 'tenant "acme" does not exist' in comes_in(proxy, token(tenants=["beta"]))
    # what was let in once is asked for its token again
    assert "authentication failed" in comes_in(proxy, "no token")


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other"},
        {"aud": "others"},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": ["ci"]},
        {"nbf": 1 << 40},
        {"tenants": None},
        {"tenants": [1]},
        {"key": OTHER},
        {"key": OctKey.import_key(json.dumps(KEY.as_dict(private=False))), "alg": "HS256"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_not_good(proxy, changes):
    assert "authentication failed" in comes_in(proxy, token(**changes))


def test_tricks(proxy):
    _, claims, _ = token().split(".")
    for wrong in ("x", "a.b.c", f"eyJhbGciOiJub25lIn0.{claims}.", token()[:-2], "é", "x" * 20_000):
        assert "authentication failed" in comes_in(proxy, wrong)
