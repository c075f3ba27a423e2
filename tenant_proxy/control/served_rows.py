"""Rows of the catalog's views in the shape of the configuration file's entries, which the workers read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenant_proxy.config.opaque import server_password

#: columns of served_tenants that are keys of `tenants[]`
_TENANT = (
    *("name", "cluster", "database", "schema", "isolation", "pool", "max_clients", "labels"),
    # … and what only the catalog says
    *("space", "over_storage"),
)


def tenant_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of served_tenants; `locked_settings` are names, of settings or (without a value) of denied ones."""
    settings, policy = dict(record["settings"]), dict(record["policy"])
    names = record["locked_settings"]
    locked = {name: settings.pop(name) for name in names if name in settings}
    denied = [name for name in names if name not in locked]
    if denied:
        policy["denied_settings"] = [*policy.get("denied_settings", ()), *denied]
    return {key: record[key] for key in _TENANT} | {
        "policy": policy,
        "settings": settings,
        "locked_settings": locked,
        "sni": list(record["sni"]),
        "suspended": record["refusal"],
        "suspend_grace_s": record["grace_s"],
    }


def login_row(record: Mapping[str, Any], secret: str | None) -> dict[str, Any]:
    """Of served_logins; its secrets are in it.  `secret` is the configuration's."""
    secrets = record["verifiers"]
    row: dict[str, Any] = {
        "name": record["name"],
        "tenants": list(record["tenants"]),
        "roles": dict(record["roles"]),
        "expires_at": record["expires_at"].isoformat() if record["expires_at"] is not None else None,
        "addresses": list(record["addresses"]),
        "max_clients": record["max_clients"],
    }
    if record.get("service"):  # of a catalog of before there is no such column
        # no verifier: who guesses the password of its role on the server does not get in by it
        row |= {"server_user": secrets[0]["server_user"]} if secrets else {}
        if secret is not None:
            row["server_password"] = {"value": server_password(record["name"], secret)}
        return row
    if secrets:
        row |= {"verifier": {"value": secrets[0]["verifier"]}, "server_user": secrets[0]["server_user"]}
    if len(secrets) > 1:
        row["previous"] = {
            "verifier": {"value": secrets[1]["verifier"]},
            "server_user": secrets[1]["server_user"],
        }
    return row
