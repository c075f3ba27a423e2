"""What the engine asks of Python about clients that listen: a part of worker.Hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenant_proxy import errors
from tenant_proxy.relay.ears import MAX_CHANNELS
from tenant_proxy.relay.session import Session

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker


class EarHooks:
    """Upcalls for LISTEN and UNLISTEN; names are those of relay.core's."""

    _worker: Worker

    def listen(self, client: int, session: Session, scope: int, sql: bytes) -> int | bytes:
        """Before a text with LISTEN goes to a server; see ears.Ear.listen."""
        names = self._worker.judging.listens(scope, sql, client)
        one = self._worker.ears.listener(client, session)
        if len(one.active.union(one.pending, names)) > MAX_CHANNELS:
            error = errors.too_many_channels(MAX_CHANNELS)
            self._worker.count_error(session.tenant, error)
            return error.to_message()
        return one.ear.listen(one, names)

    def hear(self, client: int, server: int, last: bool) -> bool:
        one = self._worker.ears.of_client(client)
        return one is not None and one.ear.sync(client, server, last=last)

    def unlisten(self, client: int) -> None:
        self._worker.ears.forget(client)
