"""In whose name a statement is judged: the tenant's scope.

A scope is built once for each tenant and login (and again when the configuration changes) and
is all that the guard knows of either.  Its `id` is the scope part of cache keys: two scopes that
could give one text different verdicts must have different ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tenant_proxy.config.schema import GuardMode, Policy
from tenant_proxy.settings_policy import SYSTEM_SCHEMAS, TEMP_SCHEMA, client_encoding_codec


@dataclass(frozen=True, slots=True)
class GuardScope:
    id: int
    tenant: str
    #: the tenant's own schema
    schema: str
    #: the role that statements run as
    role: str
    #: the backend's login; differs from `role` where the startup packet sets a role
    login: str
    #: roles that statements may name: grantees, owners
    roles: frozenset[str]
    #: schemas that statements may name to read and call
    readable: frozenset[str]
    #: schemas in which they may change data and definitions
    writable: frozenset[str]
    allowed_schemas: tuple[str, ...]
    allowed_functions: frozenset[str]
    denied_functions: frozenset[str]
    denied_settings: tuple[str, ...]
    mode: GuardMode
    #: Python's codec for the client_encoding of the statements
    codec: str

    @classmethod
    def build(
        cls,
        *,
        id: int,  # noqa: A002
        tenant: str,
        schema: str,
        login: str,
        role: str | None = None,
        roles: Iterable[str] = (),
        policy: Policy,
        client_encoding: str = "UTF8",
    ) -> GuardScope:
        """`role` None: statements run as `login`.  `roles`: further roles of this tenant.

        ValueError if `client_encoding` is one that statements can't be judged in; such a connection must
        not have come about (`settings_policy`).
        """
        codec = client_encoding_codec(client_encoding)
        if codec is None:
            raise ValueError(f"client_encoding {client_encoding} can't be read safely")
        own = role or login
        return cls(
            id=id,
            tenant=tenant,
            schema=schema,
            role=own,
            login=login,
            roles=frozenset({own, login, *roles}),
            readable=frozenset({schema, TEMP_SCHEMA, *SYSTEM_SCHEMAS, *policy.allowed_schemas}),
            writable=frozenset({schema, TEMP_SCHEMA}),
            allowed_schemas=tuple(policy.allowed_schemas),
            allowed_functions=frozenset(policy.allowed_functions),
            denied_functions=frozenset(policy.denied_functions),
            denied_settings=tuple(policy.denied_settings),
            mode=policy.mode,
            codec=codec,
        )
