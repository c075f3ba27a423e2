"""The API's client: a Door, like the verbs where the catalog is.

client = Client("https://tenants.example.org", token)
await client.tenant_onboard(NewTenant(name="acme"), NewAccess(login="acme"))
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import ValidationError

from tenant_proxy.api.cursors import cursor_of
from tenant_proxy.catalog.failures import CODES, Failure
from tenant_proxy.catalog.records import (
    Access,
    AuditEntry,
    CustomRole,
    Job,
    JobState,
    Login,
    Plan,
    Record,
    Tenant,
    Token,
    Webhook,
    WebhookDelivery,
)
from tenant_proxy.catalog.states import State
from tenant_proxy.lifecycle.adopting import Problem
from tenant_proxy.lifecycle.records import (
    Granted,
    IssuedToken,
    IssuedWebhook,
    NewAccess,
    NewTenant,
    Onboarded,
    Rotated,
    TenantDetails,
    Verification,
)
from tenant_proxy.lifecycle.usage import STRIPE_LABEL, Every, Invoice, Used

TIMEOUT_S: Final = 90.0
#: the server is asked to answer within so many seconds before there is a job to look at
_WAIT_S: Final = 20
_POLL_S: Final = (0.1, 0.2, 0.5, 1.0)
_PAGE: Final = 1000

RecordT = TypeVar("RecordT", bound=Record)


class Rehearsed(Exception):
    """What a verb would run, where the client only rehearses."""

    def __init__(self, sql: list[str]) -> None:
        super().__init__("rehearsed")
        self.sql = sql


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


class Client:
    """With `rehearse` verbs that change clusters raise `Rehearsed` and change nothing."""

    def __init__(self, url: str, token: str, *, rehearse: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure("invalid", f"{url!r} is no address of an API", hint="https://HOST[:PORT]")
        self._host, self._port = parts.hostname, parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._base = parts.path.rstrip("/")
        self._token = token
        self._rehearse = rehearse
        self._timeout_s = timeout_s
        self._idle: list[http.client.HTTPConnection] = []

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    # --- plans

    async def plan_put(self, plan: Plan, *, version: int | None = None) -> Plan:
        body = {
            key: value for key, value in plan.to_json().items() if key in ("description", "spec", "billing")
        }
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return await self._record(Plan, "PUT", f"/plans/{_part(plan.name)}", body, headers=headers)

    async def plan_get(self, name: str) -> Plan:
        return await self._record(Plan, "GET", f"/plans/{_part(name)}")

    async def plan_list(self) -> list[Plan]:
        return await self._all(Plan, "/plans")

    async def plan_delete(self, name: str) -> None:
        await self._ask("DELETE", f"/plans/{_part(name)}")

    # --- tenants

    async def tenant_get(self, name: str) -> Tenant:
        return await self._record(Tenant, "GET", _tenant(name))

    async def tenant_show(self, name: str) -> TenantDetails:
        return await self._record(TenantDetails, "GET", _tenant(name, "details"))

    async def tenant_list(
        self,
        *,
        states: Sequence[State] = (),
        plan: str | None = None,
        cluster: str | None = None,
        labels: Mapping[str, str] | None = None,
        prefix: str = "",
        after: str = "",
        limit: int | None = None,
    ) -> list[Tenant]:
        query = {
            "state": [state.value for state in states],
            "plan": plan,
            "cluster": cluster,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()],
            "prefix": prefix or None,
        }
        found = await self._pages(Tenant, "/tenants", query, None if after else limit)
        return [tenant for tenant in found if tenant.name > after][:limit]

    async def tenant_create(self, new: NewTenant) -> Tenant:
        return await self._record(Tenant, "POST", "/tenants", _given(new))

    async def tenant_set(
        self,
        name: str,
        *,
        plan: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        sni: Sequence[str] | None = None,
        spec: Mapping[str, Any] | None = None,
        version: int | None = None,
    ) -> Tenant:
        patch = {"plan": plan, "labels": labels, "sni": sni, "spec": spec}
        body = {key: value for key, value in patch.items() if value is not None}
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return await self._record(Tenant, "PATCH", _tenant(name), body, headers=headers)

    async def tenant_rename(self, name: str, new: str) -> Tenant:
        return await self._record(Tenant, "POST", _tenant(name, "rename"), {"name": new})

    async def tenant_provision(self, name: str) -> Tenant:
        done = await self._work("POST", _tenant(name, "provision"))
        return await self.tenant_get(name) if isinstance(done, Job) else _parsed(Tenant, done)

    async def tenant_activate(self, name: str) -> Tenant:
        return await self._record(Tenant, "POST", _tenant(name, "activate"))

    async def tenant_suspend(self, name: str, reason: str = "") -> Tenant:
        return await self._record(Tenant, "POST", _tenant(name, "suspend"), {"reason": reason})

    async def tenant_resume(self, name: str) -> Tenant:
        return await self._record(Tenant, "POST", _tenant(name, "resume"))

    async def tenant_delete(self, name: str, reason: str = "", grace_s: float | None = None) -> Tenant:
        query = {"reason": reason or None, "grace_s": grace_s}
        return await self._record(Tenant, "DELETE", _tenant(name), query=query)

    async def tenant_restore(self, name: str) -> Tenant:
        return await self._record(Tenant, "POST", _tenant(name, "restore"))

    async def tenant_clone(
        self,
        name: str,
        new: str,
        *,
        cluster: str | None = None,
        database: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        accept: bool = False,
    ) -> Job:
        body = {"name": new, "cluster": cluster, "database": database, "labels": labels, "accept": accept}
        return await self._job(_tenant(name, "clone"), body)

    async def tenant_move(self, name: str, cluster: str) -> Job:
        return await self._job(_tenant(name, "move"), {"cluster": cluster})

    async def tenant_move_confirm(self, name: str) -> Job | None:
        done = await self._work("POST", _tenant(name, "move/confirm"))
        return done if done is None or isinstance(done, Job) else _parsed(Job, done)

    async def tenant_scan(self, name: str, logins: Sequence[str] = ()) -> list[Problem]:
        answer = await self._ask("GET", _tenant(name, "scan"), query={"login": list(logins)})
        return [Problem(**one) for one in answer.body["items"]]

    async def tenant_adopt(self, name: str, *, logins: Sequence[str] = (), accept: bool = False) -> Job:
        return await self._job(_tenant(name, "adopt"), {"logins": list(logins), "accept": accept})

    async def tenant_erase(self, name: str, *, at_once: bool = False, cascade: bool = False) -> Job:
        return await self._job(_tenant(name, "erase"), {"at_once": at_once, "cascade": cascade})

    async def erasure_record(self, name: str) -> dict[str, Any]:
        return dict((await self._ask("GET", f"/erasures/{_part(name)}")).body)

    async def tenant_onboard(self, new: NewTenant, access: NewAccess) -> Onboarded:
        body = {"tenant": _given(new), "access": _given(access)}
        return await self._record(Onboarded, "POST", "/onboard", body, tried=True)

    # --- access

    async def access_list(self, *, tenant: str | None = None, login: str | None = None) -> list[Access]:
        path = "/access" if tenant is None else _tenant(tenant, "access")
        return await self._all(Access, path, {"login": login})

    async def access_grant(self, tenant: str, new: NewAccess) -> Granted:
        return await self._record(Granted, "POST", _tenant(tenant, "access"), _given(new), tried=True)

    async def access_revoke(self, tenant: str, login: str) -> None:
        await self._ask("DELETE", _tenant(tenant, f"access/{_part(login)}"), tried=True)

    async def access_rotate(
        self, login: str, *, password: str | None = None, overlap_s: float = 86400.0, end: bool = False
    ) -> Rotated:
        body = {"password": password, "overlap_s": overlap_s, "end": end}
        return await self._record(Rotated, "POST", f"/logins/{_part(login)}/rotate", body, tried=True)

    async def login_get(self, name: str) -> Login:
        return await self._record(Login, "GET", f"/logins/{_part(name)}")

    async def login_set(
        self,
        name: str,
        *,
        addresses: Sequence[str] | None = None,
        max_clients: int | None = None,
        disabled: bool | None = None,
        expires_at: datetime | None = None,
    ) -> Login:
        body = {
            "addresses": None if addresses is None else list(addresses),
            "max_clients": max_clients,
            "disabled": disabled,
            "expires_at": None if expires_at is None else expires_at.isoformat(),
        }
        return await self._record(Login, "PATCH", f"/logins/{_part(name)}", body)

    # --- roles

    async def role_list(self, tenant: str) -> list[CustomRole]:
        return await self._all(CustomRole, _tenant(tenant, "roles"))

    async def role_put(self, tenant: str, name: str, grants: Mapping[str, Sequence[str]]) -> CustomRole:
        body = {"grants": {table: list(rights) for table, rights in grants.items()}}
        return await self._record(
            CustomRole, "PUT", _tenant(tenant, f"roles/{_part(name)}"), body, tried=True
        )

    async def role_delete(self, tenant: str, name: str) -> None:
        await self._ask("DELETE", _tenant(tenant, f"roles/{_part(name)}"), tried=True)

    # --- jobs

    async def job_list(
        self,
        *,
        tenant: str | None = None,
        state: JobState | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        query = {"tenant": tenant, "state": None if state is None else state.value}
        return await self._pages(Job, "/jobs", query, limit, before)

    async def job_show(self, number: int) -> Job:
        return await self._record(Job, "GET", f"/jobs/{number}")

    async def job_resume(self, number: int) -> Job:
        return await self._job(f"/jobs/{number}/resume")

    async def job_undo(self, number: int) -> Job:
        return await self._job(f"/jobs/{number}/undo", undo=True)

    async def _job(self, path: str, body: Any = None, *, undo: bool = False) -> Job:
        done = await self._work("POST", path, body, undo=undo)
        return done if isinstance(done, Job) else _parsed(Job, done)

    # --- the log

    async def audit_log(
        self, *, kind: str | None = None, name: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        return await self._pages(AuditEntry, "/audit", {"kind": kind, "name": name}, limit, before)

    async def audit_verify(self, expected: str | None = None) -> Verification:
        return await self._record(Verification, "GET", "/audit/verify", query={"head": expected})

    # --- usage

    async def usage_show(
        self,
        since: datetime,
        until: datetime,
        *,
        tenants: Sequence[str] | None = None,
        every: Every = Every.ALL,
    ) -> list[Used]:
        query = {
            "since": since.isoformat(),
            "until": until.isoformat(),
            "tenant": None if tenants is None else list(tenants),
            "every": every.value,
        }
        return [] if tenants == [] else await self._all(Used, "/usage", query)

    async def usage_invoices(self, month: str, tenants: Sequence[str] | None = None) -> list[Invoice]:
        query = {"month": month, "tenant": None if tenants is None else list(tenants)}
        return [] if tenants == [] else await self._all(Invoice, "/usage/invoices", query)

    async def usage_customers(self) -> dict[str, str]:
        tenants = sorted(await self.tenant_list(states=list(State)), key=lambda one: one.id)
        return {one.name: one.labels[STRIPE_LABEL] for one in tenants if STRIPE_LABEL in one.labels}

    # --- tokens

    async def token_create(
        self, name: str, role: str, *, tenant: str | None = None, expires_at: datetime | None = None
    ) -> IssuedToken:
        body = {"name": name, "role": role, "tenant": tenant}
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat()
        return await self._record(IssuedToken, "POST", "/tokens", body)

    async def token_list(self) -> list[Token]:
        return await self._all(Token, "/tokens")

    async def token_revoke(self, name: str) -> None:
        await self._ask("DELETE", f"/tokens/{_part(name)}")

    # --- webhooks

    async def webhook_add(self, name: str, url: str, events: list[str] | None = None) -> IssuedWebhook:
        body = {"name": name, "url": url, "events": events or []}
        return await self._record(IssuedWebhook, "POST", "/webhooks", body)

    async def webhook_list(self) -> list[Webhook]:
        return await self._all(Webhook, "/webhooks")

    async def webhook_remove(self, name: str) -> None:
        await self._ask("DELETE", f"/webhooks/{_part(name)}")

    async def webhook_test(self, name: str) -> WebhookDelivery:
        return await self._record(WebhookDelivery, "POST", f"/webhooks/{_part(name)}/test")

    async def webhook_deliveries(self, name: str, *, limit: int = 50) -> list[WebhookDelivery]:
        path = f"/webhooks/{_part(name)}/deliveries"
        return await self._all(WebhookDelivery, path, {"limit": limit})

    # --- requests

    async def _record(
        self,
        model: type[RecordT],
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        tried: bool = False,
    ) -> RecordT:
        answer = await self._ask(method, path, body, query=query, headers=headers, tried=tried)
        return _parsed(model, answer.body)

    async def _all(
        self, model: type[RecordT], path: str, query: Mapping[str, Any] | None = None
    ) -> list[RecordT]:
        answer = await self._ask("GET", path, query=query)
        return [_parsed(model, one) for one in answer.body["items"]]

    async def _pages(
        self,
        model: type[RecordT],
        path: str,
        query: Mapping[str, Any],
        limit: int | None,
        before: int | None = None,
    ) -> list[RecordT]:
        found: list[RecordT] = []
        cursor = None if before is None else cursor_of(before)
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            answer = await self._ask("GET", path, query={**query, "cursor": cursor, "limit": size})
            found += [_parsed(model, one) for one in answer.body["items"]]
            cursor = answer.body["next"]
            if cursor is None:
                break
        return found

    async def _work(self, method: str, path: str, body: Any = None, *, undo: bool = False) -> Job | Any:
        """The answer, or the ended job that the server went on with; what failed is a Failure."""
        answer = await self._ask(
            method, path, body, headers={"Prefer": f"wait={_WAIT_S}"}, tried=path.endswith("/provision")
        )
        if answer.status != 202:
            return answer.body
        job, polls = _parsed(Job, answer.body), 0
        while job.is_open:
            await asyncio.sleep(_POLL_S[min(polls, len(_POLL_S) - 1)])
            polls += 1
            job = await self.job_show(job.id)
        if job.state is JobState.DONE or (undo and job.state is JobState.UNDONE):
            return job
        error = job.error or {}
        raise Failure(
            str(error.get("code", "refused")),
            str(error.get("message", "it failed")),
            detail=str(error.get("detail", "")),
            hint=str(error.get("hint", "")),
            job=job.id,
        )

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        tried: bool = False,
    ) -> Answer:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        rehearse = tried and self._rehearse
        if rehearse:
            given["dry_run"] = "true"
        elif self._rehearse and method != "GET":
            raise Failure("invalid", "that can't be rehearsed")
        target = f"{self._base}/v1{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        sent = {"Authorization": f"Bearer {self._token}", "Accept": "application/json", **(headers or {})}
        if method == "POST":
            # so that it may be sent again when nobody knows whether it arrived
            sent["Idempotency-Key"] = uuid.uuid4().hex
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        answer = await asyncio.to_thread(self._send, method, target, payload, sent)
        if answer.status >= 400:
            raise _failure_of(answer.status, answer.body if isinstance(answer.body, dict) else {})
        if rehearse and isinstance(answer.body, dict) and "sql" in answer.body:
            raise Rehearsed(list(answer.body["sql"]))
        return answer

    def _send(self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]) -> Answer:
        while True:
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else self._connection()
            try:
                connection.request(method, target, payload, dict(headers))
                response = connection.getresponse()
                text = response.read()
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                if kept:  # the server may have closed it while it was idle
                    continue
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise Failure("unavailable", f"the API at {self._host} can't be reached: {reason}") from None
            if response.will_close:
                connection.close()
            else:
                self._idle.append(connection)
            return _answer(response, text)

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)


def _failure_of(status: int, body: Mapping[str, Any]) -> Failure:
    """What a problem was before it was sent."""
    code = str(body.get("code", ""))
    if code not in CODES:
        code = {401: "forbidden", 404: "not_found"}.get(status, "unavailable" if status >= 500 else "invalid")
    job = body.get("job")
    return Failure(
        code,
        str(body.get("detail") or body.get("title") or f"HTTP {status}"),
        detail=str(body.get("explanation") or ""),
        hint=str(body.get("hint") or ""),
        job=job if isinstance(job, int) else None,
    )


def _answer(response: http.client.HTTPResponse, text: bytes) -> Answer:
    body: Any = None
    if text:
        try:
            body = json.loads(text)
        except ValueError:
            if response.status < 400:
                raise Failure("unavailable", "the answer is not one of the API") from None
    return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, body)


def _parsed(model: type[RecordT], value: Any) -> RecordT:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        place = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise Failure(
            "outdated", f"the API answers otherwise than this version expects ({model.__name__}: {place})"
        ) from None


def _given(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_none=True)


def _part(name: str) -> str:
    return quote(name, safe="")


def _tenant(name: str, rest: str = "") -> str:
    return f"/tenants/{_part(name)}" + (f"/{rest}" if rest else "")
