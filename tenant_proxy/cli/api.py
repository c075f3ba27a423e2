"""tenant-proxy api …"""

from __future__ import annotations

import asyncio

import typer

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.cli.output import ConfigOption, print_json
from tenant_proxy.cli.town import configuration, fail

api_app = typer.Typer(name="api", help="The REST API of the tenants' life.", no_args_is_help=True)


@api_app.command()
def serve(config: ConfigOption) -> None:
    """Serves the API where the configuration's `api` says, until a signal says stop."""
    found = configuration(config)

    async def run() -> None:
        # imported here: the other commands start without the machinery of HTTP
        from tenant_proxy.api import app
        from tenant_proxy.lifecycle.context import Context
        from tenant_proxy.obs import log

        log.configure(found.log.level, found.log.format)
        async with await Context.open(found, connections=app.CONNECTIONS) as context:
            await app.serve(context, found.api.address, found.api.port)

    try:
        asyncio.run(run())
    except Failure as failure:
        fail(failure)
    except KeyboardInterrupt:
        raise typer.Exit from None


@api_app.command()
def document() -> None:
    """Prints the OpenAPI document."""
    from tenant_proxy.api.app import bare_document

    print_json(bare_document())
