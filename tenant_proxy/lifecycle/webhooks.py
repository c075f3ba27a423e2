"""Webhooks: who is told of what was done, by signed HTTP requests that are kept and tried again.

The catalog's log of changes is what they are told: its trigger makes a delivery for each webhook that wants
an entry, in the same transaction.  `deliver` sends what is due; the control process calls it, and `job
upkeep`.

A request is a CloudEvent (structured, JSON), signed as Standard Webhooks has it:

    webhook-id: audit-1204              the same when it is tried again
    webhook-timestamp: 1795000000
    webhook-signature: v1,BASE64        HMAC-SHA256 of "id.timestamp.body" under the webhook's secret

A webhook's secret is made of the configuration's `secret` and a salt in the catalog: so it is shown when the
webhook is added, and kept nowhere.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tenant_proxy.catalog.failures import Failure, not_found
from tenant_proxy.catalog.records import Webhook, WebhookDelivery, parse
from tenant_proxy.lifecycle.records import IssuedWebhook, NewWebhook
from tenant_proxy.lifecycle.tenants import TenantVerbs

if TYPE_CHECKING:
    from tenant_proxy.config.schema import Config
    from tenant_proxy.lifecycle.context import Context

#: what secrets begin with (Standard Webhooks)
PREFIX: Final = "whsec_"
#: sent at once
_BATCH: Final = 20
#: tries altogether: the last one some 40 hours after the first
MAX_ATTEMPTS: Final = 12
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 8 * 3600.0
#: how long somebody who sends has it for himself, beside the request's own time
_LEASE_S: Final = 60.0
#: of deliveries that have ended
_KEPT: Final = "7 days"
_GONE: Final = 410

_CLAIM: Final = """
UPDATE webhook_delivery d SET attempts = attempts + 1, next_at = now() + make_interval(secs => $1)
  FROM webhook w, audit a
 WHERE w.id = d.webhook AND a.id = d.audit AND d.id IN (
       SELECT id FROM webhook_delivery WHERE state = 'waiting' AND next_at <= now()
        ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING d.id, d.attempts, w.id AS webhook, w.name, w.url, w.salt,
          a.id AS audit, a.at, a.actor, a.action, a.kind, a.name AS subject, a.before, a.after, a.job
"""


class WebhookVerbs(TenantVerbs):
    async def webhook_add(self, name: str, url: str, events: list[str] | None = None) -> IssuedWebhook:
        """Its secret is in the answer and nowhere else."""
        from tenant_proxy.lifecycle import outbound

        new = parse(NewWebhook, {"name": name, "url": url, "events": events or []})
        outbound.check(new.url)
        salt = secrets.token_bytes(16)
        secret = _secret(self.context.config, salt)
        async with self._change() as change:
            columns = {"name": name, "url": new.url, "events": new.events, "salt": salt}
            made = Webhook.of(await change.insert("webhook", columns))
            await change.audit("webhook.add", "webhook", name, None, {"url": new.url, "events": new.events})
        return IssuedWebhook(webhook=made, secret=secret)

    async def webhook_list(self) -> list[Webhook]:
        async with self.context.store.read() as connection:
            return [Webhook.of(row) for row in await connection.fetch("SELECT * FROM webhook ORDER BY name")]

    async def webhook_remove(self, name: str) -> None:
        """With what it has not been told yet."""
        async with self._change() as change:
            query = "DELETE FROM webhook WHERE name = $1 RETURNING url"
            url = await change.connection.fetchval(query, name)
            if url is None:
                not_found("webhook", name)
            await change.audit("webhook.remove", "webhook", name, {"url": url}, None)

    async def webhook_test(self, name: str) -> WebhookDelivery:
        """Sends it an event of its own, once and now, and tells what became of it."""
        async with self.context.store.read() as connection:
            row = await connection.fetchrow("SELECT * FROM webhook WHERE name = $1", name)
        if row is None:
            not_found("webhook", name)
        now = datetime.now(UTC)
        number = f"test-{secrets.token_hex(8)}"
        event = _event(number, "webhook.test", "webhook", name, now, self.context.actor)
        status, error = await _send(self.context, row["url"], row["salt"], event)
        return WebhookDelivery(
            id=0,
            webhook=name,
            event="webhook.test",
            subject=name,
            state="failed" if error else "delivered",
            attempts=1,
            status=status,
            error=error,
            created_at=now,
            ended_at=datetime.now(UTC),
        )

    async def webhook_deliveries(
        self, name: str, *, before: int | None = None, limit: int = 50
    ) -> list[WebhookDelivery]:
        """The newest first; older than `before`."""
        async with self.context.store.read() as connection:
            if await connection.fetchval("SELECT 1 FROM webhook WHERE name = $1", name) is None:
                not_found("webhook", name)
            rows = await connection.fetch(
                """SELECT d.id, w.name AS webhook, a.action AS event, a.name AS subject, d.state, d.attempts,
                          d.status, d.error, d.created_at, d.next_at, d.ended_at
                     FROM webhook_delivery d JOIN webhook w ON w.id = d.webhook JOIN audit a ON a.id = d.audit
                    WHERE w.name = $1 AND ($2::bigint IS NULL OR d.id < $2) ORDER BY d.id DESC LIMIT $3""",
                name,
                before,
                limit,
            )
        return [WebhookDelivery.of(row) for row in rows]


async def deliver(context: Context) -> list[str]:
    """Sends what is due; what was done, for the log.  Two who do it at once send different ones."""
    async with context.store.read() as connection:
        due = await connection.fetch(_CLAIM, _LEASE_S + context.config.webhooks.timeout_s, _BATCH)
        await connection.execute(f"DELETE FROM webhook_delivery WHERE ended_at < now() - interval '{_KEPT}'")
    return [*await asyncio.gather(*(_deliver(context, row) for row in due))]


async def _deliver(context: Context, row: Any) -> str:
    event = _event(
        f"audit-{row['audit']}",
        row["action"],
        row["kind"],
        row["subject"],
        row["at"],
        row["actor"],
        before=row["before"],
        after=row["after"],
        job=row["job"],
    )
    status, error = await _send(context, row["url"], row["salt"], event)
    last = row["attempts"] >= MAX_ATTEMPTS or status == _GONE
    state = "delivered" if not error else "failed" if last else "waiting"
    async with context.store.read() as connection, connection.transaction():
        await connection.execute(
            """UPDATE webhook_delivery SET state = $2, status = $3, error = $4,
                      next_at = now() + make_interval(secs => $5),
                      ended_at = CASE WHEN $2 <> 'waiting' THEN now() END
                WHERE id = $1""",
            row["id"],
            state,
            status,
            error[:500],
            pause_s(row["attempts"]),
        )
        if status == _GONE:
            await connection.execute("UPDATE webhook SET gone_at = now() WHERE id = $1", row["webhook"])
    return f"webhook {row['name']}: {row['action']} of {row['subject']} {state}"


def pause_s(attempts: int) -> float:
    """Until the next try: each four times as long as the one before it, and never all at the same moment."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 4.0 ** (attempts - 1)) * random.uniform(0.8, 1.2)


async def _send(context: Context, url: str, salt: bytes, event: dict[str, Any]) -> tuple[int | None, str]:
    """The answer's status, and what was wrong."""
    from tenant_proxy.lifecycle import outbound

    text = json.dumps(event, ensure_ascii=False)
    if context.rehearsal is not None:
        context.rehearsal.note(f"POST {url}\n{text}")
        return None, ""
    config, body = context.config, text.encode()
    try:
        headers = signed(_secret(config, salt), event["id"], int(time.time()), body)
        answer = await asyncio.to_thread(outbound.post, url, body, headers, config.webhooks)
    except Failure as failure:
        return None, failure.message
    if 200 <= answer.status < 300:
        return answer.status, ""
    return answer.status, f"it answered {answer.status}"


def signed(secret: str, number: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of a request."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, f"{number}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "Content-Type": "application/cloudevents+json",
        "webhook-id": number,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _secret(config: Config, salt: bytes) -> str:
    if config.secret is None:
        raise Failure(
            "invalid",
            "webhooks need the configuration's `secret`, of which theirs are made",
            hint="secret: {file: …}, the same for all proxies of the catalog",
        )
    made = hmac.new(
        config.secret.reveal().encode(), b"tenant_proxy webhook\0" + salt, hashlib.sha256
    ).digest()
    return PREFIX + base64.b64encode(made).decode()


def _event(
    number: str, action: str, kind: str, subject: str, at: datetime, actor: str, **data: Any
) -> dict[str, Any]:
    """A CloudEvent 1.0."""
    return {
        "specversion": "1.0",
        "id": number,
        "type": f"tenant_proxy.{action}",
        "source": "tenant_proxy",
        "subject": f"{kind}/{subject}",
        "time": f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        "datacontenttype": "application/json",
        "data": {"actor": actor, **data},
    }
