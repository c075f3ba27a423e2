"""In the engine's place before judge processes: clients that offer statements until they have verdicts."""

from __future__ import annotations

import asyncio

from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.model import Verdict
from tenant_proxy.relay.judges import Judges
from tests.unit.guard.scope import ACME


class Engine:
    """Clients that offer what they have to say until it has a verdict."""

    def __init__(self) -> None:
        self.judges = Judges(self.wake)
        self.offers: dict[int, tuple[GuardScope, bytes]] = {}
        self.verdicts: dict[int, Verdict] = {}
        self.order: list[int] = []
        #: clients that can't offer anything now: they don't read what they have been sent
        self.deaf: set[int] = set()

    def say(self, client: int, sql: bytes, in_scope: GuardScope = ACME) -> None:
        self.offers[client] = (in_scope, sql)
        self.wake(client)

    def wake(self, client: int) -> None:
        if client in self.deaf or client not in self.offers:
            return
        verdict = self.judges.answer(client, self.offers[client][0].id)
        if verdict is None:
            verdict = self.judges.submit(client, *self.offers[client])
        if verdict is not None:
            del self.offers[client]
            self.verdicts[client] = verdict
            self.order.append(client)
            self.judges.forget(client)

    async def all_answered(self, within_s: float = 20) -> None:
        async with asyncio.timeout(within_s):
            while self.offers.keys() - self.deaf:
                await asyncio.sleep(0.005)
