"""What the engine asks of Python about what clients leave in their sessions: a part of worker.Hooks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tenant_proxy import errors
from tenant_proxy.errors import Source
from tenant_proxy.model import Effect
from tenant_proxy.obs.log import get_logger
from tenant_proxy.relay.judging import deallocate_tag
from tenant_proxy.relay.pins import UNREAD
from tenant_proxy.relay.session import Session
from tenant_proxy.wire import messages

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("worker")

#: a name that servers know a prepared statement by (relay.statements), in an error
_STATEMENT: Final = re.compile(rb'"(tp_[0-9a-f]+)"')

#: of one text (guard.edits)
MAX_TAGS: Final = 30


class OwnSession:
    """What a client's session is, to the guard (guard.policy.OwnSession)."""

    def __init__(self, worker: Worker, client: int, codec: str) -> None:
        self._engine = worker.engine
        self._client = client
        self._codec = codec

    @property
    def pid(self) -> int:
        return int(self._engine.client_pid(self._client))

    def prepared(self) -> Sequence[tuple[str, str, str, int]]:
        found = self._engine.client_prepared(self._client)
        return [
            (server.decode(), name.decode(self._codec, "replace"), text.decode(self._codec, "replace"), age)
            for server, name, text, age in found
        ]


class SessionHooks:
    """Upcalls for pins, RESET ALL, EXECUTE, what sessions tell of themselves; names are relay.core's."""

    _worker: Worker

    def on_pinned(self, client: int, session: Session, scope: int, sql: bytes) -> None:
        reason = self._worker.judging.pin_reason(scope, sql) if sql else UNREAD
        self._worker.pins.add(client, session.tenant, reason)
        log.info("client pinned to its server", tenant=session.tenant, user=session.user, reason=reason)

    def too_many_pins(self, session: Session) -> bytes:
        assert session.pool is not None
        error = errors.too_many_pins(session.tenant, session.pool.tenant.pool.max_pins)
        self._worker.count_error(session.tenant, error)
        return error.to_message()

    def reset_edits(self, scope: int, sql: bytes) -> list[tuple[int, int, bytes]]:
        return self._worker.judging.reset_edits(scope, sql)

    def own_edits(
        self, client: int, session: Session, scope: int, sql: bytes, resets: bool
    ) -> tuple[list[tuple[int, int, bytes]], bytes]:
        """The edits of a text that names channels or asks what its session is, and the tags of its
        statements: `Verdict.tags`."""
        judging, ears = self._worker.judging, self._worker.ears
        ear = ears.of_client(client)
        if ear is None and judging.names_channels(scope, sql, client):
            ear = ears.listener(client, session)
        if ear is not None and ear.is_deaf:
            ear = None
        own = OwnSession(self._worker, client, judging.codec(scope))
        edits, tags = judging.own_edits(scope, sql, ear, own, resets=resets)
        if len(tags) > MAX_TAGS:
            error = errors.too_many_channels(
                MAX_TAGS, "that listens can send {} LISTEN, UNLISTEN and NOTIFY in a message"
            )
            self._worker.count_error(session.tenant, error)
            raise error
        return edits, tags

    def own_statements(self, client: int, message: bytes) -> bytes:
        """An ErrorResponse with the client's names of prepared statements in place of the servers'."""
        own = {server: name for server, name, _, _ in self._worker.engine.client_prepared(client)}
        body = _STATEMENT.sub(lambda found: b'"%s"' % own.get(found[1], found[1]), message[5:])
        return messages.message(message[:1], body)

    def declared(self, client: int, session: Session, scope: int, types: bytes) -> tuple[bool, bytes] | None:
        """Whose the types of a Parse's parameters are: `Judging.declared`."""
        found = self._worker.judging.declared(session, scope, types, client)
        if found is not None and found[0]:
            self.count_refusal(session, found[1])
        return found

    def declared_elsewhere(self, before: int, now: int) -> bool:
        """Whether two scopes are of different databases, of which each has types of its own."""
        return self._worker.judging.is_elsewhere(before, now)

    def declared_answer(self, client: int, tag: bytes | None) -> None:
        """The CommandComplete of what was asked, as `SELECT 0`; None: it has failed."""
        count = None if tag is None else int(tag.rstrip(b"\0").rpartition(b" ")[2])
        self._worker.judging.declared_types.answered(client, count)

    def execute(
        self, client: int, scope: int, sql: bytes
    ) -> tuple[list[tuple[int, int, bytes]], list[bytes]] | None:
        """Edits that give EXECUTE the names that servers know the client's statements by, and its own."""
        judging = self._worker.judging
        names = judging.executes(scope, sql, client)
        known = self._worker.engine.client_statements(client, [name.encode() for name in names])
        if not known:
            return None
        renamed = {name.decode(): server.decode() for name, server in known.items()}
        return judging.execute_edits(scope, sql, renamed), list(known)

    def deallocate(self, client: int, scope: int, sql: bytes, pinned: bool, alone: bool) -> bytes | bool:
        """The CommandComplete of a DEALLOCATE that concerns only statements of the protocol.  False when the
        server has to see it; True when it then loses the pool's statements too.  `alone`: the text of a
        simple query, which needs no server to be answered."""
        verdict = self._worker.judging.deallocates(scope, sql, client)
        names = verdict.deallocates
        engine = self._worker.engine
        if "*" in names:
            engine.client_forget_statements(client, None)
            if verdict.effects & Effect.DISCARDS_ALL:
                return False
            if pinned or not alone or verdict.effects & Effect.MULTI:
                return True
            return deallocate_tag(names)
        if verdict.effects & Effect.MULTI or not names:
            return False
        if not engine.client_forget_statements(client, [name.encode() for name in names]):
            # made by SQL PREPARE on the client's own server, or not at all
            return False
        return deallocate_tag(names)

    # --- refusals of all kinds ---

    def count_refusal(self, session: Session, message: bytes) -> None:
        sqlstate = messages.error_fields(message[5:]).get("C", "XX000")
        self._worker.error_counts[session.tenant, sqlstate[:2], Source.CLIENT.value] += 1
