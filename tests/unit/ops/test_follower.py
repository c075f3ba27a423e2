"""What of the connection to the catalog is a loss that comes and goes, and what a mistake of ours."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

import asyncpg
import pytest

from tenant_proxy.config.load import load_text
from tenant_proxy.control import catalog
from tenant_proxy.control.follow import Follower
from tenant_proxy.hub import HubClient

FILE = "clusters: [{name: main, host: localhost, database: app}]"


@pytest.mark.parametrize(
    ("error", "told", "is_bug"),
    [
        (ConnectionRefusedError("refused"), "refused", False),
        # asyncpg's, when the server's last words are read and the end of the connection is not yet
        (asyncpg.InternalClientError("cannot switch to state 15"), "catalog was lost", False),
        (KeyError("name"), "KeyError", True),
    ],
    ids=["refused", "ended", "bug"],
)
async def test_a_lost_connection_is_no_bug(monkeypatch, capfd, error, told, is_bug):
    async def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(catalog, "connect", fails)
    marks: dict[str, dict[str, str]] = {"tenants": {}, "logins": {}}
    config = load_text(FILE, environ={}).config
    follower = Follower(cast(HubClient, None), config, "one", marks)
    running = asyncio.create_task(follower.run())
    await asyncio.sleep(0.05)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert told in follower.state.error
    written = "".join(capfd.readouterr())
    assert ("following the catalog failed" in written) == is_bug
