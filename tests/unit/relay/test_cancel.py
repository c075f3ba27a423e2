"""Cancel requests that don't get through."""

import asyncio
from typing import Any, cast

from tenant_proxy.config.schema import ServerTls
from tenant_proxy.relay.cancel import Cancels
from tenant_proxy.relay.session import ServerInfo


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(8)
    writer.close()


async def test_a_server_that_hangs_up_where_it_is_asked_for_tls():
    """The worker, which stops what still runs when it ends, ends all the same."""
    async with await asyncio.start_server(hang_up, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        unused = cast(Any, None)
        info = ServerInfo(
            pool=unused,
            tenant=unused,
            startup_id=0,
            host=host,
            address=(host, port),
            tls=ServerTls(mode="require"),
            settings={},
            encrypted=True,
        )
        await Cancels(unused).stop_statements([info, info])
