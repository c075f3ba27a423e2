"""What verbs take and return beside the catalog's own.  Annotations are objects, as in `config.schema`."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from tenant_proxy.catalog.records import Access, Job, Level, Name, Record, Spec, Tenant, Token, Webhook
from tenant_proxy.config.schema import Count, PgName


class NewTenant(Record):
    """What `tenant create` takes; also a file of `apply`."""

    name: Name
    plan: Name | None = None
    labels: dict[str, str] = Field(default={})
    sni: list[str] = Field(default=[])
    cluster: str | None = None
    """Where it is placed; chosen by its label region and by how many tenants there are, if null."""
    database: PgName | None = None
    """Name of a database of its own; made of its name where the plan gives it one."""
    schema_: Annotated[PgName | None, Field(alias="schema")] = None
    """Its schema; its name if null."""
    spec: Spec = Spec.model_construct()

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class EffectiveValue(Record):
    value: Any
    source: Literal["default", "plan", "tenant"]


class TenantDetails(Record):
    """Everything about one tenant."""

    tenant: Tenant
    effective: dict[str, EffectiveValue]
    access: list[Access]
    job: Job | None = None
    """The one that is at work on it."""


class NewAccess(Record):
    """What `access grant` takes."""

    login: PgName
    level: Level = Level.OWNER
    role: str = ""
    """Name of a custom role; then the level is custom."""
    expires_at: datetime | None = None
    addresses: list[str] = Field(default=[])
    """Where the login may come from; only for a login that is new."""
    max_clients: Count = 0
    password: Annotated[str | None, Field(repr=False)] = None
    """For a login that is new; made if null."""
    service: bool = False
    """A login that is new has no password: it logs in by JSON Web Token."""


class Granted(Record):
    access: Access
    password: Annotated[str | None, Field(repr=False)] = None
    """Of a login that is new; shown once, and kept nowhere."""
    dsn: str
    """To log in through the proxy; without a password where that is not known."""
    job: int | None = None


class Rotated(Record):
    login: str
    password: Annotated[str | None, Field(repr=False)] = None
    retires_at: datetime | None = None
    """Until then the password before it is good too."""
    dsn: str
    job: int | None = None


class Onboarded(Record):
    tenant: Tenant
    granted: Granted


class Verification(Record):
    """Of the log of changes."""

    ok: bool
    entries: int
    head: str
    broken_at: int | None = None
    problem: str = ""


class NewToken(Record):
    """What `token create` takes."""

    name: Name
    role: Literal["admin", "tenant_admin", "auditor", "reader"]
    tenant: Name | None = None
    """Of a tenant_admin, who may reach no other."""
    expires_at: datetime | None = None


class IssuedToken(Record):
    token: Token
    secret: Annotated[str, Field(repr=False)]
    """What callers send; shown once, and kept nowhere."""


class NewWebhook(Record):
    """What `webhook add` takes."""

    name: Name
    url: Annotated[str, Field(min_length=1, max_length=2000)]
    """https://HOST[:PORT]/PATH"""
    events: list[Annotated[str, Field(pattern=r"^[a-z_]+\.([a-z_]+|\*)$")]] = Field(default=[])
    """Actions of the log of changes, such as tenant.suspend, or tenant.*; all if there are none."""


class IssuedWebhook(Record):
    webhook: Webhook
    secret: Annotated[str, Field(repr=False)]
    """What its requests are signed with; shown once, and kept nowhere."""


class Kept(Record):
    """An archive that the API keeps."""

    name: str
    bytes: int
    kept_at: datetime


class Version(Record):
    """One of a directory of migrations."""

    version: int
    name: str


class Standing(Record):
    """Which versions a tenant has had."""

    tenant: str
    version: int | None
    """The last that it has had."""
    pending: tuple[int, ...]
    changed: tuple[int, ...] = ()
    """Versions whose file is another than when it was applied."""
    unknown: tuple[int, ...] = ()
    """Versions that have no file."""


class Every(StrEnum):
    """What rows are summed over."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    ALL = "all"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What a scan has found."""

    #: breaks, doubt or note
    weight: str
    #: what kind of thing it is, a stable word
    kind: str
    #: as SQL names it
    object: str
    what: str
    #: SQL that mends it; "" where somebody has to decide
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "kind": self.kind,
            "object": self.object,
            "what": self.what,
            "mend": self.mend,
        }
