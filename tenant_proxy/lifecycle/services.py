"""Further services that a tenant is provisioned with: a plug-in, or a webhook.

A plug-in is an entry point of the group `tenant_proxy.provision`: an object (or a class of one) with

    async def provision(self, tenant: Tenant, config: Config) -> dict | None
    async def unprovision(self, tenant: Tenant, config: Config) -> None

What `provision` returns is kept with the job and shown with it, so it holds no secrets.  Both must be safe
to run again.  A service that is an http(s) URL is a webhook: the same two, as POST requests of JSON with
`action` and `tenant`, signed with the configuration's `secret` (X-Tenant-Proxy-Signature: sha256=…, an HMAC
of the body).  Any answer but 2xx fails the step; where it may go, `outbound` says.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from tenant_proxy.catalog.failures import Failure

if TYPE_CHECKING:
    from tenant_proxy.catalog.records import Tenant
    from tenant_proxy.config.schema import Config

GROUP: Final = "tenant_proxy.provision"
SIGNATURE: Final = "X-Tenant-Proxy-Signature"

Action = Literal["provision", "unprovision"]


class Service(Protocol):
    async def provision(self, tenant: Tenant, config: Config) -> dict[str, Any] | None: ...

    async def unprovision(self, tenant: Tenant, config: Config) -> None: ...


def known() -> list[str]:
    """Names of the plug-ins that are installed."""
    from importlib.metadata import entry_points

    return sorted(point.name for point in entry_points(group=GROUP))


def is_webhook(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def check(names: list[str]) -> None:
    """Failure (invalid) for one that nothing answers to."""
    plug_ins = None
    for name in names:
        if not is_webhook(name):
            plug_ins = known() if plug_ins is None else plug_ins
            if name not in plug_ins:
                raise Failure(
                    "invalid",
                    f'there is no service "{name}"',
                    hint=f"installed: {', '.join(plug_ins) or 'none'}; or give a webhook's URL",
                )


async def call(name: str, action: Action, tenant: Tenant, config: Config) -> dict[str, Any] | None:
    if is_webhook(name):
        return await asyncio.to_thread(_post, name, action, tenant, config)
    service = _load(name)
    if action == "provision":
        return await service.provision(tenant, config)
    await service.unprovision(tenant, config)
    return None


def _load(name: str) -> Service:
    from importlib.metadata import entry_points

    check([name])
    (point, *_) = entry_points(group=GROUP, name=name)
    found = point.load()
    service: Service = found() if isinstance(found, type) else found
    return service


def _post(url: str, action: Action, tenant: Tenant, config: Config) -> dict[str, Any] | None:
    from tenant_proxy.lifecycle import outbound

    body = json.dumps({"action": action, "tenant": tenant.to_json()}).encode()
    headers = {"Content-Type": "application/json"}
    if config.secret is not None:
        digest = hmac.new(config.secret.reveal().encode(), body, hashlib.sha256).hexdigest()
        headers[SIGNATURE] = f"sha256={digest}"
    done = outbound.post(url, body, headers, config.webhooks)
    if not 200 <= done.status < 300:
        raise Failure("refused", f"the webhook {url} answered {done.status}")
    answer = done.body
    try:
        found = json.loads(answer) if answer else None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else None
