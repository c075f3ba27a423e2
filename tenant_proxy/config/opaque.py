"""Names of schemas and server logins that say nothing of whose they are.

An OID can be turned to a name by functions and casts that the proxy can't change, so a tenant that tries
numbers finds the names of other tenants' schemas and roles.  Names made of a secret tell it nothing.

Passwords that nobody has to know are made of it as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

from tenant_proxy.config.schema import Config
from tenant_proxy.config.yaml_nodes import Document

#: characters of a name behind its first two: 65 bits
NAME_CHARS: Final = 13


def opaque_name(kind: str, name: str, secret: str) -> str:
    """A name on the server for a tenant ("schema") or login ("role"): always the same under one secret."""
    digest = hmac.digest(secret.encode(), f"tenant_proxy {kind} {name}".encode(), hashlib.sha256)
    return f"{kind[0]}_{base64.b32encode(digest).decode().lower()[:NAME_CHARS]}"


def server_password(login: str, secret: str) -> str:
    """Of a service account's role on a cluster: all proxies that have the secret know it, and nobody else."""
    digest = hmac.digest(secret.encode(), f"tenant_proxy password {login}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def named(document: Document, config: Config) -> Config:
    """The configuration with a made-up name in place of each schema and server login that is not given.

    Users without a tenant of their own (admins) and roles that only auth_query knows keep theirs.
    """
    if not config.opaque_names:
        return config
    if config.secret is None:
        document.problem(
            ("opaque_names",),
            "opaque_names needs a secret to make names of",
            hint="set secret: {env: NAME}, {file: PATH} or {value: TEXT}",
        )
        return config
    secret = config.secret.reveal()
    tenants = [
        tenant.model_copy(update={"schema_": tenant.schema_ or opaque_name("schema", tenant.name, secret)})
        for tenant in config.tenants
    ]
    users = [
        user.model_copy(update={"server_user": user.server_user or opaque_name("role", user.name, secret)})
        if user.tenant is not None or user.tenants
        else user
        for user in config.users
    ]
    return config.model_copy(update={"tenants": tenants, "users": users})
