"""What the catalog holds, as it is read and shown: frozen, and the same in JSON, in YAML and in Python.

Annotations are objects, as in `config.schema`.
"""

from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.states import State
from tenant_proxy.config.schema import (
    NAME_PATTERN,
    Count,
    Isolation,
    PgName,
    Policy,
    Pool,
    TenantName,
    merged,
)

if TYPE_CHECKING:
    from _typeshed import SupportsKeysAndGetItem

    #: asyncpg's, or a dict
    Row = SupportsKeysAndGetItem[str, Any]

Name = TenantName
Bytes = Annotated[int, Field(ge=0, le=1 << 60)]


class Record(BaseModel):
    # a command uses a few of them: their validators are made when they are first asked
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def of(cls, row: "Row") -> Self:
        """Of a row of the catalog, which has checked it."""
        given = dict(row)
        return cls.model_validate({key: given[key] for key in cls.model_fields if key in given})

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class Spec(Record):
    """What a plan gives and a tenant may have otherwise; a key that is not given is the plan's, then the
    default."""

    isolation: Isolation | None = None
    """dedicated or shared backends."""
    own_database: bool | None = None
    """Whether the tenant has a database of its own rather than a schema of the cluster's."""
    pool: dict[str, Any] | None = None
    """Keys of the configuration's pool, merged key by key."""
    policy: dict[str, Any] | None = None
    """Keys of the configuration's policy, merged key by key."""
    settings: dict[str, str] | None = None
    """PostgreSQL settings that sessions start with, merged key by key."""
    locked_settings: list[str] | None = None
    """Those of the settings that clients may not change."""
    max_clients: Count | None = None
    """Client connections at most; 0: any number."""
    connection_limit: Count | None = None
    """Connections at most that each of its logins may have on the server; 0: any number."""
    storage_bytes: Bytes | None = None
    """Bytes that its schema may take; over it statements that grow are refused.  0: any number."""
    grace_s: Annotated[float, Field(ge=0, le=31_536_000)] | None = None
    """How long those who are connected may stay once it is suspended."""
    delete_grace_s: Annotated[float, Field(ge=0, le=315_360_000)] | None = None
    """How long it may be restored once it is deleted."""
    extensions: list[PgName] | None = None
    """Extensions that its database must have."""
    template: PgName | None = None
    """A schema whose objects it begins with."""
    tablespace: PgName | None = None
    """Where its tables are kept."""
    services: list[str] | None = None
    """Further services to provision, by the names of their plug-ins."""

    @field_validator("pool")
    @classmethod
    def _pool_is_one(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        merged(Pool(), value or {})
        return value

    @field_validator("policy")
    @classmethod
    def _policy_is_one(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        merged(Policy(), value or {})
        return value

    def given(self) -> dict[str, Any]:
        """The keys that say something, as they are stored."""
        return self.model_dump(mode="json", exclude_none=True)


class Plan(Record):
    name: Name
    description: str = ""
    spec: Spec = Spec.model_construct()
    billing: dict[str, Any] = {}
    """Included amounts and prices, for invoices."""
    version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Tenant(Record):
    id: int
    name: Name
    state: State
    failed_from: State | None = None
    reason: str = ""
    plan: Name | None = None
    spec: Spec = Spec.model_construct()
    labels: dict[str, str] = {}
    sni: list[str] = []
    cluster: str
    database: str | None = None
    """If other than the cluster's."""
    schema_: Annotated[str, Field(alias="schema")]
    owner_role: str
    readwrite_role: str
    readonly_role: str
    space: str | None = None
    provisioned_at: datetime | None = None
    activated_at: datetime | None = None
    suspended_at: datetime | None = None
    erase_after: datetime | None = None
    erased_at: datetime | None = None
    storage_bytes: int = 0
    storage_at: datetime | None = None
    over_storage: bool = False
    version: int = 1
    created_at: datetime
    updated_at: datetime

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    @classmethod
    def of(cls, row: "Row") -> Self:
        return cls.model_validate(dict(row))


class Level(StrEnum):
    OWNER = "owner"
    READWRITE = "readwrite"
    READONLY = "readonly"
    CUSTOM = "custom"


class LoginKind(StrEnum):
    PASSWORD = "password"
    SERVICE = "service"
    """Logs in by a token with certain claims; has no password."""


class Login(Record):
    id: int
    name: PgName
    kind: LoginKind = LoginKind.PASSWORD
    claims: dict[str, Any] | None = None
    expires_at: datetime | None = None
    addresses: list[str] = []
    max_clients: int = 0
    disabled: bool = False
    version: int = 1
    created_at: datetime
    updated_at: datetime


class Secret(Record):
    """One of a login's verifiers, and the role on the server that has the same."""

    slot: int
    verifier: Annotated[str, Field(repr=False)]
    server_user: str
    pending: bool = False
    retires_at: datetime | None = None
    created_at: datetime


class CustomRole(Record):
    id: int
    tenant: int
    name: Name
    server_role: str
    grants: dict[str, list[str]]
    version: int = 1


class Access(Record):
    """One login's right on one tenant."""

    login: str
    tenant: str
    level: Level
    role: str = ""
    """Name of the custom role, where the level is custom."""
    server_role: str
    """What statements run as."""
    expires_at: datetime | None = None
    pending: bool = False
    """It is being granted."""
    is_default: bool = False
    created_at: datetime


class JobState(StrEnum):
    RUNNING = "running"
    UNDOING = "undoing"
    DONE = "done"
    UNDONE = "undone"
    FAILED = "failed"


class Job(Record):
    id: int
    kind: str
    tenant: int | None = None
    tenant_name: str = ""
    actor: str
    params: dict[str, Any] = {}
    state: JobState
    position: int = 0
    """Steps that are done."""
    steps: list[str] = []
    data: dict[str, Any] = {}
    progress: dict[str, Any] = {}
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None
    attempts: int = 0
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        return self.state in (JobState.RUNNING, JobState.UNDOING)


class AuditEntry(Record):
    id: int
    at: datetime
    actor: str
    action: str
    kind: str
    name: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    job: int | None = None
    hash: str
    """Hexadecimal; covers this entry and the hash of the one before it."""


class Token(Record):
    id: int
    name: Name
    role: Literal["admin", "tenant_admin", "auditor", "reader"]
    tenant: str | None = None
    expires_at: datetime | None = None
    created_at: datetime
    used_at: datetime | None = None


class Webhook(Record):
    """Who is told of changes."""

    id: int
    name: Name
    url: str
    events: list[str]
    """Actions of the log of changes, such as tenant.suspend, or tenant.*; all if there are none."""
    created_at: datetime
    gone_at: datetime | None = None
    """It has answered 410, and is told no more."""


class WebhookDelivery(Record):
    """What became of one entry of the log at one webhook."""

    id: int
    """0 of a test."""
    webhook: Name
    event: str
    subject: str
    state: Literal["waiting", "delivered", "failed"]
    attempts: int
    status: int | None = None
    """The last answer's."""
    error: str = ""
    created_at: datetime
    next_at: datetime | None = None
    """When it is tried next, while it waits."""
    ended_at: datetime | None = None


RecordT = TypeVar("RecordT", bound=Record)


def parse(model: type[RecordT], value: Mapping[str, Any]) -> RecordT:
    """Of what somebody wrote; Failure (invalid) says which key is wrong, and never shows a value."""
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        raise _invalid(model, error) from None


#: pydantic's words for what people get wrong most -> ours
_SAID = {
    "extra_forbidden": "there is no such key",
    "missing": "is missing",
    "string_pattern_mismatch": "takes lower-case letters, digits, _ and -, 63 at most",
}


def _invalid(model: type[Record], error: ValidationError) -> Failure:
    problems, hint = [], ""
    for problem in error.errors(include_url=False, include_input=False):
        kind, said = problem["type"], problem["msg"]
        if kind != "string_pattern_mismatch" or problem["ctx"]["pattern"] == NAME_PATTERN:
            said = _SAID.get(kind, said)
        if kind == "extra_forbidden" and not hint:
            hint = _keys_for(model, *map(str, problem["loc"]))
        problems.append(f"{'.'.join(map(str, problem['loc']))}: {said}")
    return Failure("invalid", problems[0], detail="; ".join(problems[1:]), hint=hint)


def _keys_for(model: type[BaseModel], *unknown: str) -> str:
    """What may have been meant by a key that there is not."""
    sections: dict[str, type[BaseModel]] = {"pool": Pool, "policy": Policy}
    section = sections.get(unknown[0], model)
    keys = [one.alias or name for name, one in section.model_fields.items()]
    near = get_close_matches(unknown[-1], keys, n=1)
    return f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(keys)}"
