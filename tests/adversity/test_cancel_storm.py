"""A cancel never hits another's statement, however many come, and whoever has the backend meanwhile."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import provide, shared_config
from tests.pg_server import Server
from tests.wire_client import WireClient, query, rows, send_cancel, sqlstates

#: cancel requests; TP_CANCELS=100000 for a storm that lasts
CANCELS = int(os.environ.get("TP_CANCELS", "300"))
#: until one has hit, at most
LUCK_S = 30
#: whose keys the storm has, and who must never feel it
VICTIMS = 4
BYSTANDERS = 6


class Runner:
    """A client that runs short statements one after the other."""

    def __init__(self, proxy: Proxy, number: int) -> None:
        self.client: WireClient = proxy.wire(("acme_app", "beta_app")[number % 2])
        self.number = number
        self.done = 0
        self.canceled = 0
        self.problem: BaseException | None = None
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        chance = random.Random(self.number)
        try:
            while not STOP.is_set():
                pause = chance.choice([0, 0, 0.001, 0.004])
                self.client.send(query(f"SELECT {self.number} FROM pg_sleep({pause})"))
                said = self.client.until_ready()
                if sqlstates(said) == ["57014"]:
                    self.canceled += 1
                else:
                    assert rows(said) == [(str(self.number),)]
                self.done += 1
        except BaseException as error:
            self.problem = error


STOP = threading.Event()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
def test_bystanders_are_never_hit(isolation: str, proxies: Callable[..., Proxy], pg: Server):
    if isolation == "shared":
        provide(pg)
        proxy = proxies(**shared_config(pg, 3))
    else:
        proxy = proxies(pool={"mode": "transaction", "max": 2})
    STOP.clear()
    runners = [Runner(proxy, number) for number in range(VICTIMS + BYSTANDERS)]
    victims, bystanders = runners[:VICTIMS], runners[VICTIMS:]
    try:
        for one in runners:
            one.thread.start()
        chance = random.Random(0)
        deadline = time.monotonic() + LUCK_S
        sent = 0
        # on a busy machine it takes many to hit one
        while sent < CANCELS or (not any(one.canceled for one in victims) and time.monotonic() < deadline):
            sent += 1
            victim = chance.choice(victims).client
            send_cancel((proxy.host, proxy.port), victim.pid, victim.secret)
            time.sleep(chance.choice([0, 0.001, 0.003]))
    finally:
        STOP.set()
        for one in runners:
            one.thread.join()
            one.client.close()
    assert [one.problem for one in runners] == [None] * len(runners)
    assert [one.canceled for one in bystanders] == [0] * BYSTANDERS
    assert all(one.done for one in runners)
    assert sum(one.canceled for one in victims)
