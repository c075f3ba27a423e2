"""What the engine asks of Python about shared servers: a part of worker.Hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from tenant_proxy import errors
from tenant_proxy.obs.log import get_logger
from tenant_proxy.relay import switch
from tenant_proxy.relay.session import PoolRecord, ServerInfo, Session
from tenant_proxy.relay.settings import ask_sql, read_settings, too_large
from tenant_proxy.wire import messages

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("shared")

#: messages that make shared servers tenants', kept
MAX_SWITCHES: Final = 20_000

#: a little more than pool.fair's PATIENCE_US
PATIENCE_S: Final = 0.0105

#: pool, startup settings, settings, and how it is made: see `switch_sql`; None: ahead of the client's bytes
SwitchKey = tuple[int, int, int, tuple[bool, bool, bool] | None]


class SharedHooks:
    """Upcalls for groups; names are those of relay.core's."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        #: what shared servers said of themselves for a client that is to be greeted
        self._greetings: dict[int, dict[str, str]] = {}
        #: rows of settings that are being read, by server
        self._asked: dict[int, dict[bytes, bytes]] = {}

    @staticmethod
    def _role_of(pool: PoolRecord | None) -> str:
        """The role that a pool's statements run as."""
        assert pool is not None
        return pool.tenant.role or pool.server_user

    def _switched(self, pool: PoolRecord, startup_id: int) -> dict[str, str]:
        """What a login with these settings would have."""
        settings = self._worker.settings.get(startup_id)
        settings.pop("role", None)
        defaults = self._worker.code.of(pool.tenant.name).defaults.get(self._role_of(pool), {})
        return {**defaults, **settings}

    def switch_message(
        self, pool: int, startup_id: int, settings_id: int, from_other: bool, forget: bool, sequences: bool
    ) -> bytes:
        how = (bool(from_other), bool(forget), bool(sequences))
        return self._kept(
            (pool, startup_id, settings_id, how),
            lambda role, settings: messages.query(
                switch.switch_sql(role, settings, from_other=how[0], forget=how[1], sequences=how[2])
            ),
        )

    def ahead_message(self, pool: int, startup_id: int, settings_id: int) -> bytes:
        return self._kept((pool, startup_id, settings_id, None), switch.ahead_messages)

    def turn_messages(self, pool: int, startup_id: int, settings_id: int) -> tuple[int, bytes, bytes]:
        """See switch.turn_messages; kept by the engine."""
        return switch.turn_messages(*self._wanted(pool, startup_id, settings_id))

    def _wanted(self, pool: int, startup_id: int, settings_id: int) -> tuple[str, dict[str, str]]:
        """The role of a pool's clients, and all the settings that its switch brings."""
        record = self._worker.pools.get(pool)
        assert record is not None
        wanted = {**self._switched(record, startup_id), **self._worker.settings.get(settings_id)}
        return self._role_of(record), wanted

    def _kept(self, key: SwitchKey, compose: Callable[[str, Mapping[str, str]], bytes]) -> bytes:
        worker = self._worker
        found = worker.switches.get(key)
        if found is None:
            if len(worker.switches) >= MAX_SWITCHES:
                worker.switches.clear()
            found = worker.switches[key] = compose(*self._wanted(*key[:3]))
        return found

    def greeting_message(self, server: int, info: ServerInfo, message: bytes) -> bytes:
        self._greetings[server] = {}
        return switch.with_greeting(message, switch.parameter_names(info.parameters))

    def on_switch_failed(self, session: Session, body: bytes) -> None:
        session.switch_error = body
        fields = messages.error_fields(body)
        log.warning(
            "a shared backend could not be made a tenant's",
            tenant=session.tenant,
            user=session.user,
            sqlstate=fields.get("C"),
            error=fields.get("M"),
        )

    def on_escalation(self, pool: int) -> bytes:
        """A statement in the middle of a transaction that runs on a shared server can't go on there."""
        worker = self._worker
        record = worker.pools.get(pool)
        assert record is not None
        for one in worker.pools:
            if one.tenant.name == record.tenant.name and one.shared:
                worker.engine.pool_begins_own(one.id)
        error = errors.escalated(record.tenant.name)
        worker.count_error(record.tenant.name, error)
        return error.to_message()

    def on_patience(self, group: int) -> None:
        asyncio.get_running_loop().call_later(PATIENCE_S, self._patience_over, group)

    def _patience_over(self, group: int) -> None:
        self._worker.engine.group_patience(group)
        self._worker.engine.poke()

    def on_unread(self, client: int, pool: int) -> None:
        record = self._worker.pools.get(pool)
        assert record is not None
        self._worker.code.on_unread(client, record.tenant)

    def on_quiesce(self, client: int, pool: int) -> bytes | None:
        if self._worker.code.may_wait_on(client):
            return None
        record = self._worker.pools.get(pool)
        assert record is not None
        error = errors.not_quiet(record.tenant.name)
        self._worker.count_error(record.tenant.name, error)
        return error.to_message()

    # --- greetings ---

    def _on_greeting(self, server: int, row: list[str | None]) -> None:
        """Takes a row that a shared server returns for a client that is to be greeted."""
        if len(row) == 3 and row[0] == switch.GREETING:
            self._greetings[server][row[1] or ""] = row[2] or ""

    def greeting_of(self, server: int, session: Session, info: ServerInfo) -> tuple[bytes, ...]:
        """ParameterStatus messages as a login of the client's role would bring them."""
        said = self._greetings.pop(server)
        said["session_authorization"] = self._role_of(session.pool)
        names = switch.parameter_names(info.parameters)
        return tuple(messages.parameter_status(name, said.get(name, "")) for name in names)

    # --- settings ---

    def ask_message(self, server: int, session: Session) -> bytes:
        self._asked[server] = {}
        self._greetings.pop(server, None)
        return messages.query(ask_sql(sorted(self._worker.judging.custom_settings(session.tenant))))

    def on_ask_row(self, server: int, body: bytes) -> None:
        if server in self._greetings:
            self._on_greeting(server, messages.data_row(body))
            return
        name, value = messages.row_values(body)
        if name is not None and value is not None:
            self._asked[server][name] = value

    def on_ask_done(self, server: int, session: Session | None) -> tuple[int, int]:
        """The numbers of the settings that a server was found to have, and of those that its client has."""
        return self._found(read_settings(self._asked.pop(server)), session)

    def on_ask_shared_done(
        self, server: int, pool: int, startup_id: int, session: Session | None
    ) -> tuple[int, int]:
        """As on_ask_done; what the switch itself has set is no setting of the client's."""
        record = self._worker.pools.get(pool)
        assert record is not None
        settings = read_settings(self._asked.pop(server))
        return self._found(switch.changed(settings, self._switched(record, startup_id)), session)

    def _found(self, settings: Mapping[str, str], session: Session | None) -> tuple[int, int]:
        if too_large(settings):
            raise ValueError("a client's settings are too large to be carried from server to server")
        table = self._worker.settings
        had = table.intern(settings)
        if session is None or not session.application_name or "application_name" in settings:
            return had, had
        # RESET has led back to what the server was opened with, which was not with the client's name
        return had, table.intern({**settings, "application_name": session.application_name})
