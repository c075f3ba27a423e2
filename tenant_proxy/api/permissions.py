"""Who may do what: the one table.  What is not in it nobody may.

A tenant_admin is bound to one tenant.  What is `OWN` to it names the tenant in its path, or is about a login
all of whose tenants are that one (`routes.access`), or lists, of which it sees what is its tenant's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tenant_proxy.catalog.failures import Failure


class Role(StrEnum):
    ADMIN = "admin"
    TENANT_ADMIN = "tenant_admin"
    AUDITOR = "auditor"
    READER = "reader"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    #: for the log of changes: token:NAME or jwt:SUBJECT
    actor: str
    role: Role
    #: of a tenant_admin
    tenant: str | None = None


_ADMIN: Final = frozenset({Role.ADMIN})
_OWN: Final = frozenset({Role.ADMIN, Role.TENANT_ADMIN})
_READ: Final = frozenset({Role.ADMIN, Role.AUDITOR, Role.READER})
_READ_OWN: Final = frozenset(Role)
_AUDIT: Final = frozenset({Role.ADMIN, Role.AUDITOR})

#: operation -> roles
MATRIX: Final[dict[str, frozenset[Role]]] = {
    "whoami": _READ_OWN,
    "plan_list": _READ,
    "plan_get": _READ,
    "plan_put": _ADMIN,
    "plan_delete": _ADMIN,
    "tenant_list": _READ_OWN,
    "tenant_create": _ADMIN,
    "tenant_onboard": _ADMIN,
    "tenant_get": _READ_OWN,
    "tenant_show": _READ_OWN,
    "tenant_set": _ADMIN,
    "tenant_rename": _ADMIN,
    "tenant_provision": _ADMIN,
    "tenant_activate": _ADMIN,
    "tenant_suspend": _ADMIN,
    "tenant_resume": _ADMIN,
    "tenant_delete": _ADMIN,
    "tenant_restore": _ADMIN,
    "tenant_clone": _ADMIN,
    "tenant_move": _ADMIN,
    "tenant_move_confirm": _ADMIN,
    "tenant_scan": _AUDIT,
    "tenant_adopt": _ADMIN,
    "tenant_erase": _ADMIN,
    "erasure_record": _AUDIT,
    "tenant_export": _ADMIN,
    "tenant_import": _ADMIN,
    "archive_list": _AUDIT,
    "archive_get": _ADMIN,
    "archive_put": _ADMIN,
    "archive_delete": _ADMIN,
    "migrate": _ADMIN,
    "migrate_status": _AUDIT,
    "access_list_all": _READ,
    "access_list": _READ_OWN,
    "access_grant": _OWN,
    "access_revoke": _OWN,
    "role_list": _READ_OWN,
    "role_put": _OWN,
    "role_delete": _OWN,
    "login_get": _READ_OWN,
    "login_set": _OWN,
    "access_rotate": _OWN,
    "job_list": _READ_OWN,
    "job_show": _READ_OWN,
    "job_events": _READ_OWN,
    "job_resume": _ADMIN,
    "job_undo": _ADMIN,
    "audit_log": _AUDIT | {Role.TENANT_ADMIN},
    "audit_verify": _AUDIT,
    "usage_show": _READ_OWN,
    "usage_invoices": _READ_OWN,
    "token_list": _AUDIT,
    "token_create": _ADMIN,
    "token_revoke": _ADMIN,
    "webhook_list": _AUDIT,
    "webhook_add": _ADMIN,
    "webhook_remove": _ADMIN,
    "webhook_test": _ADMIN,
    "webhook_deliveries": _AUDIT,
}


def authorize(principal: Principal, operation: str, tenant: str | None) -> None:
    """Failure (forbidden), the same whether there is such a tenant or not; `tenant` is the path's."""
    if principal.role not in MATRIX.get(operation, frozenset()):
        raise Failure("forbidden", f"the role {principal.role} may not do that")
    if principal.tenant is not None and tenant is not None and tenant != principal.tenant:
        raise other_tenant(principal)


def other_tenant(principal: Principal) -> Failure:
    return Failure("forbidden", f'that is not of the tenant "{principal.tenant}"')
