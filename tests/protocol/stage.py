"""The compiled engine on a stage: clients and servers are socketpairs, and time passes when a test says so.

A conversation reads

    client >> query("SELECT 1")         the client says
    server << query("SELECT 1")         the server has heard exactly this, and nothing else
    server >> result("1")
    client << result("1")

`>>` sends and lets the engine work until it rests; `<<` takes all that has arrived.  The hooks in place
of worker.Hooks judge by words of the statement: see `Hooks.judge`.
"""

from __future__ import annotations

import selectors
import socket
import traceback
from collections.abc import Callable
from typing import Any

from tenant_proxy import errors
from tenant_proxy.guard.cache import VerdictCache
from tenant_proxy.model import Effect
from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.engine import Engine
from tenant_proxy.relay.settings import SettingsTable
from tenant_proxy.wire import messages
from tests.protocol import wire

ALLOWED = 1 << 31
READS = int(Effect.READS) | ALLOWED
#: the engine must come to rest within so many turns of the loop: more is a busy loop
MAX_TURNS = 2000

POOL_DEFAULTS: dict[str, Any] = {
    "scope": 1,
    # the cache is not asked: each statement goes to Hooks.judge
    "guard_mode": 2,
    "session_mode": False,
    "max": 10,
    "min": 0,
    "queue_limit": 0,
    "fail_when_down": False,
    "max_prepared": 100,
    "reset_query": wire.query("DISCARD ALL"),
    "queue_timeout_s": 0,
    "query_timeout_s": 0,
    "idle_in_transaction_timeout_s": 0,
    "client_idle_timeout_s": 0,
    "server_idle_timeout_s": 0,
    "connect_timeout_s": 60,
    "max_prepared_bytes": 1 << 28,
}
ENGINE_DEFAULTS: dict[str, Any] = {
    "max_statement_bytes": 1 << 20,
    "max_gathered_bytes": 1 << 28,
    "send_buffer_bytes": 64 * 1024,
    "max_clients": 1000,
    "max_logins": 100,
    "offers_tls": False,
}


class HandLoop:
    """What the reactor needs of an event loop, turned by hand."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._callbacks: dict[int, dict[int, tuple[Callable[..., object], tuple[Any, ...]]]] = {}

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        self._set(fd, selectors.EVENT_READ, (callback, args))

    def add_writer(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        self._set(fd, selectors.EVENT_WRITE, (callback, args))

    def remove_reader(self, fd: int) -> bool:
        return self._set(fd, selectors.EVENT_READ, None)

    def remove_writer(self, fd: int) -> bool:
        return self._set(fd, selectors.EVENT_WRITE, None)

    def _set(self, fd: int, event: int, callback: Any) -> bool:
        known = self._callbacks.setdefault(fd, {})
        had = event in known
        if callback is None:
            known.pop(event, None)
        else:
            known[event] = callback
        events = sum(known)
        if fd in self._selector.get_map():
            if events:
                self._selector.modify(fd, events)
            else:
                self._selector.unregister(fd)
        elif events:
            self._selector.register(fd, events)
        if not known:
            del self._callbacks[fd]
        return had

    def turn(self) -> bool:
        """Calls back for what is ready; False when nothing was."""
        ready = self._selector.select(0)
        for key, events in ready:
            for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                found = self._callbacks.get(key.fd, {}).get(event)
                if events & event and found is not None:
                    found[0](*found[1])
        return bool(ready)

    def close(self) -> None:
        self._selector.close()


class Log:
    """Nothing may be logged as an error but what a test expects."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def exception(self, event: str, **_: Any) -> None:
        self.lines.append(f"{event}: {traceback.format_exc()}")

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(f"{event}: {fields}")

    def debug(self, event: str, **_: Any) -> None:
        pass


class Session:
    """What the hooks know of a client."""

    def __init__(self, pool: int, name: str) -> None:
        self.pool = pool
        self.name = name


class Hooks:
    """In place of worker.Hooks: logins without questions, servers at once, a guard that goes by words."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.asked: dict[int, dict[str, str]] = {}
        #: (client's id, reason) and (server's id, reason) of the ends, in order
        self.clients_gone: list[tuple[int, str]] = []
        self.servers_gone: list[tuple[int, str]] = []
        self.stopped: list[int] = []
        self.judged: list[str] = []
        #: clients whose statements ("long" is in them) wait for a verdict, and those that have one
        self.waiting: list[int] = []
        self.verdicts: dict[int, bytes | None] = {}
        self.dealt_with: list[int] = []
        self.canceled: list[int] = []
        #: clients whose texts were not given again
        self.asked_again: list[int] = []
        self.login_messages: list[bytes] = []
        self.pinned = 0

    # --- clients

    def on_startup(self, client: int, data: bytes) -> None:
        try:
            packet = messages.read_startup(data)
        except errors.ClientProtocolError as problem:
            self.stage.engine.client_end(
                client, Reason.LOGIN_FAILED, errors.protocol_violation(str(problem)).to_message()
            )
            return
        self.stage.engine.client_login(client)
        if "wait" not in packet.parameters:
            self.stage.enter(client, packet.parameters)

    def on_login_message(self, client: int, body: bytes) -> None:
        self.login_messages.append(body)

    def on_admin_message(self, client: int, code: int, body: bytes) -> None:
        raise AssertionError("no admin here")

    def on_greet(self, client: int, session: Session, server: int, info: Server) -> None:
        self.stage.greet(client, info.pid)

    def on_client_gone(self, client: int, session: Session | None, reason: int) -> None:
        self.clients_gone.append((client, Reason(reason).name))

    def failure(self, client: int, session: Session | None, reason: int, detail: int) -> bytes:
        sqlstates = {
            Reason.QUEUE_TIMEOUT: "57P03",
            Reason.QUEUE_FULL: "53300",
            Reason.QUERY_TIMEOUT: "57014",
            Reason.IDLE_IN_TRANSACTION: "25P03",
            Reason.IDLE: "57P05",
            Reason.SERVER_LOST: "08006",
            Reason.SERVER_UNAVAILABLE: "08006",
            Reason.LOGIN_TIMEOUT: "08006",
        }
        return wire.fatal(sqlstates[Reason(reason)], Reason(reason).name)

    def violation(self, client: int, session: Session | None, what: int, value: int) -> bytes:
        return errors.protocol_violation(f"violation {what}, {value}").to_message()

    def on_bug(self, client: int) -> None:
        self.stage.bugs.append(traceback.format_exc())
        self.stage.engine.client_end(client, Reason.INTERNAL, wire.fatal("XX000"))

    def bug_message(self) -> bytes:
        self.stage.bugs.append(traceback.format_exc())
        return wire.error("XX000")

    # --- statements

    def judge(self, session: Session, scope: int, sql: bytes | None, client: int) -> int | bytes | None:
        if sql is None:
            self.asked_again.append(client)
            return self.verdicts.get(client) or (READS if client in self.verdicts else None)
        words = sql.decode("utf-8", "replace")
        self.judged.append(words)
        if "long" in words and client not in self.verdicts:
            if client not in self.waiting:
                self.waiting.append(client)
            return None
        if verdict := self.verdicts.get(client):
            return verdict
        if "forbidden" in words:
            return wire.error("42501")
        effects = Effect.READS
        first = words.split(" ")[0].upper()
        if first in ("BEGIN", "COMMIT", "ROLLBACK"):
            effects |= Effect.XACT_CONTROL
        if first in ("SET", "RESET"):
            effects |= Effect.SETTINGS
        if first == "ALTER":
            effects |= Effect.WRITES | Effect.DDL
        if first == "LISTEN":
            effects |= Effect.PINS
        if first == "DEALLOCATE":
            effects |= Effect.DEALLOCATES
        if words == "DISCARD ALL":
            # as if it were not alone, so that it is always the server's to answer
            effects |= Effect.DEALLOCATES | Effect.DISCARDS_ALL | Effect.SETTINGS | Effect.MULTI
        return int(effects) | ALLOWED

    def on_judged(self, client: int) -> None:
        self.verdicts.pop(client, None)
        self.dealt_with.append(client)

    def on_cancel_judging(self, client: int) -> None:
        self.canceled.append(client)

    def parameter_types(
        self, session: Session, scope: int, sql: bytes, types: bytes, client: int
    ) -> bytes | None:
        return None

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
        return None

    def own_statements(self, client: int, message: bytes) -> bytes:
        return message

    def judge_function(self, session: Session, scope: int, oid: int) -> int | bytes:
        return wire.error("42501") if oid == 13 else int(Effect.READS) | ALLOWED

    def refuse_size(self, session: Session, size: int) -> bytes:
        return wire.error("54000")

    def refuse_gathered(self, session: Session) -> bytes:
        return wire.error("53400")

    def refuse_prepared(self, session: Session) -> bytes:
        return wire.error("53200")

    def missing_statement(self, name: bytes) -> bytes:
        return errors.prepared_statement_missing(name.decode("utf-8", "replace")).to_message()

    def other_rows(self) -> bytes:
        return wire.error("0A000")

    def failed_transaction(self) -> bytes:
        return wire.error("25P02")

    def broken_copy(self, code: int) -> bytes:
        return wire.error("08P01")

    def existing_statement(self, name: bytes) -> bytes:
        return errors.prepared_statement_exists(name.decode("utf-8", "replace")).to_message()

    def deallocate(self, client: int, scope: int, sql: bytes, pinned: bool, alone: bool) -> bytes | bool:
        words = sql.decode("utf-8", "replace").split(" ")
        if words[-1].upper() == "ALL":
            self.stage.engine.client_forget_statements(client, None)
            if words[0] == "DISCARD":
                return False
            return True if pinned or not alone else wire.complete("DEALLOCATE ALL")
        if self.stage.engine.client_forget_statements(client, [words[1].encode()]):
            return wire.complete("DEALLOCATE")
        return False

    def on_pinned(self, client: int, session: Session, scope: int, sql: bytes) -> None:
        self.pinned += 1

    # --- servers

    def on_demand(self, pool: int) -> None:
        while self.stage.opens_servers and (startup_id := self.stage.engine.pool_wanted(pool)) is not None:
            self.stage.open_server(pool, startup_id)

    def on_crowded(self, pool: int, startup_id: int) -> None:
        if self.stage.opens_servers:
            self.stage.open_server(pool, startup_id)

    def on_server_connected(self, server: int) -> None:
        self.stage.engine.server_login(server)
        if self.stage.server_of(server).logs_in:
            self.stage.engine.server_ready(server, self.stage.server_of(server).pid, 0)

    def on_server_message(self, server: int, code: int, body: bytes) -> None:
        if chr(code) == "Z":
            self.stage.engine.server_ready(server, self.stage.server_of(server).pid, 0)

    def on_server_gone(self, server: int, pool: int, info: Server, reason: int) -> None:
        self.servers_gone.append((server, Reason(reason).name))
        self.stage.places_taken -= 1

    def on_server_bug(self, server: int) -> None:
        self.stage.bugs.append(traceback.format_exc())
        self.stage.engine.server_end(server, Reason.INTERNAL)

    def on_query_timeout(self, info: Server) -> None:
        self.stopped.append(info.pid)

    def on_error(self, pool: int, body: bytes, changed: object) -> tuple[bool, bytes | None]:
        return messages.error_fields(body).get("V") in ("FATAL", "PANIC"), None

    def on_encoding(self, value: bytes) -> int:
        return 0

    # --- settings

    def sync_message(self, have: int, want: int) -> tuple[bytes, bool]:
        settings = self.stage.settings
        return settings.change(have, want), settings.matters(have, want)

    def ask_message(self, server: int, session: Session) -> bytes:
        self.asked[server] = {}
        return wire.query("ASK")

    def on_ask_row(self, server: int, body: bytes) -> None:
        name, value = messages.data_row(body)
        assert name is not None
        assert value is not None
        self.asked[server][name] = value

    def on_ask_done(self, server: int, session: Session) -> tuple[int, int]:
        number = self.stage.settings.intern(self.asked.pop(server))
        return number, number


class Peer:
    """The other end of one of the engine's sockets."""

    def __init__(self, stage: Stage, sock: socket.socket) -> None:
        self._stage = stage
        self.id = 0
        self.socket = sock
        self.ended = False
        #: what the engine has not taken yet
        self.unsaid = b""
        self._heard = b""
        sock.setblocking(False)

    def __rshift__(self, said: bytes) -> None:
        """Says this, and the engine works until it rests; what it does not take yet is said later."""
        self.unsaid += said
        self._stage.work()

    def speak(self) -> bool:
        """Sends what is still unsaid; False if nothing could be."""
        if not self.unsaid or self.socket.fileno() < 0:
            return False
        try:
            sent = self.socket.send(self.unsaid)
        except BlockingIOError:
            return False
        except OSError:
            self.unsaid = b""
            return False
        self.unsaid = self.unsaid[sent:]
        return True

    def is_held_back(self) -> bool:
        """The engine does not read on."""
        self._stage.work()
        return bool(self.unsaid)

    def __lshift__(self, expected: bytes) -> None:
        """Has heard exactly this since the last time."""
        heard = self.take()
        assert wire.shown(heard) == wire.shown(expected), f"heard {wire.shown(heard)}"

    def take(self) -> bytes:
        """All that has come since the last time."""
        while True:
            self._stage.work()
            if not self._receive():
                heard, self._heard = self._heard, b""
                return heard

    def _receive(self) -> bool:
        more = False
        while not self.ended:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                return more
            except ConnectionResetError:
                data = b""
            self.ended = not data
            self._heard += data
            more = True
        return more

    def hangs_up(self) -> None:
        """Closes the connection."""
        self.socket.close()
        self._stage.work()

    def stops_sending(self) -> None:
        """Half-closes the connection."""
        self.socket.shutdown(socket.SHUT_WR)
        self._stage.work()

    def is_cut_off(self) -> bool:
        """Heard nothing more and the connection has ended."""
        return self.take() == b"" and self.ended


class Client(Peer):
    """A client; `startup` and `key` are set when it has logged in."""

    key: tuple[int, bytes] = (0, b"")

    @property
    def state(self) -> str:
        """As SHOW CLIENTS says, "gone" when there is none."""
        return next((row[2] for row in self._stage.engine.client_rows() if row[0] == self.id), "gone")

    @property
    def end(self) -> str:
        """Why it ended, "" while it has not."""
        return next((why for who, why in self._stage.hooks.clients_gone if who == self.id), "")

    def is_pinned(self) -> bool:
        return next(row[8] for row in self._stage.engine.client_rows() if row[0] == self.id)


class Server(Peer):
    """A server; also what the engine is given as its info."""

    def __init__(self, stage: Stage, sock: socket.socket, pid: int, *, logs_in: bool) -> None:
        super().__init__(stage, sock)
        self.pid = pid
        self.logs_in = logs_in

    @property
    def state(self) -> str:
        """As SHOW SERVERS says, "gone" when there is none."""
        return next((row[3] for row in self._stage.engine.server_rows() if row[0] == self.id), "gone")

    @property
    def end(self) -> str:
        return next((why for who, why in self._stage.hooks.servers_gone if who == self.id), "")

    def statements(self) -> int:
        """How many prepared statements the engine thinks that it knows."""
        return next(row[9] for row in self._stage.engine.server_rows() if row[0] == self.id)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        return listener.accept()[0], theirs


class Stage:
    """An engine, and who talks to it."""

    def __init__(self, *, hooks: type[Hooks] = Hooks, **limits: Any) -> None:
        self.loop = HandLoop()
        self.log = Log()
        self.bugs: list[str] = []
        self.hooks = hooks(self)
        self.settings = SettingsTable()
        self.engine = Engine(self.hooks, VerdictCache(1000), **(ENGINE_DEFAULTS | limits))
        self.engine.start(self.loop, self.log)
        self.opens_servers = True
        self.servers_log_in = True
        #: also in transaction mode a login waits for a server's greeting
        self.greets_from_servers = False
        #: places of the budget that open servers hold
        self.places_taken = 0
        self._clients: dict[int, Client] = {}
        self._servers: dict[int, Server] = {}
        self._untaken: list[Server] = []
        self._pools: list[int] = []

    # --- time

    def work(self) -> bool:
        """Lets the engine work until it rests; False if there was nothing to do."""
        for turns in range(MAX_TURNS):
            spoken = [peer.speak() for peer in (*self._clients.values(), *self._servers.values())]
            if not self.loop.turn() and not any(spoken):
                return turns > 0
        raise AssertionError("the engine does not come to rest")

    def sweep(self, login_timeout_s: float = 60) -> None:
        """What the worker does a few times a second."""
        self.engine.sweep(int(login_timeout_s * 1e6))
        self.work()

    # --- who is there

    def pool(self, tenant: int = 1, **limits: Any) -> int:
        """A pool of a tenant that differs from POOL_DEFAULTS in `limits`."""
        self._pools.append(self.engine.pool_open(tenant, **(POOL_DEFAULTS | limits)))
        return self._pools[-1]

    def first_pool(self) -> int:
        return self._pools[0] if self._pools else self.pool()

    def connect(self, *, over_tcp: bool = False) -> Client:
        """A client that has said nothing yet."""
        ours, theirs = tcp_pair() if over_tcp else socket.socketpair()
        client = Client(self, theirs)
        ours.setblocking(False)
        client.id = self.engine.adopt_client(ours.detach(), b"", True)
        self._clients[client.id] = client
        return client

    def client(
        self,
        *,
        pool: int = 0,
        settings: dict[str, str] | None = None,
        over_tcp: bool = False,
        **startup: str,
    ) -> Client:
        """A client that has logged in; `settings` are those it has changed since, `startup` its server's."""
        client = self.connect(over_tcp=over_tcp)
        self.wants(pool or self.first_pool(), settings)
        client >> wire.startup(user="someone", **startup)
        client << wire.AUTHENTICATED + wire.IDLE
        return client

    def wants(self, pool: int, settings: dict[str, str] | None = None) -> None:
        """The next client to log in belongs to this pool, and has changed these settings since."""
        self._entering = (pool, settings or {})

    def enter(self, client: int, parameters: dict[str, str]) -> None:
        """A client's login has succeeded: it is greeted at once, or in session mode from its server."""
        pool, settings = self._entering
        opened_with = {name: value for name, value in parameters.items() if name != "user"}
        session = Session(pool, parameters["user"])
        self.engine.client_enter(
            client, pool, self.settings.intern(opened_with), self.settings.intern(settings), session, 0
        )
        if self._is_session(pool) or self.greets_from_servers:
            self.engine.client_want_server(client)
        else:
            self.greet(client, client)

    def _is_session(self, pool: int) -> bool:
        return any(one["id"] == pool and one["session_mode"] for one in self.engine.pool_figures())

    def greet(self, client: int, pid: int) -> None:
        key = (pid, client.to_bytes(4, "big"))
        if client in self._clients:
            self._clients[client].key = key
        self.engine.client_greet(client, wire.AUTHENTICATED + wire.IDLE, *key)

    def open_server(self, pool: int, startup_id: int = 0) -> Server:
        """What the dialer does."""
        ours, theirs = socket.socketpair()
        server = Server(self, theirs, 1000 + len(self._servers), logs_in=self.servers_log_in)
        ours.setblocking(False)
        self.places_taken += 1
        server.id = self.engine.server_open(pool, ours.detach(), startup_id, server, True)
        self._servers[server.id] = server
        self._untaken.append(server)
        return server

    def server(self) -> Server:
        """The next server that the engine has had opened."""
        self.work()
        assert self._untaken, "no server was opened"
        return self._untaken.pop(0)

    def idle_server(self, *, pool: int = 0, **startup: str) -> Server:
        """A server that is there before anybody asks."""
        server = self.open_server(pool or self.first_pool(), self.settings.intern(startup))
        self._untaken.remove(server)
        self.work()
        assert server.state == "idle"
        return server

    def pair(self) -> tuple[Client, Server]:
        """A client, and the idle server that will serve it."""
        server = self.idle_server()
        return self.client(), server

    def session_pair(self, **limits: Any) -> tuple[Client, Server]:
        """A client in session mode, and its server."""
        client = self.client(pool=self.pool(session_mode=True, **limits))
        return client, self.server()

    def server_of(self, number: int) -> Server:
        return self._servers[number]

    def opened(self) -> int:
        """How many servers were ever opened."""
        return len(self._servers)

    # --- what it comes to

    def figures(self, pool: int = 0) -> dict[str, Any]:
        wanted = pool or self.first_pool()
        return next(one for one in self.engine.pool_figures() if one["id"] == wanted)

    def close(self) -> None:
        """Everybody leaves; nothing may be left behind, and nothing may have gone wrong unseen."""
        self.opens_servers = False
        for peer in (*self._clients.values(), *self._servers.values()):
            peer.socket.close()
        self.work()
        # clients that wait are not read: a sweep finds out
        self.sweep()
        left = {pool: self.engine.pool_state(pool) for pool in self._pools}
        clients, logins, servers = self.engine.open_counts()
        self.engine.stop()
        self.loop.close()
        assert self.bugs == []
        assert self.log.lines == []
        assert (clients, logins, servers, self.places_taken) == (0, 0, 0, 0)
        for pool, (total, opening, idle, waiting, members, _) in left.items():
            assert (total, opening, idle, waiting, members) == (0, 0, 0, 0, 0), f"pool {pool}"
