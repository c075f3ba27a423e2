"""What the engine asks of Python where a tenant has reached a limit: a part of worker.Hooks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tenant_proxy import errors
from tenant_proxy.errors import ProxyError
from tenant_proxy.relay.session import Session

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker


#: named statements of one client (relay.statements)
MAX_STATEMENTS: Final = 10_000


class LimitHooks:
    """Upcalls for refusals; names are those of relay.core's."""

    _worker: Worker

    def refuse_size(self, session: Session, size: int) -> bytes:
        most = self._worker.state.config.limits.max_statement_bytes
        return errors.statement_too_large(size, most).to_message()

    def refuse_gathered(self, session: Session) -> bytes:
        most = self._worker.state.config.limits.max_gathered_bytes
        error = ProxyError(
            "53400",
            "too many large statements at once",
            detail=f"Those above a megabyte that clients of one tenant send at once may have {most} bytes.",
            hint="Try again, use COPY or bound parameters for bulk data, or ask the operator to raise "
            "limits.max_gathered_bytes.",
            reason="too_much_gathered",
        )
        return self._counted(session, error)

    def refuse_prepared(self, session: Session) -> bytes:
        assert session.pool is not None
        most = session.pool.tenant.pool.max_prepared_bytes
        error = ProxyError(
            "53200",
            "prepared statements take too much memory",
            detail=f"A client may have {MAX_STATEMENTS}, all clients of the tenant {most} bytes of them.",
            hint="Close statements that are not needed, or ask the operator to raise the tenant's"
            " pool.max_prepared_bytes.",
            reason="too_much_prepared",
        )
        return self._counted(session, error)

    def refuse_growth(self, session: Session) -> bytes:
        return self._counted(session, errors.storage_full(session.tenant))

    def refuse_pace(self, session: Session, wait_us: int) -> bytes:
        return self._counted(session, errors.too_many_statements(session.tenant, wait_us // 1000))

    def on_pace(self, client: int, wait_us: int) -> None:
        """A client's statement has its turn in so many microseconds."""
        asyncio.get_running_loop().call_later(wait_us / 1e6, self._paced, client)

    def _paced(self, client: int) -> None:
        self._worker.engine.client_paced(client)
        self._worker.engine.poke()

    def _counted(self, session: Session, error: ProxyError) -> bytes:
        self._worker.count_error(session.tenant, error)
        return error.to_message()
