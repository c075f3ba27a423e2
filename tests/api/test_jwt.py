"""Callers with a JSON Web Token of an identity provider."""

from __future__ import annotations

import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from tenant_proxy.catalog.failures import Failure

KEY = ECKey.generate_key("P-256", {"kid": "one"})
OTHER = ECKey.generate_key("P-256", {"kid": "one"})


@pytest.fixture
async def api(serve_api, tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(KeySet([KEY]).as_dict(private=False)))
    return await serve_api(api={"jwt": {"keys": str(path), "issuer": "https://id", "audience": "tenants"}})


def token(key=KEY, header=None, **changes) -> str:
    claims = {
        "iss": "https://id",
        "aud": "tenants",
        "sub": "anna",
        "exp": int(time.time()) + 60,
        "tenant_proxy_role": "admin",
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    header = header or {"alg": "ES256", "kid": "one"}
    return jwt.encode(header, claims, key)


async def test_roles_of_claims(api):
    who = (await api.ask("GET", "/v1/whoami", token=token())).json
    assert who == {"actor": "jwt:anna", "role": "admin", "tenant": None}
    own = token(tenant_proxy_role="tenant_admin", tenant_proxy_tenant="acme")
    assert (await api.ask("GET", "/v1/whoami", token=own)).json["tenant"] == "acme"
    assert (await api.ask("GET", "/v1/tenants/beta", token=own)).status == 403
    assert (await api.ask("GET", "/v1/audit", token=token(tenant_proxy_role="auditor"))).status == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other"},
        {"aud": "others"},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": "a\nb"},
        {"tenant_proxy_role": "root"},
        {"tenant_proxy_role": None},
        {"tenant_proxy_role": ["admin"]},
        {"tenant_proxy_role": "tenant_admin"},
        {"tenant_proxy_role": "tenant_admin", "tenant_proxy_tenant": "../beta"},
        {"nbf": 1 << 40},
        {"key": OTHER},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_what_is_not_good(api, changes):
    assert (await api.ask("GET", "/v1/whoami", token=token(**changes))).status == 401


async def test_no_tricks_with_algorithms(api):
    _, claims, _ = token().split(".")
    assert (await api.ask("GET", "/v1/whoami", token=f"eyJhbGciOiJub25lIn0.{claims}.")).status == 401
    public = json.dumps(KEY.as_dict(private=False)).encode()
    forged = token(OctKey.import_key(public), {"alg": "HS256", "kid": "one"})
    assert (await api.ask("GET", "/v1/whoami", token=forged)).status == 401


async def test_keys_that_are_none(serve_api, tmp_path):
    path = tmp_path / "keys.json"
    for text in ("", "{}", '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', '{"keys": [1]}'):
        path.write_text(text)
        with pytest.raises(Failure, match=r"keys\.json"):
            await serve_api(api={"jwt": {"keys": str(path), "issuer": "i", "audience": "a"}})
    with pytest.raises(Failure, match="issuer"):
        await serve_api(api={"jwt": {"keys": str(path)}})
