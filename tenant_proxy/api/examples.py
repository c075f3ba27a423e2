"""A story that shows each part of the API: bodies for the OpenAPI document, requests for docs/api.md, and a
test that runs all of them in this order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Example:
    operation: str
    method: str
    #: with its query
    path: str
    status: int
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: what is sent where that is no JSON
    raw: bytes | None = None


STORY: Final = [
    Example("whoami", "GET", "/v1/whoami", 200),
    Example(
        "plan_put",
        "PUT",
        "/v1/plans/standard",
        200,
        {"description": "Most have it", "spec": {"max_clients": 50, "settings": {"work_mem": "8MB"}}},
    ),
    Example("plan_get", "GET", "/v1/plans/standard", 200),
    Example("plan_list", "GET", "/v1/plans", 200),
    Example(
        "tenant_create",
        "POST",
        "/v1/tenants",
        201,
        {"name": "acme", "plan": "standard", "labels": {"tier": "gold"}},
        {"Idempotency-Key": "3d5e0c1c-acme"},
    ),
    Example("tenant_provision", "POST", "/v1/tenants/acme/provision", 200, headers={"Prefer": "wait=30"}),
    Example(
        "access_grant",
        "POST",
        "/v1/tenants/acme/access",
        201,
        {"login": "alice", "level": "readwrite", "expires_at": "2099-01-31T00:00:00Z"},
    ),
    Example("tenant_activate", "POST", "/v1/tenants/acme/activate", 200),
    Example("tenant_list", "GET", "/v1/tenants?state=active&label=tier%3Dgold&limit=10", 200),
    Example("tenant_get", "GET", "/v1/tenants/acme", 200),
    Example("tenant_show", "GET", "/v1/tenants/acme/details", 200),
    Example(
        "tenant_set",
        "PATCH",
        "/v1/tenants/acme",
        200,
        {"labels": {"tier": None}, "spec": {"pool": {"max": 5}}},
    ),
    Example("access_list", "GET", "/v1/tenants/acme/access", 200),
    Example("access_list_all", "GET", "/v1/access?login=alice", 200),
    Example("login_get", "GET", "/v1/logins/alice", 200),
    Example("login_set", "PATCH", "/v1/logins/alice", 200, {"max_clients": 5, "addresses": ["10.0.0.0/8"]}),
    Example("access_rotate", "POST", "/v1/logins/alice/rotate", 200, {"overlap_s": 3600}),
    Example(
        "role_put", "PUT", "/v1/tenants/acme/roles/clerk", 200, {"grants": {"orders": ["SELECT", "INSERT"]}}
    ),
    Example("role_list", "GET", "/v1/tenants/acme/roles", 200),
    Example("role_delete", "DELETE", "/v1/tenants/acme/roles/clerk", 204),
    Example("access_revoke", "DELETE", "/v1/tenants/acme/access/alice?dry_run=true", 200),
    Example("tenant_suspend", "POST", "/v1/tenants/acme/suspend", 200, {"reason": "unpaid"}),
    Example("tenant_resume", "POST", "/v1/tenants/acme/resume", 200),
    Example("tenant_rename", "POST", "/v1/tenants/acme/rename", 200, {"name": "anvil"}),
    Example("tenant_delete", "DELETE", "/v1/tenants/anvil?grace_s=604800", 200),
    Example("tenant_restore", "POST", "/v1/tenants/anvil/restore", 200),
    Example(
        "tenant_onboard",
        "POST",
        "/v1/onboard",
        201,
        {"tenant": {"name": "beta", "plan": "standard"}, "access": {"login": "beta"}},
    ),
    Example("tenant_clone", "POST", "/v1/tenants/beta/clone", 200, {"name": "copy"}, {"Prefer": "wait=60"}),
    Example(
        "tenant_export",
        "POST",
        "/v1/tenants/beta/export",
        200,
        {"archive": "beta.tar"},
        {"Prefer": "wait=60"},
    ),
    Example("archive_list", "GET", "/v1/archives", 200),
    Example("archive_get", "GET", "/v1/archives/beta.tar", 200),
    Example("archive_put", "PUT", "/v1/archives/sent.tar", 201, raw=b"of another machine"),
    Example("archive_delete", "DELETE", "/v1/archives/sent.tar", 204),
    Example(
        "tenant_import",
        "POST",
        "/v1/imports",
        200,
        {"archive": "beta.tar", "name": "gamma"},
        {"Prefer": "wait=60"},
    ),
    Example(
        "migrate",
        "POST",
        "/v1/migrations",
        200,
        {"files": {"V001__notes.up.sql": "CREATE TABLE note (id int PRIMARY KEY);"}, "tenants": ["beta"]},
        {"Prefer": "wait=60"},
    ),
    Example(
        "migrate_status",
        "POST",
        "/v1/migrations/status",
        200,
        {"files": {"V001__notes.up.sql": "CREATE TABLE note (id int PRIMARY KEY);"}},
    ),
    Example("tenant_move", "POST", "/v1/tenants/beta/move", 404, {"cluster": "other"}),
    Example("tenant_move_confirm", "POST", "/v1/tenants/beta/move/confirm", 204),
    Example("tenant_scan", "GET", "/v1/tenants/beta/scan?login=beta", 200),
    Example("tenant_adopt", "POST", "/v1/tenants/beta/adopt", 409, {"accept": False}, {"Prefer": "wait=30"}),
    Example("tenant_delete", "DELETE", "/v1/tenants/copy?reason=no%20longer%20needed", 200),
    Example("tenant_erase", "POST", "/v1/tenants/copy/erase", 200, {"at_once": True}, {"Prefer": "wait=60"}),
    Example("erasure_record", "GET", "/v1/erasures/copy", 200),
    Example("job_list", "GET", "/v1/jobs?state=done&limit=5", 200),
    Example("job_show", "GET", "/v1/jobs/1", 200),
    Example("job_events", "GET", "/v1/jobs/1/events", 200),
    Example("job_resume", "POST", "/v1/jobs/1/resume", 200),
    Example("job_undo", "POST", "/v1/jobs/1/undo", 409),
    Example("audit_log", "GET", "/v1/audit?kind=tenant&limit=5", 200),
    Example("audit_verify", "GET", "/v1/audit/verify", 200),
    Example(
        "usage_show",
        "GET",
        "/v1/usage?since=2026-11-01T00:00:00Z&until=2026-12-01T00:00:00Z&every=day&tenant=beta",
        200,
    ),
    Example("usage_invoices", "GET", "/v1/usage/invoices?month=2026-11", 200),
    Example("token_create", "POST", "/v1/tokens", 201, {"name": "ci", "role": "reader"}),
    Example("token_list", "GET", "/v1/tokens", 200),
    Example("token_revoke", "DELETE", "/v1/tokens/ci", 204),
    Example(
        "webhook_add",
        "POST",
        "/v1/webhooks",
        201,
        {"name": "audit", "url": "https://hooks.example.invalid/tenants", "events": ["tenant.*"]},
    ),
    Example("webhook_list", "GET", "/v1/webhooks", 200),
    Example("webhook_test", "POST", "/v1/webhooks/audit/test", 200),
    Example("webhook_deliveries", "GET", "/v1/webhooks/audit/deliveries?limit=5", 200),
    Example("webhook_remove", "DELETE", "/v1/webhooks/audit", 204),
    Example("plan_delete", "DELETE", "/v1/plans/standard", 409),
]

BODIES: Final = {one.operation: one.body for one in STORY if one.body is not None}
