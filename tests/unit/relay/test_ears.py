"""What an ear owes when its connection ends."""

from types import SimpleNamespace
from typing import Any

from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.ears import Ear, Listener


class Engine:
    """What an ear asks of the engine."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []
        self.listens: list[tuple[int, bool]] = []

    def server_send(self, server: int, message: bytes) -> None:
        pass

    def server_heard(self, server: int, client: int) -> None:
        self.heard.append((server, client))

    def client_listens(self, client: int, listens: bool) -> None:
        self.listens.append((client, listens))


def test_who_waits_to_hear_all_when_the_connection_ends():
    """It listens to nothing any more, so it is not told of a loss: its transaction's answer goes out."""
    engine = Engine()
    pool: Any = SimpleNamespace(id=1, base=1)
    ear = Ear(SimpleNamespace(engine=engine, pools={}), pool, b"key", "token")  # type: ignore[arg-type]
    ear.on_ready(7, SimpleNamespace(pid=70, parameters=[]))  # type: ignore[arg-type]
    ear.listeners[3] = Listener(3, SimpleNamespace(), ear, "")  # type: ignore[arg-type]
    assert ear.sync(3, 9, last=True)
    assert engine.heard == []
    ear.on_gone(Reason.GONE)
    assert engine.heard == [(9, 3)]
    assert engine.listens == [(3, False)]
