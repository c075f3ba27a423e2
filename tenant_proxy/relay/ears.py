"""Ears: connections that listen for the clients of transaction mode (docs/decisions/0016-ears.md).

An ear is a server that is nobody's: it LISTENs to all channels that clients of its pools listen to, and
what it hears is passed on to them.  Shared backends have one for all tenants of their cluster, logged in as
the service, other pools one each; every worker has its own.  It is opened when the first client listens,
and closed some time after the last.

What a client says of channels reaches the ear as a notification, on a channel of the ear's own: so LISTEN
and UNLISTEN count from the commit of the client's transaction, in the order of all commits, and not at all
if it is rolled back.  A `mark` shows that it was the proxy that had it sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from tenant_proxy import errors
from tenant_proxy.guard.source import quoted_name, quoted_string
from tenant_proxy.model import IN_MOVE
from tenant_proxy.obs.log import get_logger
from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.session import PoolRecord, ServerInfo, Session
from tenant_proxy.settings_policy import client_encoding_codec
from tenant_proxy.wire import messages

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("ears")

#: what LISTEN may come to (relay.hearing)
GOES: Final = 0
HELD: Final = 1
PINS: Final = 3

#: channels of one client
MAX_CHANNELS: Final = 1_000
#: how long LISTEN waits for an ear before the client keeps its own server for it
PATIENCE_S: Final = 3.0
#: … and how long others then do so without waiting
HOPELESS_S: Final = 10.0
#: how long an ear without clients stays
LINGER_S: Final = 10.0
#: an ear that owes an answer longer than this is given up
DEAF_S: Final = 15.0
#: notifications of one transaction that are remembered for a LISTEN behind them
MAX_RUN: Final = 1_000

#: a client's number
_NUMBER: Final = re.compile(r"[0-9]{1,20}")

STARTUP: Final = {"application_name": "tenant_proxy", "client_encoding": "UTF8"}

_UTF8: Final = "utf_8"
#: what its parameter says that names the encoding of a server
_ENCODING: Final = b"server_encoding\0"


class Listener:
    """A client, to its ear."""

    __slots__ = ("active", "ear", "id", "keeps", "pending", "prefix", "said", "sequence", "session", "told")

    def __init__(self, client: int, session: Session, ear: Ear, prefix: str) -> None:
        self.id = client
        self.session = session
        self.ear = ear
        #: what its channels begin with on the server
        self.prefix = prefix
        #: channels, by their names on the server, that it listens to …
        self.active: set[str] = set()
        #: … or may, by when it said so: its transaction has not ended yet
        self.pending: dict[str, int] = {}
        #: its server listens for it, as no ear could be had
        self.keeps = False
        self.sequence = 0
        self.said = 0
        #: notifications that it was told
        self.told = 0

    @property
    def is_deaf(self) -> bool:
        """What it listens to only its own server can say."""
        return self.keeps and not self.active and not self.pending

    @property
    def names(self) -> set[str]:
        """On the server, of the channels that it listens to or may."""
        return self.active | self.pending.keys()

    @property
    def channels(self) -> Sequence[str]:
        return sorted(name.removeprefix(self.prefix) for name in self.active)

    def message(self, what: str, channel: str) -> str:
        """The statement that tells the ear of a LISTEN or UNLISTEN when it commits."""
        ear = self.ear
        # of two alike in a transaction PostgreSQL would send one
        self.said += 1
        text = f"{what}{self.id} {ear.mark(what, self.id, channel)} {self.said} {channel}"
        return f"NOTIFY {quoted_name(ear.channel)}, {quoted_string(text)}"


class Ear:
    """One connection, or none at the moment."""

    def __init__(self, worker: Worker, pool: PoolRecord, key: bytes, token: str) -> None:
        self._worker = worker
        self.pool = pool
        self._key = key
        #: where it hears of its clients' LISTEN and UNLISTEN
        self.channel = f"tp_{token}.{pool.id}"
        self.server = 0
        self.pid = 0
        #: of what is said there: the server's own, as what can't be turned to another would be its end
        self._codec = _UTF8
        #: it was closed to be opened elsewhere
        self._follows = False
        #: a name on the server -> clients that listen to it, or may
        self.channels: dict[str, set[int]] = {}
        #: … that the server has been told to listen to, and when it had not yet answered
        self.told: dict[str, bool] = {}
        self.listeners: dict[int, Listener] = {}
        #: what is done at the next ReadyForQuery, and at those behind it; and since when the first is due
        self._due: deque[Callable[[], None]] = deque()
        self._due_since = 0.0
        #: whether it has been asked if it has heard all; who comes meanwhile shares the next question
        self._asking = False
        self._askers: list[Callable[[], None]] = []
        #: clients whose LISTEN waits, and until when
        self.waiting: dict[int, float] = {}
        #: notifications since the server was last asked something, of the last process that sent some
        self._run: list[tuple[str, bytes]] = []
        self._run_pid = 0
        self._idle_since = time.monotonic()
        #: no ear could be had: until then clients need not wait for one
        self._hopeless_until = 0.0
        self.heard = 0

    # --- its connection -----------------------------------------------------------

    @property
    def wanted(self) -> bool:
        return bool(self.listeners or self.waiting) and not self.is_moving

    @property
    def is_moving(self) -> bool:
        """Nobody can notify meanwhile; and where its tenant was, its login is taken away."""
        base = self._worker.pools.get(self.pool.base)
        return base is not None and base.stopped and base.tenant.suspended in IN_MOVE

    def want(self) -> None:
        """Has it opened, if it is not."""
        if not self.server:
            worker = self._worker
            worker.engine.pool_ear(self.pool.id, worker.settings.intern(STARTUP), True)
            worker.dialer.on_demand(self.pool.id)

    def on_ready(self, server: int, info: ServerInfo) -> None:
        self.server, self.pid = server, info.pid
        self._due.clear()
        self._asking = False
        self.told = {}
        told = next((one[5:] for one in info.parameters if one[5:].startswith(_ENCODING)), b"")
        encoding = told[len(_ENCODING) : -1].decode() or "UTF8"
        self._codec = _UTF8
        if encoding != "UTF8" and client_encoding_codec(encoding) is not None:
            self._codec = client_encoding_codec(encoding) or _UTF8
            self._ask(f"SET client_encoding = {encoding}", lambda: None)
        self._listen(self.channel)
        for channel in self.channels:
            self._listen(channel)

    def follow(self, pool: PoolRecord) -> None:
        """To where its clients' servers are now; nobody has notified there yet."""
        self.pool.tenant, self.pool.keys, self.pool.password = pool.tenant, pool.keys, pool.password
        self._hopeless_until = self.pool.backoff.retry_at = 0.0
        if self.server:
            self._follows = True
            self._worker.engine.server_end(self.server, Reason.RETIRED)

    def hears(self, names: Iterable[str]) -> bool:
        return bool(self.server) and all(self.told.get(name) for name in (self.channel, *names))

    def take(self, one: Listener) -> None:
        """A client of another ear, with all it listens to."""
        one.ear = self
        self.listeners[one.id] = one
        for name in one.names:
            self.channels.setdefault(name, set()).add(one.id)
            if self.server and name not in self.told:
                self._listen(name)

    def give_up(self, listeners: Iterable[Listener]) -> None:
        """What they may have missed they are not left to guess."""
        for one in listeners:
            error = errors.notifications_lost()
            self._worker.count_error(one.session.tenant, error)
            self._worker.engine.client_end(one.id, Reason.SERVER_LOST, error.to_message())

    def on_gone(self, reason: int) -> None:
        """Its connection has ended."""
        askers, self._askers = self._askers, []
        due, self._due = [*self._due, *askers], deque()
        self.server = self.pid = 0
        self.told = {}
        follows, self._follows = self._follows, False
        lost = [one for one in self.listeners.values() if one.names]
        if self.is_moving or follows:
            lost = []
        if follows and not self.is_moving:
            asyncio.get_running_loop().call_soon(self.want)
        if lost:
            log.warning(
                "the connection that listened for clients was lost",
                tenant=self.pool.tenant.name,
                cluster=self.pool.tenant.cluster.name,
                clients=len(lost),
                reason=Reason(reason).name.lower(),
            )
        self.give_up(lost)
        # who listens to nothing any more, but waits to hear all until then, would wait for ever
        for done in due:
            done()

    def sweep(self, now: float) -> None:
        """A few times a second."""
        for client, until in list(self.waiting.items()):
            if self.server or now > until:
                # it is offered again, and finds out
                self._worker.engine.client_retry(client)
        if self.wanted:
            self._idle_since = now
            self.want()
        elif self.server and now - self._idle_since > LINGER_S and not self.is_moving:
            self.close()
        if self._due and now - self._due_since > DEAF_S:
            self._worker.engine.server_end(self.server, Reason.QUERY_TIMEOUT)

    def close(self) -> None:
        if not self.wanted:
            worker = self._worker
            worker.engine.pool_ear(self.pool.id, worker.settings.intern(STARTUP), False)
            if self.server:
                worker.engine.server_send(self.server, messages.message(b"X", b""))
                worker.engine.server_end(self.server, Reason.IDLE)

    def _ask(self, sql: str, done: Callable[[], None]) -> None:
        if not self._due:
            self._due_since = time.monotonic()
        self._due.append(done)
        text = sql.encode(self._codec, "surrogateescape" if self._codec == _UTF8 else "replace")
        self._worker.engine.server_send(self.server, messages.message(b"Q", text + b"\0"))

    def _hear(self, done: Callable[[], None]) -> None:
        """Calls back when all that was notified until now is heard."""
        self._askers.append(done)
        if not self._asking:
            self._ask_whether()

    def _ask_whether(self) -> None:
        askers, self._askers = self._askers, []
        self._asking = True

        def done() -> None:
            self._asking = False
            if self._askers:
                self._ask_whether()
            for one in askers:
                one()

        self._ask("", done)

    def _listen(self, channel: str) -> None:
        def done() -> None:
            if channel in self.told:
                self.told[channel] = True

        self.told[channel] = False
        self._ask(f"LISTEN {quoted_name(channel)}", done)

    # --- what clients want ----------------------------------------------------------

    def listen(self, one: Listener, names: Sequence[str]) -> int:
        """Before a LISTEN of these channels goes to the client's server."""
        one.sequence += 1
        for name in names:
            # also where it is in force: an UNLISTEN may be on its way
            one.pending[name] = one.sequence
            self.channels.setdefault(name, set()).add(one.id)
            if self.server and name not in self.told:
                self._listen(name)
        if self.server and self.told.get(self.channel) and all(self.told.get(name) for name in names):
            self.waiting.pop(one.id, None)
            return GOES
        now = time.monotonic()
        until = self.waiting.setdefault(one.id, now + PATIENCE_S)
        if now > until or (not self.server and now < self._hopeless_until):
            if now > until:
                self._hopeless_until = now + HOPELESS_S
            del self.waiting[one.id]
            self._settle(one, one.sequence)
            one.keeps = True
            return PINS
        if self.server:
            self._hear(lambda: self._worker.engine.client_retry(one.id))
        else:
            self.want()
        return HELD

    def sync(self, client: int, server: int, *, last: bool) -> bool:
        """Has the engine told when all that was notified until now is heard; false if nobody hears.

        `last`: the client has nothing else under way, so what it has said of channels is said by then.
        """
        one = self.listeners.get(client)
        if not self.server or one is None:
            return False
        sequence = one.sequence

        def done() -> None:
            if last:
                self._settle(one, sequence)
            self._worker.engine.server_heard(server, client)

        self._hear(done)
        return True

    def _settle(self, one: Listener, sequence: int) -> None:
        """What the client said up to then, and is not in force, was rolled back."""
        for name in [name for name, when in one.pending.items() if when <= sequence]:
            del one.pending[name]
            if name not in one.active:
                self._leave(one.id, name)
        if not one.active and not one.pending:
            self._worker.engine.client_listens(one.id, False)

    def forget(self, one: Listener) -> None:
        """It listens to nothing any more."""
        for name in one.names:
            self._leave(one.id, name)
        one.active.clear()
        one.pending.clear()

    def _leave(self, client: int, name: str) -> None:
        clients = self.channels.get(name)
        if clients is None:
            return
        clients.discard(client)
        if not clients:
            del self.channels[name]
            if self.told.pop(name, None) is not None and self.server:
                self._ask(f"UNLISTEN {quoted_name(name)}", lambda: None)

    # --- what it hears ---------------------------------------------------------------

    def on_message(self, code: int, body: bytes) -> None:
        if code == ord("A"):
            pid = int.from_bytes(body[:4], "big", signed=True)
            channel, payload = (
                part.decode(self._codec, "surrogateescape") for part in body[4:].split(b"\0")[:2]
            )
            self._on_notification(pid, channel, payload.encode("utf-8", "surrogateescape"))
        elif code == ord("Z"):
            self._run.clear()
            self._due_since = time.monotonic()
            if self._due:
                self._due.popleft()()
        elif code == ord("E"):
            fields = messages.error_fields(body)
            log.error("an ear got an error", error=fields.get("M"), sqlstate=fields.get("C"))
            self._worker.engine.server_end(self.server, Reason.INTERNAL)

    def _on_notification(self, pid: int, channel: str, payload: bytes) -> None:
        if channel == self.channel:
            self._on_word(pid, payload)
            return
        self.heard += 1
        if pid != self._run_pid:
            self._run.clear()
            self._run_pid = pid
        if len(self._run) < MAX_RUN:
            self._run.append((channel, payload))
        clients = self.channels.get(channel)
        if clients:
            self._tell(
                [self.listeners[one] for one in clients if channel in self.listeners[one].active],
                pid,
                channel,
                payload,
            )

    def _tell(self, listeners: Iterable[Listener], pid: int, channel: str, payload: bytes) -> None:
        engine = self._worker.engine
        groups: dict[str, list[int]] = {}
        backend = self._worker.dialer.backends.get((self.pool.tenant.cluster.name, pid), 0)
        notifier, home = engine.server_notifier(backend)
        pool = self._worker.pools.get(home)
        for one in listeners:
            if pool is None or pool.tenant.name != one.session.tenant:
                # another tenant's client has run something there meanwhile that may have notified
                notifier = 0
            groups.setdefault(channel.removeprefix(one.prefix), []).append(one.id)
            one.told += 1
            self._worker.ears.notifications[one.session.tenant] += 1
        for name, ids in groups.items():
            head = pid.to_bytes(4, "big", signed=True)
            raw = name.encode("utf-8", "surrogateescape")
            body = head + raw + b"\0" + payload + b"\0"
            for client, bits in engine.notify(ids, pid, notifier, messages.message(b"A", body)):
                codec = self._worker.judging.codec(bits)
                text = [part.decode("utf-8", "replace").encode(codec, "replace") for part in (raw, payload)]
                message = messages.message(b"A", head + b"\0".join(text) + b"\0")
                engine.notify_one(client, pid, notifier, message)

    def _on_word(self, pid: int, payload: bytes) -> None:
        """LISTEN or UNLISTEN of a client, from its commit on."""
        text = payload.decode("utf-8", "replace")
        number, _, rest = text[1:].partition(" ")
        mark, _, rest = rest.partition(" ")
        channel = rest.partition(" ")[2]
        # anybody may have said anything
        one = self.listeners.get(int(number)) if _NUMBER.fullmatch(number) else None
        if one is None or not secrets.compare_digest(
            mark.encode(), self.mark(text[0], one.id, channel).encode()
        ):
            return
        if text[0] == "U":
            for name in [channel] if channel else list(one.active):
                if name in one.active:
                    one.active.discard(name)
                    if name not in one.pending:
                        self._leave(one.id, name)
        elif channel not in one.active and one.id in self.channels.get(channel, ()):
            one.active.add(channel)
            if pid == self._run_pid:
                # what the same transaction has notified before
                for name, content in self._run:
                    if name == channel:
                        self._tell([one], pid, name, content)

    def mark(self, what: str, client: int, channel: str) -> str:
        text = f"{what}{client} {channel}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, key=self._key, digest_size=12).hexdigest()


class Ears:
    """Of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._key = secrets.token_bytes(32)
        self._token = secrets.token_hex(12)
        #: by their pools' ids
        self._ears: dict[int, Ear] = {}
        self._by_server: dict[int, Ear] = {}
        self._listeners: dict[int, Listener] = {}
        #: tenant -> notifications that its clients were told
        self.notifications: Counter[str] = Counter()

    def listener(self, client: int, session: Session) -> Listener:
        one = self._listeners.get(client)
        if one is None:
            assert session.pool is not None
            ear = self._ear_of(session.pool)
            one = Listener(client, session, ear, session.pool.names.prefix.decode())
            self._listeners[client] = ear.listeners[client] = one
        return one

    # --- their connections ---

    def on_ready(self, server: int, info: ServerInfo) -> None:
        ear = self._ears[info.pool.id]
        self._by_server[server] = ear
        ear.on_ready(server, info)

    def on_message(self, server: int, code: int, body: bytes) -> bool:
        """Takes a message of a server that is an ear."""
        ear = self._by_server.get(server)
        if ear is None:
            return False
        ear.on_message(code, body)
        return True

    def on_gone(self, server: int, reason: int) -> None:
        ear = self._by_server.pop(server, None)
        if ear is not None:
            ear.on_gone(reason)

    # --- their clients ---

    def of_client(self, client: int) -> Listener | None:
        return self._listeners.get(client)

    @property
    def connections(self) -> int:
        return len(self._by_server)

    def listeners(self) -> list[Listener]:
        """Those that listen to something."""
        return [one for one in self._listeners.values() if one.active]

    def forget(self, client: int) -> None:
        """The client has ended, or discards all."""
        one = self._listeners.pop(client, None)
        if one is not None:
            one.ear.forget(one)
            one.ear.listeners.pop(client, None)
            one.ear.waiting.pop(client, None)

    def leave(self, pool: int) -> None:
        """What is notified where an ear is, is not for its clients any more."""
        ear = self._ears.get(pool)
        if ear is not None and ear.server:
            self._worker.engine.server_end(ear.server, Reason.RETIRED)

    # --- a tenant that has moved ---

    def follow(self, record: PoolRecord) -> bool:
        """Has those of its clients that listen be listened for where it is now; false if that is so."""
        ones = self._of(record)
        if not ones:
            return False
        ear = self._ear_of(record)
        if not record.shared and ear.pool.tenant.cluster != record.tenant.cluster:
            ear.follow(record)
        for one in ones:
            if one.ear is not ear:
                was, active, pending = one.ear, set(one.active), dict(one.pending)
                was.forget(one)
                was.listeners.pop(one.id, None)
                was.waiting.pop(one.id, None)
                one.active, one.pending = active, pending
                ear.take(one)
        ear.want()
        return not self.hears(record)

    def hears(self, record: PoolRecord) -> bool:
        """Whether those of its clients that listen are listened for."""
        return all(one.ear.hears(one.names) for one in self._of(record))

    def give_up(self, record: PoolRecord) -> None:
        """Ends those that are not."""
        for one in self._of(record):
            if not one.ear.hears(one.names):
                one.ear.give_up([one])

    def _of(self, record: PoolRecord) -> list[Listener]:
        return [one for one in self._listeners.values() if one.session.pool is record and one.names]

    def _ear_of(self, record: PoolRecord) -> Ear:
        pool = self._worker.pools.ear_of(record)
        ear = self._ears.get(pool.id)
        if ear is None:
            ear = self._ears[pool.id] = Ear(self._worker, pool, self._key, self._token)
        return ear

    def sweep(self) -> None:
        now = time.monotonic()
        for ear in list(self._ears.values()):
            ear.sweep(now)

    def release(self, cluster: str) -> bool:
        """Closes an ear that nobody needs, as others want its place; true if there was one."""
        for ear in self._ears.values():
            if ear.server and not ear.wanted and ear.pool.tenant.cluster.name == cluster:
                ear.close()
                return True
        return False
