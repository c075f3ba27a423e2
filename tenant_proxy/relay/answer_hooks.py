"""What the engine asks of Python about what servers say: a part of worker.Hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tenant_proxy import errors
from tenant_proxy.errors import ProxyError, Source
from tenant_proxy.relay import signals
from tenant_proxy.relay.wayback import Changed, Place
from tenant_proxy.wire import messages

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

#: as in pool.pxd
TOLD_TO_END: Final = 2


class AnswerHooks:
    """Upcalls for errors and notices; names are those of relay.core's."""

    _worker: Worker

    # --- in a server's place ---

    def missing_statement(self, name: bytes) -> bytes:
        if not name:
            return ProxyError("26000", "unnamed prepared statement does not exist").to_message()
        return errors.prepared_statement_missing(name.decode("utf-8", "replace")).to_message()

    def existing_statement(self, name: bytes) -> bytes:
        return errors.prepared_statement_exists(name.decode("utf-8", "replace")).to_message()

    def other_rows(self) -> bytes:
        return errors.result_type_changed().to_message()

    def failed_transaction(self) -> bytes:
        message = "current transaction is aborted, commands ignored until end of transaction block"
        return ProxyError("25P02", message, routine="exec_execute_message").to_message()

    def broken_copy(self, code: int) -> bytes:
        message = f"unexpected message type 0x{code:02X} during COPY from stdin"
        return ProxyError("08P01", message).to_message()

    # --- a server's ---

    def on_error(
        self, pool: int, body: bytes, changed: tuple[int, bytes, bytes, list[Place]] | None
    ) -> tuple[int, bytes | None]:
        """Counts an error of the server's: whether it ends the session (TOLD_TO_END: the session has to be
        ended), and what the client gets in its place where it must not go as it is.  `changed` is the
        statement that it is about, if it was rewritten."""
        fields = messages.error_fields(body)
        record = self._worker.pools.get(pool)
        tenant = record.tenant.name if record is not None else ""
        self._worker.error_counts[tenant, fields.get("C", "XX000")[:2], Source.SERVER.value] += 1
        fatal = fields.get("V", fields.get("S", "")) in ("FATAL", "PANIC")
        if signals.ends_session(body):
            return TOLD_TO_END, errors.shutting_down().to_message()
        return fatal, record.names.error(body, self._changed(changed)) if record is not None else None

    def on_notice(
        self, client: int, pool: int, body: bytes, changed: tuple[int, bytes, bytes, list[Place]] | None
    ) -> bytes | None:
        record = self._worker.pools.get(pool)
        if record is not None and self._worker.signals.on_notice(client, record, body):
            return b""
        return record.names.notice(body, self._changed(changed)) if record is not None else None

    def _changed(self, changed: tuple[int, bytes, bytes, list[Place]] | None) -> Changed | None:
        if changed is None:
            return None
        scope, text, result, places = changed
        return Changed(text, result, places, self._worker.judging.codec(scope))
