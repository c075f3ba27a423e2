"""In whose name a statement is judged: the tenant's scope.

A scope is built once for each tenant and login (and again when the configuration changes) and
is all that the guard knows of either.  Its `id` is the scope part of cache keys: two scopes that
could give one text different verdicts must have different ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tenant_proxy.config.schema import Policy
from tenant_proxy.guard.functions import FUNCTIONS
from tenant_proxy.settings_policy import SYSTEM_SCHEMAS, TEMP_SCHEMA, client_encoding_codec


class Ear(Protocol):
    """What listens for a client (relay.ears)."""

    @property
    def channels(self) -> Sequence[str]:
        """Names of the channels that it listens to, as the client knows them."""

    def message(self, what: str, channel: str) -> str:
        """The statement that tells it of a LISTEN ("L") or UNLISTEN ("U"; of "": all) when it commits."""


class OwnSession(Protocol):
    """What a client's session is where it is not its backend's (own_session.py)."""

    @property
    def pid(self) -> int:
        """The process id that it was greeted with."""

    def prepared(self) -> Sequence[tuple[str, str, str, int]]:
        """Its prepared statements: what servers know them by, its own names, texts, and their age in us."""


@dataclass(frozen=True, slots=True)
class GuardScope:
    id: int
    tenant: str
    #: the tenant's own schema
    schema: str
    #: the role that statements run as; "" if it is not known
    role: str
    #: whether `role` is another than the backend's login, set by the startup packet
    role_is_set: bool
    #: roles that statements may name: grantees, owners
    roles: frozenset[str]
    #: schemas that statements may name to read and call
    readable: frozenset[str]
    #: schemas in which they may change data and definitions
    writable: frozenset[str]
    allowed_schemas: tuple[str, ...]
    allowed_functions: frozenset[str]
    denied_functions: frozenset[str]
    #: … as they may be called without their schema, also as `x.name`
    denied_attributes: frozenset[str]
    denied_settings: tuple[str, ...]
    policy: Policy
    #: Python's codec for the client_encoding of the statements
    codec: str
    #: what statements name of the catalogs, of channels and of lock keys is turned to the tenant's own
    hides: bool = False
    #: … and ought to be, but the cluster lacks the objects for it: what needs them is refused
    hide_missing: bool = False
    #: `public` means the tenant's schema
    public_is_own: bool = False
    #: what the tenant's channels begin with
    space: str = ""
    #: settings that statements may not change
    locked: frozenset[str] = frozenset()
    #: letters outside ASCII that the server folds to ASCII: an unquoted name with one is another there
    folding: str = ""
    #: prepared statements that the server knows by other names
    statements: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: what listens in the place of the client whose text it is, if something does
    ear: Ear | None = field(default=None, hash=False)
    #: the session of the client whose text it is, in transaction mode
    session: OwnSession | None = field(default=None, hash=False)
    #: whether RESET ALL resets; else it is turned to a RESET that does nothing
    resets: bool = True

    @classmethod
    def build(
        cls,
        *,
        id: int,  # noqa: A002
        tenant: str,
        schema: str,
        policy: Policy,
        login: str | None = None,
        role: str | None = None,
        roles: Iterable[str] = (),
        client_encoding: str = "UTF8",
        hides: bool = False,
        hide_missing: bool = False,
        space: str = "",
        locked: Iterable[str] = (),
        folding: str = "",
    ) -> GuardScope:
        """`login` is the backend's, `role` what the startup packet sets (None: statements run as `login`).

        `roles` are further ones of this tenant; roles that are in none of the three can't be named in
        grants and as owners.  ValueError if `client_encoding` is one that statements can't be judged in;
        such a connection must not have come about (`settings_policy`).
        """
        codec = client_encoding_codec(client_encoding)
        if codec is None:
            raise ValueError(f"client_encoding {client_encoding} can't be read safely")
        own = role or login or ""
        readable = {TEMP_SCHEMA, *SYSTEM_SCHEMAS, *policy.allowed_schemas}
        public_is_own = policy.public_is_own and schema != "public"
        denied = _function_names(policy.denied_functions)
        if public_is_own:
            readable.discard("public")
        return cls(
            id=id,
            tenant=tenant,
            schema=schema,
            role=own,
            role_is_set=role is not None and role != login,
            roles=frozenset({own, login or "", *roles}) - {""},
            readable=frozenset({schema, *readable}),
            writable=frozenset({schema, TEMP_SCHEMA}),
            allowed_schemas=tuple(policy.allowed_schemas),
            allowed_functions=_function_names(policy.allowed_functions),
            denied_functions=denied,
            denied_attributes=frozenset(
                name for full in denied if (name := full.rpartition(".")[2]) == full or name not in FUNCTIONS
            ),
            denied_settings=tuple(policy.denied_settings),
            policy=policy,
            codec=codec,
            hides=hides,
            hide_missing=hide_missing,
            public_is_own=public_is_own,
            space=space,
            locked=frozenset(locked),
            folding=folding,
        )


def _function_names(names: Iterable[str]) -> frozenset[str]:
    """Entries of a policy, as schema.name or name; pg_catalog is searched first, and so can be left out."""
    return frozenset(name.removeprefix("pg_catalog.") for name in names)
