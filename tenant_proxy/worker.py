"""A worker: the data plane of one process, and its object graph.

Everything of a worker hangs on `Worker`; `Hooks` is what the engine calls.  The supervisor starts it
as `python -m tenant_proxy.worker --hub-fd N` and tells it the rest over that socket.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
import time
import uuid
from collections import Counter
from typing import Any

import uvloop

from tenant_proxy import errors
from tenant_proxy.admin import console
from tenant_proxy.admin.context import AdminContext
from tenant_proxy.admin.wire import result_messages
from tenant_proxy.config.schema import Config, Log
from tenant_proxy.config.transport import from_transport
from tenant_proxy.errors import ProxyError, Source
from tenant_proxy.hub import HubClient, HubError, die_with_parent
from tenant_proxy.model import StartupRequest
from tenant_proxy.obs.log import configure, get_logger
from tenant_proxy.pool.budget import Budget
from tenant_proxy.relay import snapshot
from tenant_proxy.relay.answer_hooks import AnswerHooks
from tenant_proxy.relay.cancel import Cancels
from tenant_proxy.relay.code import Code
from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.dialer import Dialer
from tenant_proxy.relay.ear_hooks import EarHooks
from tenant_proxy.relay.ears import Ears
from tenant_proxy.relay.engine import Engine
from tenant_proxy.relay.entries import Entries, home_of
from tenant_proxy.relay.facts import Facts
from tenant_proxy.relay.judging import Judging
from tenant_proxy.relay.leaving import Leaving
from tenant_proxy.relay.limit_hooks import LimitHooks
from tenant_proxy.relay.login import Admission, Attempt, Logins
from tenant_proxy.relay.mailbox import Mailbox
from tenant_proxy.relay.peers import Peers
from tenant_proxy.relay.pins import Pins
from tenant_proxy.relay.pools import Pools
from tenant_proxy.relay.session import ServerInfo, Session
from tenant_proxy.relay.session_hooks import SessionHooks
from tenant_proxy.relay.settings import SettingsTable
from tenant_proxy.relay.shared_hooks import SharedHooks, SwitchKey
from tenant_proxy.relay.signals import Signals
from tenant_proxy.relay.state import State
from tenant_proxy.relay.stopped import Stopped
from tenant_proxy.relay.users import Users
from tenant_proxy.shm import MAX_SLOTS, MAX_TENANTS
from tenant_proxy.tenancy.records import Served
from tenant_proxy.tenancy.registry import TenantInfo
from tenant_proxy.tenancy.startup import request_settings
from tenant_proxy.usage_shm import pace_row, worker_row
from tenant_proxy.wire import messages
from tenant_proxy.wire.messages import StartupPacket

log = get_logger("worker")

SWEEP_S = 0.25
DRAIN_POLL_S = 0.1

_VIOLATIONS = {
    0: "invalid frontend message type {}",
    1: "invalid message length",
    2: "invalid message format",
    3: "too many or too large prepared statements",
    4: "invalid length of startup packet",
    5: "expected password response, got message type {}",
    6: "received unencrypted data after SSL request",
}


class Worker:
    """One worker's parts."""

    def __init__(self, boot: dict[str, Any], hub: HubClient) -> None:
        config = from_transport(boot["config"])
        self.slot: int = boot["slot"]
        self.workers: int = boot["workers"]
        self.hub = hub
        self.started = time.monotonic()
        self.state = State.build(config, _served(boot))
        self.settings = SettingsTable()
        self.judging = Judging(config.policy.cache_entries, self._offer_again)
        self.facts = Facts()
        self.code = Code(self)
        self.switches: dict[SwitchKey, bytes] = {}
        self.pools = Pools(self)
        self.pins = Pins()
        self.ears = Ears(self)
        self.stopped = Stopped(self, boot.get("paused", ()))
        self.logins = Logins(self)
        self.dialer = Dialer(self)
        self.peers = Peers(self)
        self.cancels = Cancels(self)
        self.signals = Signals(self)
        self.users = Users()
        self.budget = Budget(boot["shm_fd"], self.slot, self.workers, boot["tenant_indexes"])
        #: what a client has sent behind the startup packet that is looked at
        self.behind = b""
        self.mailbox = Mailbox(self, self.slot, boot["mailboxes"])
        self.engine = Engine(Hooks(self), self.judging.cache, **_engine_limits(config))
        self.entries = Entries(self)
        self.leaving = Leaving(self)
        if "usage_fd" in boot:
            self.engine.use_usage(worker_row(boot["usage_fd"], self.slot), pace_row(boot["usage_fd"]))
        #: tenants that have more than they may store
        self.full: frozenset[str] = frozenset(boot.get("full", ()))
        self.engine.use_counters(self.budget.memory, self.slot, min(self.workers, MAX_SLOTS), MAX_TENANTS)
        self.draining = False
        self.parse_us = 0
        self.handovers = 0
        #: (tenant, SQLSTATE class, source) -> errors
        self.error_counts: Counter[tuple[str, str, str]] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    # --- life -------------------------------------------------------------------

    def start(self, listeners: list[dict[str, Any]]) -> None:
        loop = asyncio.get_running_loop()
        self.engine.start(loop, log)
        for listener in listeners:
            self.engine.add_listener(listener["fd"], listener["kind"] == "unix")
        loop.add_reader(self.mailbox.fileno(), self.mailbox.on_readable)
        self.engine.go_back_for(self.mailbox.fileno())
        self.engine.go_back_for(self.hub.fileno())
        loop.add_signal_handler(signal.SIGTERM, self._stopped.set)
        self.budget.share(self.engine)
        self.entries.configure()
        self.leaving.look()
        self._sweep()

    def _offer_again(self, client: int) -> None:
        self.engine.client_judged(client)
        self.engine.poke()

    def _sweep(self) -> None:
        self.budget.beat(awake=not self.draining)
        self.engine.sweep(int(self.state.config.timeouts.login_s * 1e6))
        for pool in self.pools:
            if pool.tenant.pool.min and not self.draining:
                self.dialer.on_demand(pool.id)
        self.code.sweep()
        self.ears.sweep()
        self.leaving.sweep()
        if self.settings.wants_collection():
            self._collect_settings()
        asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def forget_switches(self) -> None:
        """What makes shared backends tenants' is composed anew."""
        self.switches.clear()
        self.engine.forget_switches()

    def _collect_settings(self) -> None:
        """Forgets sets of settings that no client, server or pool has any more."""
        in_use = self.engine.settings_in_use()
        self.forget_switches()
        self.settings.collect(in_use)
        self.logins.forget()
        for pool in self.pools:
            for number in pool.welcomes.keys() - in_use:
                del pool.welcomes[number]

    async def run(self) -> None:
        """Until drained, or the supervisor is gone."""
        gone = asyncio.ensure_future(self.hub.closed())
        stopped = asyncio.ensure_future(self._stopped.wait())
        await asyncio.wait((gone, stopped), return_when=asyncio.FIRST_COMPLETED)
        self.engine.end_all_clients(Reason.SHUTDOWN, errors.shutting_down().to_message())
        self.engine.stop()
        self.judging.judges.close()

    def drain(self, timeout_s: float) -> None:
        """Stops accepting, lets what is under way finish, then stops."""
        if self.draining:
            return
        self.draining = True
        self.engine.entry_stop()
        self.engine.stop_accepting()
        asyncio.get_running_loop().remove_reader(self.mailbox.fileno())
        self.spawn(self._drain(timeout_s))

    async def _drain(self, timeout_s: float) -> None:
        last = errors.shutting_down().to_message()
        deadline = time.monotonic() + timeout_s
        while self.engine.end_idle_clients(Reason.SHUTDOWN, last) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_POLL_S)  # clients come to rest one by one, which nobody announces
        # closing a connection does not stop what runs on it
        running = [row[2] for row in self.engine.server_rows() if row[6]]
        self.engine.end_all_clients(Reason.SHUTDOWN, last)
        await self.cancels.stop_statements(running)
        self._stopped.set()

    def reload(self, config: Config, indexes: dict[str, int], served: Served | None = None) -> None:
        """Swaps the configuration; raises what State.build raises, and then nothing has changed."""
        state = State.build(config, served)
        unlocked = _locked_otherwise(self.state, state)
        for name, secret in self.state.secrets.items():
            # keys that were derived stay good while the password is the same
            if _same_login(self.state, state, name):
                state.secrets[name] = secret
        self.state = state
        self.budget.indexes = indexes
        configure(config.log.level, config.log.format)
        self.engine.set_limits(**_engine_limits(config))
        self.dialer.forget()
        self.facts.doubt()
        self.users.forget()
        self.logins.forget()
        self.code.reload()
        self.forget_switches()
        self.pools.reload(state.registry)
        self.entries.configure()
        self.judging.violations.keep(set(state.registry.tenants))
        self.dialer.look_again()
        self.leaving.look(unlocked=unlocked)
        self.engine.poke()

    def serve(self, served: Served, indexes: dict[str, int]) -> None:
        """Takes what the catalog has changed; who has nothing to do with it notices nothing."""
        self.budget.indexes.update(indexes)
        changed = self.state.serve(served)
        if not changed.tenants and not changed.logins:
            return
        registry = self.state.registry
        # whose logins are others has other roles: the guard and shared backends know them
        touched = changed.tenants | changed.granted
        self.logins.forget_some(touched, changed.logins)
        self.code.doubt(touched)
        if changed.tenants:
            self.switches.clear()
        self.pools.update(registry, touched)
        self.entries.update(changed)
        self.leaving.look(changed.tenants | changed.unlocked, changed.logins, unlocked=changed.unlocked)
        self.engine.poke()

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # --- small services of the parts ------------------------------------------------

    def count_error(self, tenant: str, error: ProxyError, source: Source | None = None) -> None:
        self.error_counts[tenant, error.sqlstate[:2], (source or error.source).value] += 1

    def on_bug(self, client: int) -> None:
        """An exception in an upcall for a client: logged with an id that the client is told."""
        number = uuid.uuid4().hex[:12]
        log.error("internal error", exc_info=sys.exc_info()[1], client=client, error_id=number)
        self.engine.client_end(client, Reason.INTERNAL, errors.internal_error(number).to_message())

    # --- tenants' home workers --------------------------------------------------------

    def hand_over(self, client: int, attempt: Attempt, packet: StartupPacket, data: bytes) -> bool:
        """Passes a plain connection to its tenant's home worker, where the tenant's backends are.

        A guess is enough: whichever worker it lands on serves it.  With TLS the tenant is known only
        after a handshake, which can't be moved.
        """
        if self.workers == 1 or attempt.tls is not None or self.draining or attempt.packet is not None:
            return False
        try:
            request = StartupRequest(
                user=packet.parameters.get("user", ""),
                database=packet.parameters.get("database") or packet.parameters.get("user", ""),
                settings=request_settings(packet.parameters),
            )
            registry = self.state.registry
            if registry.is_admin_database(request.database):
                return False
            login = registry.logins.get(registry.login_name(request))
            tenant = registry.route(request, login).tenant
        except ProxyError:
            return False
        home = home_of(tenant, self.workers)
        if home == self.slot or not self.budget.is_awake(home):
            return False
        if not self.mailbox.send_connection(
            home, self.engine.fileno(client), data + self.behind, local=attempt.kind == "local"
        ):
            return False
        self.handovers += 1
        self.engine.client_end(client, Reason.HANDED_OVER)
        return True

    # --- the hub's questions -------------------------------------------------------------

    def answer_hub(self) -> None:
        self.hub.on("snapshot", lambda params: snapshot.take(self, params["what"]))
        self.hub.on("reload", self._on_reload)
        self.hub.on("serve", self._on_serve)
        self.hub.on("full", self._on_full)
        self.hub.on("drain", self._on_drain)
        self.hub.on("kill_client", self._on_kill)
        self.hub.on("reset_violations", self._on_reset_violations)
        self.hub.on("pause", self._on_pause)

    def _on_reload(self, params: dict[str, Any]) -> dict[str, Any]:
        self.reload(from_transport(params["config"]), params["tenant_indexes"], _served(params))
        return {"generation": params["generation"]}

    def _on_serve(self, params: dict[str, Any]) -> dict[str, Any]:
        self.serve(_served(params), params["tenant_indexes"])
        return {"revision": params["revision"]}

    def _on_full(self, params: dict[str, Any]) -> dict[str, Any]:
        self.full = frozenset(params["tenants"])
        self.pools.meter()
        return {}

    def _on_pause(self, params: dict[str, Any]) -> dict[str, Any]:
        self.stopped.pause(params["tenants"])
        return {}

    def _on_reset_violations(self, params: dict[str, Any]) -> dict[str, Any]:
        self.judging.violations.reset()
        return {}

    def _on_drain(self, params: dict[str, Any]) -> dict[str, Any]:
        self.drain(float(params["timeout_s"]))
        return {}

    def _on_kill(self, params: dict[str, Any]) -> dict[str, Any]:
        client = int(params["id"])
        known = self.engine.session(client) is not None
        self.engine.client_end(client, Reason.KILLED, errors.shutting_down().to_message())
        self.engine.poke()
        return {"found": known}


class Hooks(SharedHooks, LimitHooks, SessionHooks, EarHooks, AnswerHooks):
    """What the engine asks of Python; names are those of relay.core's upcalls."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)

    # --- clients ---

    def on_startup(self, client: int, data: bytes) -> None:
        # records of TLS are passed on as they come
        size = len(data) if data[0] == 0x16 else int.from_bytes(data[:4])
        self._worker.behind = data[size:]
        self._worker.logins.on_startup(client, data[:size])

    def on_login_message(self, client: int, body: bytes) -> None:
        self._worker.logins.on_message(client, body)

    def on_entry(self, client: int, packet: bytes, first: bytes, nonce: bytes, body: bytes) -> None:
        self._worker.logins.on_entry(client, packet, first, nonce, body)

    def on_entered(self, client: int, session: Session) -> None:
        self._worker.logins.on_entered(client, session)

    def make_session(self, client: int, admission: Admission, pool: int, minor: int, tls: bool) -> Session:
        return self._worker.logins.make_session(client, admission, pool, minor, tls)

    def on_greet(self, client: int, session: Session, server: int, info: ServerInfo) -> None:
        if info.pool.is_group:
            self._worker.logins.greet_as(client, session, self.greeting_of(server, session, info))
            return
        self._worker.logins.on_greet(client, session, info)

    def on_client_gone(self, client: int, session: Session | None, reason: int) -> None:
        worker = self._worker
        if session is None:
            worker.logins.on_gone(client)
            return
        worker.judging.forget(client)
        worker.budget.give_back_client(session.places)
        worker.code.on_client_gone(client)
        worker.pins.drop(client)
        worker.ears.forget(client)
        if worker.state.config.log.disconnections:
            log.info(
                "client disconnected",
                client=client,
                tenant=session.tenant,
                user=session.user,
                reason=Reason(reason).name.lower(),
            )

    def on_admin_message(self, client: int, code: int, body: bytes) -> None:
        worker = self._worker
        session = worker.engine.session(client)
        if chr(code) == "Q" and not session.skipping:
            worker.engine.client_hold(client, True)
            worker.spawn(self._answer_admin(client, session, body[:-1].decode("utf-8", "replace")))
        elif chr(code) == "S":
            session.skipping = False
            worker.engine.client_send(client, messages.READY_IDLE)
        elif session.skipping:
            return
        elif chr(code) in "PBDECF":
            error = ProxyError(
                "0A000",
                "the admin console takes only simple queries",
                hint="Use psql, or a driver's simple query protocol.",
                reason="admin_extended",
            )
            session.skipping = True
            worker.engine.client_send(client, error.to_message())

    async def _answer_admin(self, client: int, session: Session, sql: str) -> None:
        worker = self._worker
        state = worker.state
        context = AdminContext(worker.hub, state.config, state.registry, session.user, session.admin)
        try:
            answer = result_messages(await console.run(sql, context))
        except ProxyError as error:
            answer = error.to_message()
        except Exception:
            worker.on_bug(client)
            return
        worker.engine.client_send(client, answer + messages.READY_IDLE)
        worker.engine.client_hold(client, False)
        worker.engine.poke()

    def failure(self, client: int, session: Session | None, reason: int, detail: int) -> bytes:
        """The ErrorResponse for a client that is ended for `reason`."""
        error = self._failure(session, reason, detail)
        self._worker.count_error(session.tenant if session is not None else "", error)
        return error.to_message()

    def _failure(self, session: Session | None, reason: int, detail: int) -> ProxyError:
        tenant: TenantInfo | None = session.pool.tenant if session is not None and session.pool else None
        if tenant is None:
            return errors.login_timeout() if reason == Reason.LOGIN_TIMEOUT else errors.shutting_down()
        pool = tenant.pool
        match reason:
            case Reason.QUEUE_TIMEOUT:
                is_stopped = tenant in self._worker.stopped
                return (errors.stopped_timeout if is_stopped else errors.queue_timeout)(tenant.name, detail)
            case Reason.QUEUE_FULL:
                return errors.queue_full(tenant.name, pool.queue_limit)
            case Reason.QUERY_TIMEOUT:
                return errors.query_timeout(pool.query_timeout_s)
            case Reason.IDLE_IN_TRANSACTION:
                return errors.idle_in_transaction_timeout(pool.idle_in_transaction_timeout_s)
            case Reason.IDLE:
                return errors.idle_timeout(pool.client_idle_timeout_s)
            case Reason.SERVER_LOST:
                return errors.server_lost()
            case Reason.SETTINGS_FAILED:
                assert session is not None
                return errors.switch_failed(
                    tenant.name, messages.error_fields(session.switch_error), at_login=bool(session.prelude)
                )
            case Reason.SERVER_UNAVAILABLE:
                assert session is not None
                assert session.pool is not None
                return errors.server_unavailable(tenant.cluster.name, session.pool.last_error)
            case _:
                return errors.shutting_down()

    def violation(self, client: int, session: Session | None, what: int, value: int) -> bytes:
        error = errors.protocol_violation(_VIOLATIONS[what].format(value))
        log.warning(
            "protocol violation",
            client=client,
            tenant=session.tenant if session is not None else None,
            error=error.message,
        )
        self._worker.count_error(session.tenant if session is not None else "", error)
        return error.to_message()

    def on_bug(self, client: int) -> None:
        self._worker.on_bug(client)

    def bug_message(self) -> bytes:
        """An exception while a statement was judged: it is refused, and the session goes on."""
        raised = sys.exc_info()[1]
        if isinstance(raised, ProxyError):
            return raised.to_message()
        number = uuid.uuid4().hex[:12]
        log.error("internal error", exc_info=raised, error_id=number)
        error = errors.internal_error(number)
        error.severity = "ERROR"
        return error.to_message()

    # --- statements ---

    def judge(self, session: Session, scope: int, sql: bytes | None, client: int) -> int | bytes | None:
        start = time.perf_counter_ns()
        result = self._worker.judging.judge(session, scope, sql, client)
        self._worker.parse_us += (time.perf_counter_ns() - start) // 1000
        if isinstance(result, bytes):
            self.count_refusal(session, result)
        return result

    def on_judged(self, client: int) -> None:
        """A statement that its client has waited with is dealt with."""
        self._worker.judging.judged(client)

    def on_cancel_judging(self, client: int) -> None:
        self._worker.judging.judges.cancel(client)

    def bind(self, session: Session, scope: int, sql: bytes, values: bytes) -> tuple[bool, bytes] | None:
        result = self._worker.judging.bind(session, scope, sql, values)
        if result is not None and result[0]:
            self.count_refusal(session, result[1])
        return result

    def executed(
        self,
        client: int,
        session: Session,
        scope: int,
        effects: int,
        sql: bytes,
        name: bytes | None,
        tracked: bool,
    ) -> bytes | None:
        """The refusal of a text with EXECUTE, or of a Parse of what EXECUTE may not run."""
        result = self._worker.judging.executed(
            session, scope, sql, effects, client, name=name, tracked=tracked
        )
        if result is not None:
            self.count_refusal(session, result)
        return result

    def parameter_types(
        self, session: Session, scope: int, sql: bytes, types: bytes, client: int
    ) -> bytes | None:
        if (result := self._worker.judging.parameter_types(session, scope, sql, types, client)) is not None:
            self.count_refusal(session, result)
        return result

    def edits(self, scope: int, sql: bytes, client: int) -> list[tuple[int, int, bytes]]:
        return self._worker.judging.edits(scope, sql, client)

    def judge_function(self, session: Session, scope: int, oid: int) -> int | bytes:
        result = self._worker.judging.judge_function(session, scope, oid)
        if isinstance(result, bytes):
            self.count_refusal(session, result)
        return result

    # --- servers ---

    def on_demand(self, pool: int) -> None:
        self._worker.dialer.on_demand(pool)

    def on_crowded(self, pool: int, startup_id: int) -> None:
        self._worker.dialer.on_crowded(pool, startup_id)

    def on_server_connected(self, server: int) -> None:
        self._worker.dialer.on_connected(server)

    def on_server_message(self, server: int, code: int, body: bytes) -> None:
        if not self._worker.ears.on_message(server, code, body):
            self._worker.dialer.on_message(server, code, body)

    def on_server_gone(self, server: int, pool: int, info: ServerInfo, reason: int) -> None:
        self._asked.pop(server, None)
        self._greetings.pop(server, None)
        self._worker.dialer.on_gone(server, info, reason)
        self._worker.ears.on_gone(server, reason)
        log.debug(
            "server closed",
            server=server,
            tenant=info.pool.tenant.name,
            pid=info.pid,
            reason=Reason(reason).name.lower(),
        )

    def on_server_bug(self, server: int) -> None:
        log.error("internal error", exc_info=sys.exc_info()[1], server=server)
        self._worker.engine.server_end(server, Reason.INTERNAL)

    def on_query_timeout(self, info: ServerInfo) -> None:
        self._worker.cancels.stop_statement(info)

    def on_encoding(self, value: bytes) -> int:
        """The part of scopes' numbers that says in which client_encoding texts are."""
        return self._worker.judging.codec_bits(value.decode("ascii", "replace"))

    # --- settings ---

    def sync_message(self, have: int, want: int) -> tuple[bytes, bool]:
        settings = self._worker.settings
        return settings.change(have, want), settings.matters(have, want)


def _engine_limits(config: Config) -> dict[str, int | bool]:
    return {
        "max_statement_bytes": config.limits.max_statement_bytes,
        "max_gathered_bytes": config.limits.max_gathered_bytes,
        "send_buffer_bytes": config.limits.send_buffer_bytes,
        "max_clients": config.limits.max_clients,
        "max_logins": config.limits.max_logins_in_progress,
        "offers_tls": config.listen.tls.mode != "disable",
    }


def _locked_otherwise(old: State, new: State) -> set[str]:
    """Tenants whose clients, or those of one of their logins, were let in with other locked settings."""
    names = set()
    for name, tenant in old.registry.tenants.items():
        if name in new.registry.tenants and new.registry.tenants[name].locked != tenant.locked:
            names.add(name)
    for login in old.registry.logins.values():
        now = new.registry.logins.get(login.name)
        if now is not None and now.locked != login.locked:
            names.update(login.tenants)
    return names


def _served(params: dict[str, Any]) -> Served:
    return Served(**params["served"]) if params.get("served") else Served()


def _same_login(old: State, new: State, name: str) -> bool:
    before, after = old.registry.logins.get(name), new.registry.logins.get(name)
    return (
        before is not None
        and after is not None
        and (before.password, before.verifier) == (after.password, after.verifier)
    )


async def serve(hub_fd: int) -> None:
    # what is made of a configuration stays, and looking for garbage in it takes a third of the time
    gc.disable()
    hub = await HubClient.connect(hub_fd)
    boot = await hub.call("supervisor", "bootstrap", timeout_s=30)
    log_section = Log.model_validate(boot["config"].get("log", {}))
    configure(log_section.level, log_section.format, worker=boot["slot"])
    worker = Worker(boot, hub)
    worker.answer_hub()
    # what the catalog has changed since the bootstrap; further changes are told, as of one that is ready
    late = await hub.call("supervisor", "catch_up", {"revision": boot["revision"]}, timeout_s=30)
    if late:
        worker.serve(_served(late), late["tenant_indexes"])
    worker.start(boot["listeners"])
    # What start-up made is here to stay.  Its cycles are few, and not looked for: a full collection would
    # keep the first clients waiting.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    gc.enable()
    await hub.call("supervisor", "ready", {"slot": worker.slot})
    await worker.run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tenant_proxy.worker")
    parser.add_argument("--hub-fd", type=int, required=True)
    arguments = parser.parse_args()
    die_with_parent()
    # the supervisor decides when a worker stops
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        uvloop.run(serve(arguments.hub_fd))
    except HubError as problem:
        # it stops, and gives no start any more, or it is gone
        log.error("the supervisor has no use for this worker", reason=problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
