"""Webhooks: who is told of changes, and what became of what they were told."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Request
from fastapi.responses import Response

from tenant_proxy.api.guarded import answer_of, verbs_of
from tenant_proxy.api.routes.common import Key, Limit, router
from tenant_proxy.catalog.records import Record, Webhook, WebhookDelivery
from tenant_proxy.lifecycle.records import IssuedWebhook, NewWebhook

routes = router("webhooks")
WebhookPath = Annotated[str, Path(description="Its name.", examples=["audit"])]


class Webhooks(Record):
    items: list[Webhook]


class Deliveries(Record):
    items: list[WebhookDelivery]


@routes.get("/webhooks", response_model=Webhooks, summary="All webhooks, without their secrets")
async def webhook_list(request: Request) -> Any:
    return Webhooks(items=await verbs_of(request).webhook_list())


@routes.post("/webhooks", response_model=IssuedWebhook, status_code=201, summary="Adds a webhook")
async def webhook_add(request: Request, body: NewWebhook, key: Key = None) -> Response:
    """It is told of what is done from then on.  Its secret is in this answer alone."""
    made = await verbs_of(request).webhook_add(body.name, body.url, body.events)
    return answer_of(made, 201)


@routes.delete("/webhooks/{webhook}", status_code=204, summary="It is told of nothing any more")
async def webhook_remove(request: Request, webhook: WebhookPath) -> None:
    await verbs_of(request).webhook_remove(webhook)


@routes.post(
    "/webhooks/{webhook}/test", response_model=WebhookDelivery, summary="Sends it an event, once and now"
)
async def webhook_test(request: Request, webhook: WebhookPath, key: Key = None) -> Response:
    return answer_of(await verbs_of(request).webhook_test(webhook))


@routes.get(
    "/webhooks/{webhook}/deliveries", response_model=Deliveries, summary="What it was told, the newest first"
)
async def webhook_deliveries(request: Request, webhook: WebhookPath, limit: Limit = 50) -> Any:
    return Deliveries(items=await verbs_of(request).webhook_deliveries(webhook, limit=limit))
