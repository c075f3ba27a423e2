"""The rig with servers that two tenants share."""

from __future__ import annotations

import select

from tenant_proxy.wire import messages
from tests.protocol.rig import IDLE, End, Rig, done, split

FLOOD, QUIET = 2, 3


class Group(Rig):
    """Servers that two tenants share, with clients of each."""

    def __init__(self) -> None:
        super().__init__(servers=8)
        self.group = self.pool
        self.engine.pool_group(self.group, 0, 0, True, True)
        self.watch = select.epoll()
        self.pools: dict[int, int] = {}
        for tenant in (FLOOD, QUIET):
            self.pools[tenant] = self.engine.pool_open(tenant, **self.pool_settings)
            self.engine.pool_join(
                self.pools[tenant], self.group, weight=1, reserved=0, max=10,
                mark_index=-1, active_index=-1, coded_index=-1, turns_index=-1,
            )  # fmt: skip
            self.engine.pool_proven(self.pools[tenant], 1, 0)

    def of(self, tenant: int) -> End:
        self.pool = self.pools[tenant]
        return self.client()

    def on_demand(self, pool: int) -> None:
        known = len(self.servers)
        super().on_demand(pool)
        for end in self.servers[known:]:
            self.watch.register(end.sock, select.EPOLLIN | select.EPOLLET)

    # --- hooks: what makes a server a tenant's

    def ahead_message(self, _pool: int, _startup: int, _settings: int) -> bytes:
        return messages.query("become") + messages.query("disarm")

    def turn_messages(self, _pool: int, _startup: int, _settings: int) -> tuple[int, bytes, bytes]:
        return 0, b"", b""

    def switch_message(self, *_: object) -> bytes:
        return messages.query("become")

    # --- the servers

    def arrived(self) -> list[str]:
        """What has come to the servers, in the order in which it came; each is answered."""
        ends = {end.sock.fileno(): end for end in self.servers}
        texts = []
        for fd, _ in self.watch.poll(0):
            asked = [body[:-1].decode() for _, body in split(ends[fd].take())]
            texts += asked
            ends[fd].sock.sendall((done() + IDLE) * len(asked))
        return texts

    def close(self) -> None:
        self.watch.close()
        super().close()
