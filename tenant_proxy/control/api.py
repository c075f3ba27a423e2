"""The REST API in the control process, where the configuration says so."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.config.schema import Config
from tenant_proxy.obs.log import get_logger

#: what keeps it from being served may be gone then
RETRY_S: Final = 5.0

log = get_logger("control")


def _import() -> tuple[Any, Any]:
    """Imported where it is served alone: most of this process's memory would be that."""
    from tenant_proxy.api import app
    from tenant_proxy.lifecycle.context import Context

    return app, Context.open


async def serve(config: Config) -> None:
    """Until it is cancelled."""
    # seconds, where the machine has much to do: who waits for this process would take it for gone
    app, open_context = await asyncio.to_thread(_import)
    while True:
        try:
            async with await open_context(config, connections=app.CONNECTIONS) as context:
                await app.serve(context, config.api.address, config.api.port, signals=False)
        except Failure as failure:
            log.error("the API can't be served", reason=failure.message)
        except OSError as error:
            log.error("the API can't be served", reason=error.strerror or str(error))
        await asyncio.sleep(RETRY_S)
