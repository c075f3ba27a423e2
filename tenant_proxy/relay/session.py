"""What Python knows of the two ends of a conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from tenant_proxy.auth.scram import ScramKeys
from tenant_proxy.config.schema import ServerTls
from tenant_proxy.relay.reach import Backoff
from tenant_proxy.relay.wayback import AS_THEY_ARE, Names
from tenant_proxy.tenancy.registry import TenantInfo


@dataclass(slots=True, eq=False)
class Session:
    """A client after its login.  Kept small: there may be tens of thousands."""

    tenant: str
    user: str
    database: str
    application_name: str
    tls: bool
    #: bytes that precede the greeting: the end of the authentication exchange
    prelude: bytes = b""
    #: None on the admin console
    pool: PoolRecord | None = None
    #: what it is counted under, see pool.budget
    places: Mapping[str, int] = field(default_factory=dict)
    startup_id: int = 0
    minor: int = 0
    address: str = ""
    port: int = 0
    admin: bool = False
    #: on the console: an extended-protocol message was refused, all is dropped up to Sync
    skipping: bool = False
    cancel_key: tuple[int, bytes] = (0, b"")
    #: ErrorResponse of the last switch to it that failed
    switch_error: bytes = b""


@dataclass(slots=True, eq=False)
class PoolRecord:
    """A pool as Python knows it: how its servers are opened, and what is known of failures."""

    id: int
    tenant: TenantInfo
    #: login on the server
    server_user: str
    password: str | None
    #: that its clients' logins have in the tenant in place of the tenant's own
    role: str | None = None
    #: names of logins that have come in to it
    logins: set[str] = field(default_factory=set)
    keys: ScramKeys | None = None
    session_mode: bool = True
    #: its clients begin nothing for now
    stopped: bool = False
    #: its clients get servers that tenants share, too
    shared: bool = False
    #: its servers are those
    is_group: bool = False
    #: its one server is an ear's, for the pools whose servers are `base`'s
    is_ear: bool = False
    base: int = 0
    #: names of the settings that its clients can't change
    locked: frozenset[str] = frozenset()
    #: for replication connections: without the guard, which can't read their commands
    replication: bool = False
    #: startup_id -> the server's ParameterStatus messages, in order
    welcomes: dict[int, tuple[bytes, ...]] = field(default_factory=dict)
    #: after logins that the server refused
    backoff: Backoff = field(default_factory=Backoff)
    #: what the last failure was, for the error's detail
    last_error: str = ""
    retry_handle: asyncio.TimerHandle | None = None
    #: what turns the names in its servers' messages back
    names: Names = AS_THEY_ARE


@dataclass(slots=True, eq=False)
class ServerInfo:
    """A server: how it was opened, and what it said of itself."""

    pool: PoolRecord
    #: as it was then: its pool's may have moved to another cluster since
    tenant: TenantInfo
    startup_id: int
    host: str
    #: what connect() is given: a (host, port) pair or a socket's path
    address: tuple[str, int] | str
    tls: ServerTls
    settings: dict[str, str]
    parameters: list[bytes] = field(default_factory=list)
    pid: int = 0
    key: bytes = b""
    encrypted: bool = False
