"""Webhooks: who is told of changes, and what became of what they were told."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Request
from fastapi.responses import Response

from tenant_proxy.api.cursors import before, cursor_of
from tenant_proxy.api.guarded import Rehearsed, answer_of, answered, verbs_of
from tenant_proxy.api.routes.common import Cursor, DryRun, Key, Limit, router
from tenant_proxy.catalog.records import Record, Webhook, WebhookDelivery
from tenant_proxy.lifecycle.records import IssuedWebhook, NewWebhook

routes = router("webhooks")
WebhookPath = Annotated[str, Path(description="Its name.", examples=["audit"])]


class Webhooks(Record):
    items: list[Webhook]


class Deliveries(Record):
    items: list[WebhookDelivery]
    next: str | None = None
    """Cursor of the next page; null on the last."""


@routes.get("/webhooks", response_model=Webhooks, summary="All webhooks, without their secrets")
async def webhook_list(request: Request) -> Any:
    return Webhooks(items=await verbs_of(request).webhook_list())


@routes.post(
    "/webhooks",
    response_model=IssuedWebhook,
    status_code=201,
    responses={200: {"model": Rehearsed}},
    summary="Adds a webhook",
)
async def webhook_add(
    request: Request, body: NewWebhook, key: Key = None, dry_run: DryRun = False
) -> Response:
    """It is told of what is done from then on.  Its secret is in this answer alone."""
    return await answered(
        request,
        lambda verbs: verbs.webhook_add(body.name, body.url, body.events),
        lambda made: answer_of(made, 201),
        dry_run=dry_run,
    )


@routes.delete(
    "/webhooks/{webhook}",
    status_code=204,
    responses={200: {"model": Rehearsed}},
    summary="It is told of nothing any more",
)
async def webhook_remove(request: Request, webhook: WebhookPath, dry_run: DryRun = False) -> Response:
    return await answered(request, lambda verbs: verbs.webhook_remove(webhook), answer_of, dry_run=dry_run)


@routes.post(
    "/webhooks/{webhook}/test",
    response_model=WebhookDelivery | Rehearsed,
    summary="Sends it an event, once and now",
)
async def webhook_test(
    request: Request, webhook: WebhookPath, key: Key = None, dry_run: DryRun = False
) -> Response:
    """With `dry_run` the request is shown, and not sent."""
    return await answered(request, lambda verbs: verbs.webhook_test(webhook), answer_of, dry_run=dry_run)


@routes.get(
    "/webhooks/{webhook}/deliveries", response_model=Deliveries, summary="What it was told, the newest first"
)
async def webhook_deliveries(
    request: Request, webhook: WebhookPath, cursor: Cursor = None, limit: Limit = 50
) -> Any:
    verbs = verbs_of(request)
    found = await verbs.webhook_deliveries(webhook, before=before(cursor), limit=limit + 1)
    next_ = cursor_of(found[limit - 1].id) if len(found) > limit else None
    return Deliveries(items=found[:limit], next=next_)
