"""Opening servers: addresses, TLS, authentication, the greeting; and back-off when it fails.

A pool asks for a server by `on_demand`; the engine then reports each step.  Failures slow down: the
next try waits, twice as long each time, with jitter; `when_down` says what clients get meanwhile.  What
the server answers is the pool's own matter; that it can't be reached is all pools' (`reach`).
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import random
import socket
import ssl
import time
from typing import TYPE_CHECKING

from tenant_proxy import errors
from tenant_proxy.auth.secret import Secret
from tenant_proxy.auth.server_auth import ServerAuth
from tenant_proxy.auth.tls import server_end_point
from tenant_proxy.config.schema import Cluster
from tenant_proxy.errors import ProxyError, Source
from tenant_proxy.net.dead import watch
from tenant_proxy.net.tls import TlsLayer, server_context
from tenant_proxy.obs.log import get_logger
from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.facts import ANSWERS, QUESTIONS, Key, key_of
from tenant_proxy.relay.reach import Reach
from tenant_proxy.relay.session import PoolRecord, ServerInfo
from tenant_proxy.wire import messages

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("server")

#: how long a host name's address is used before it is looked up again, unless it can't be reached
ADDRESS_S = 30.0
#: pause before a pool that found its cluster's budget used up asks again
BUDGET_RETRY_S = 0.2

#: SQLSTATE classes of a refused login that concern everybody: connection, authorization, database,
#: resources, operator, system, bugs.  Any other is about the settings that this client asked for, and told
#: to it as it is.
NOT_CLIENTS_FAULT = ("08", "28", "3D", "53", "57", "58", "XX")
#: it stops, has crashed, or has not started yet
NOT_THERE = ("57P01", "57P02", "57P03")
#: why a server is closed by us though its login goes well
GIVEN_UP = (
    Reason.SHUTDOWN,
    Reason.LIFETIME,
    Reason.EVICTED,
    Reason.RETIRED,
    Reason.TOO_MANY,
    Reason.OUTGROWN,
)


class Opening:
    """One server's login in progress."""

    __slots__ = ("answer", "asked", "auth", "folding", "heard", "info", "is_mute", "started", "tls")

    def __init__(self, info: ServerInfo) -> None:
        self.info = info
        self.auth: ServerAuth | None = None
        self.tls: TlsLayer | None = None
        self.started = time.monotonic()
        #: the server has answered as PostgreSQL does
        self.heard = False
        #: how many of `facts.QUESTIONS` it has been asked, and the answer to the last
        self.asked = 0
        self.answer = ""
        #: what else the first answer has said
        self.folding = ""
        #: it has answered none, for a reason of its own
        self.is_mute = False


class Dialer:
    """All server logins in progress of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._openings: dict[int, Opening] = {}
        #: with the time by time.monotonic() until which they count
        self._addresses: dict[tuple[str, int], tuple[float, list[tuple[int, object]]]] = {}
        self._reaches: dict[tuple[str, int], Reach] = {}
        self._resolving: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._contexts: dict[str, ssl.SSLContext | None] = {}
        self._secrets: dict[tuple[str, str], Secret] = {}
        #: (cluster, process id) of those that are ready, but for ears
        self.backends: dict[tuple[str, int], int] = {}
        #: figures
        self.connects = 0
        self.failures = 0

    # --- demand ---------------------------------------------------------------------

    def on_demand(self, pool_id: int) -> None:
        """Opens what the pool wants, as far as its back-off and the cluster's budget allow."""
        engine = self._worker.engine
        pool = self._worker.pools.get(pool_id)
        if pool is None or (pool.is_group and pool.retry_handle is not None):
            # what keeps it from opening more is known, and looked at again soon
            return
        while True:
            startup_id = engine.pool_wanted(pool_id)
            if startup_id is None:
                return
            wait = pool.backoff.wait_s()
            if wait > 0:
                self._retry_later(pool, wait)
                return
            reach = self._reach(pool)
            if reach.trying:
                return
            if reach.backoff.wait_s() > 0:
                self._tell(pool, reach)
                return
            address = self._address(pool, startup_id)
            if address is None:
                return
            if not self._worker.budget.take(pool.tenant, ear=pool.is_ear):
                neighbours = self._worker.pools.neighbours(pool)
                if not (engine.evict_idle(neighbours) or self._worker.ears.release(pool.tenant.cluster.name)):
                    self._worker.peers.ask(pool)
                self._retry_later(pool, BUDGET_RETRY_S)
                return
            reach.trying = reach.is_down
            if not self._open(pool, startup_id, address):
                return

    def on_crowded(self, pool_id: int, startup_id: int) -> None:
        """Opens one more for the tenants to have a place each, if there is room that nobody else uses."""
        pool = self._worker.pools.get(pool_id)
        if pool is None or pool.retry_handle is not None or pool.backoff.wait_s() > 0:
            return
        reach = self._reach(pool)
        if reach.is_down or reach.trying:
            return
        address = self._address(pool, startup_id)
        if address is not None and self._worker.budget.take(pool.tenant):
            self._open(pool, startup_id, address)

    def _reach(self, pool: PoolRecord) -> Reach:
        return self._reaches.setdefault(cluster_key(pool.tenant.cluster), Reach())

    def _tell(self, pool: PoolRecord, reach: Reach) -> None:
        """A pool's server can't be reached for now: its clients wait, or are told as `when_down` says."""
        engine, wait = self._worker.engine, reach.backoff.wait_s()
        pool.last_error = reach.detail
        if reach.may_be_back(pool.tenant.pool.down_grace_s):
            if engine.pool_wanted(pool.id) is not None:
                self._retry_later(pool, wait)
            return
        told: set[int] = set()
        while (startup_id := engine.pool_wanted(pool.id)) is not None and startup_id not in told:
            told.add(startup_id)
            engine.pool_down(pool.id, startup_id, wait)
        if told:
            self._retry_later(pool, wait)

    def _retry_later(self, pool: PoolRecord, wait_s: float) -> None:
        if pool.retry_handle is None:

            def again() -> None:
                pool.retry_handle = None
                self._worker.engine.pool_demand(pool.id)
                self._worker.engine.poke()

            pool.retry_handle = asyncio.get_running_loop().call_later(wait_s, again)

    def _address(self, pool: PoolRecord, startup_id: int) -> tuple[int, object] | None:
        """(family, address) to connect to; None while the name is looked up, or after it was not found."""
        cluster = pool.tenant.cluster
        if cluster.host.startswith("/"):
            return socket.AF_UNIX, os.path.join(cluster.host, f".s.PGSQL.{cluster.port}")
        key = (cluster.host, cluster.port)
        known = self._addresses.get(key)
        if known is not None and time.monotonic() < known[0]:
            return self._reach(pool).pick(known[1])
        try:
            found = socket.getaddrinfo(*key, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except OSError:
            if key not in self._resolving:
                task = asyncio.get_running_loop().create_task(self._resolve(key, pool, startup_id))
                self._resolving[key] = task
                task.add_done_callback(lambda _: self._resolving.pop(key, None))
            return None
        addresses: list[tuple[int, object]] = [(family, address) for family, _, _, _, address in found]
        self._addresses[key] = (math.inf, addresses)
        return self._reach(pool).pick(addresses)

    async def _resolve(self, key: tuple[str, int], pool: PoolRecord, startup_id: int) -> None:
        _, addresses = self._addresses.get(key, (0.0, []))
        try:
            found = await asyncio.get_running_loop().getaddrinfo(*key, type=socket.SOCK_STREAM)
        except OSError as error:
            if not addresses:
                self._unreached(
                    pool, time.monotonic(), f'The host name "{key[0]}" was not found: {error.strerror}.'
                )
                return
            # where it was last is a better guess than nowhere
        else:
            new: list[tuple[int, object]] = [(family, address) for family, _, _, _, address in found]
            if set(new) != set(addresses):
                # several addresses come in changing order, in which they can't be tried in turn
                addresses = new
        self._addresses[key] = (time.monotonic() + ADDRESS_S, addresses)
        for one in self._worker.pools.of_host(key):
            self._worker.engine.pool_demand(one.id)
        self._worker.engine.poke()

    def _open(self, pool: PoolRecord, startup_id: int, address: tuple[int, object]) -> bool:
        family, target = address
        cluster = pool.tenant.cluster
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            watch(sock, cluster.dead_after_s)
        info = ServerInfo(
            pool=pool,
            tenant=pool.tenant,
            startup_id=startup_id,
            host=cluster.host,
            address=target if isinstance(target, str) else (str(target[0]), int(target[1])),  # type: ignore[index]
            tls=cluster.tls,
            settings=self._worker.settings.get(startup_id),
        )
        status = sock.connect_ex(target)  # type: ignore[arg-type]
        if status not in (0, errno.EINPROGRESS):
            sock.close()
            self._worker.budget.give_back(pool.tenant, ear=pool.is_ear)
            self._unreached(pool, time.monotonic(), f"{_where(info)}: {os.strerror(status)}.")
            return False
        server = self._worker.engine.server_open(
            pool.id, sock.detach(), startup_id, info, family == socket.AF_UNIX
        )
        self._openings[server] = Opening(info)
        return True

    # --- steps ------------------------------------------------------------------------

    def on_connected(self, server: int) -> None:
        """connect() has ended, well or not."""
        opening = self._openings.get(server)
        if opening is None:
            return
        info = opening.info
        status = self._worker.engine.connect_error(server)
        if status:
            self._fail(server, f"{_where(info)}: {os.strerror(status)}.")
            return
        if info.tls.mode == "disable" or isinstance(info.address, str):
            self._say_hello(server, opening)
        elif info.tls.negotiation == "direct":
            self._start_tls(server, opening)
        else:
            self._worker.engine.server_send(server, messages.ssl_request())

    def on_message(self, server: int, code: int, body: bytes) -> None:
        """A message of the login, or the single byte that answers SSLRequest (with no body)."""
        opening = self._openings.get(server)
        if opening is None:
            return
        try:
            if opening.auth is None:
                self._on_tls_answer(server, opening, code)
            else:
                self._on_login_message(server, opening, code, body)
        except ProxyError as error:
            self._fail(server, error.detail or error.message, there=True)

    def _on_tls_answer(self, server: int, opening: Opening, code: int) -> None:
        if code == ord("S"):
            self._start_tls(server, opening)
        elif code == ord("N") and opening.info.tls.mode == "prefer":
            self._say_hello(server, opening)
        elif code == ord("N"):
            self._fail(server, f"{_where(opening.info)} does not offer TLS, which tls.mode asks for.")
        else:
            self._fail(server, f"{_where(opening.info)} does not speak PostgreSQL's protocol.")

    def _start_tls(self, server: int, opening: Opening) -> None:
        cluster = opening.info.tenant.cluster
        engine = self._worker.engine
        if cluster.name not in self._contexts:
            self._contexts[cluster.name] = server_context(cluster.tls)
        context = self._contexts[cluster.name]
        assert context is not None

        def established(_: TlsLayer) -> None:
            opening.info.encrypted = True
            self._say_hello(server, opening)

        opening.tls = TlsLayer(
            context, server_side=False, server_hostname=cluster.host, on_established=established
        )
        engine.use_tls(server, opening.tls)
        engine.write_raw(server, opening.tls.start())

    def _say_hello(self, server: int, opening: Opening) -> None:
        info = opening.info
        pool = info.pool
        binding: bytes | None = None
        if opening.tls is not None:
            certificate = opening.tls.ssl_object.getpeercert(binary_form=True)
            binding = server_end_point(certificate) if certificate else None
        opening.auth = ServerAuth(
            pool.server_user,
            password=self._secret(pool),
            keys=pool.keys,
            channel_binding=binding,
        )
        # behind the settings, so that none of them stands for who and where
        parameters = info.settings | {"user": pool.server_user, "database": info.tenant.cluster.database}
        self._worker.engine.server_login(server)
        self._worker.engine.server_send(server, messages.startup_message(parameters))

    def _secret(self, pool: PoolRecord) -> Secret | None:
        """Kept per login, with the keys that PBKDF2 made of it."""
        if not pool.password:
            return None
        key = (pool.server_user, pool.password)
        secret = self._secrets.get(key)
        if secret is None:
            secret = self._secrets[key] = Secret.plain(pool.password)
        return secret

    def _on_login_message(self, server: int, opening: Opening, code: int, body: bytes) -> None:
        info = opening.info
        assert opening.auth is not None
        if code != ord("E"):
            self._heard(opening)
        match chr(code):
            case "R":
                reply = opening.auth.on_auth(body)
                if reply is not None:
                    self._worker.engine.server_send(server, reply)
            case "S":
                info.parameters.append(messages.message(b"S", body))
            case "K":
                info.pid = int.from_bytes(body[:4], "big", signed=True)
                info.key = body[4:]
            case "Z":
                self._logged_in(server, opening)
            case "D" if opening.asked:
                opening.answer, *more = (value or "" for value in messages.data_row(body))
                opening.folding = next(iter(more), opening.folding)
            case "E" if opening.asked:
                opening.answer = ""
                opening.is_mute = messages.error_fields(body).get("C") not in ANSWERS
            case "E":
                self._refused(server, opening, messages.error_fields(body))
            case "T" | "C" if opening.asked:
                pass
            case "N" | "v":
                pass
            case _:
                self._fail(server, f"{_where(info)} sent an unexpected message during login.", there=True)

    def _logged_in(self, server: int, opening: Opening) -> None:
        """ReadyForQuery: of the login, or behind an answer."""
        assert opening.auth is not None
        if not opening.auth.done:
            raise errors.server_login_failed("The server skipped authentication.")
        pool, cluster = opening.info.pool, opening.info.tenant.cluster
        if opening.is_mute:
            # what is known of the cluster holds, and the next is asked
            if self._worker.facts.installed(cluster) is None:
                raise errors.server_login_failed("The server did not say what it has installed.")
            ask = False
        elif opening.asked == 0:
            ask = not pool.replication and self._worker.facts.is_wanted(cluster)
        else:
            ask = opening.asked < len(QUESTIONS) and opening.answer == "t"
            if not ask and self._worker.facts.learn(
                cluster, opening.answer if opening.asked == len(QUESTIONS) else "", opening.folding
            ):
                self._worker.pools.learnt(cluster)
        if ask:
            question = QUESTIONS[opening.asked]
            opening.asked += 1
            opening.answer = ""
            self._worker.engine.server_send(server, messages.query(question))
        else:
            self._ready(server, opening)

    def _ready(self, server: int, opening: Opening) -> None:
        del self._openings[server]
        info = opening.info
        pool = info.pool
        pool.backoff.succeeded()
        self.connects += 1
        if pool.welcomes.get(info.startup_id) is None:
            pool.welcomes[info.startup_id] = tuple(info.parameters)
        settings = pool.tenant.pool
        expires_us = 0
        if settings.server_lifetime_s:
            lifetime = settings.server_lifetime_s * (1 - random.random() * settings.server_lifetime_jitter)
            expires_us = int((time.time() + lifetime) * 1e6)
        log.debug(
            "server connected", server=server, tenant=pool.tenant.name, user=pool.server_user, pid=info.pid
        )
        if pool.is_ear:
            self._worker.engine.server_listens(server, info.pid)
            self._worker.ears.on_ready(server, info)
            return
        self.backends[info.tenant.cluster.name, info.pid] = server
        self._worker.engine.server_ready(server, info.pid, expires_us)

    def look_again(self) -> None:
        """After a reload: opens a server of each cluster of which something might have changed."""
        engine, facts = self._worker.engine, self._worker.facts
        looked: set[Key] = set()
        for pool in self._worker.pools:
            cluster = pool.tenant.cluster
            total, *_, most = engine.pool_state(pool.id)
            if key_of(cluster) in looked or pool.replication or not pool.welcomes or total >= most:
                continue
            if facts.installed(cluster) or not facts.is_wanted(cluster):
                continue
            startup_id = next(iter(pool.welcomes))
            address = self._address(pool, startup_id)
            if address is not None and self._worker.budget.take(pool.tenant):
                looked.add(key_of(cluster))
                self._open(pool, startup_id, address)

    # --- failures ----------------------------------------------------------------------

    def _refused(self, server: int, opening: Opening, fields: dict[str, str]) -> None:
        """The server answered the login with an error."""
        sqlstate = fields.get("C", "XX000")
        text = fields.get("M", "no message")
        pool = opening.info.pool
        if sqlstate not in NOT_THERE:
            self._heard(opening)
        if not sqlstate.startswith(NOT_CLIENTS_FAULT):
            # the settings that this client asked for
            error = ProxyError(
                sqlstate,
                text,
                detail=fields.get("D"),
                hint=fields.get("H"),
                severity="FATAL",
                reason="startup_setting",
            )
            self._openings.pop(server, None)
            self._worker.engine.fail_waiting(pool.id, opening.info.startup_id, error.to_message())
            self._worker.engine.server_end(server, Reason.LOGIN_FAILED)
            return
        detail = f"{_where(opening.info)} answered: {text} (SQLSTATE {sqlstate})."
        self._fail(server, detail, there=sqlstate not in NOT_THERE)

    def _heard(self, opening: Opening) -> None:
        """The server is there: other pools need not wait any longer."""
        if opening.heard:
            return
        opening.heard = True
        if self._reach(opening.info.pool).reached():
            self._go_on(opening.info.pool.tenant.cluster)

    def _go_on(self, cluster: Cluster) -> None:
        for pool in self._worker.pools.of_host(cluster_key(cluster)):
            self.look_now(pool)

    def look_now(self, pool: PoolRecord) -> None:
        """What kept a pool from opening servers may be gone."""
        if pool.retry_handle is not None:
            pool.retry_handle.cancel()
            pool.retry_handle = None
        self._worker.engine.pool_demand(pool.id)

    def _fail(self, server: int, detail: str, *, there: bool = False) -> None:
        """A login has failed; `there`: by what the server says, not because it can't be reached.

        One that has begun to answer is there.  That it then ends may be its tenant's doing, so others don't
        wait for it.
        """
        opening = self._openings.pop(server, None)
        # first, so that the end of this one does not at once open the next
        if opening is not None and (there or opening.heard):
            self._failed(opening, detail)
        elif opening is not None:
            self._unreached(opening.info.pool, opening.started, detail)
        self._worker.engine.server_end(server, Reason.LOGIN_FAILED)

    def on_gone(self, server: int, info: ServerInfo, reason: int) -> None:
        """The engine closed a server: also one whose login was in progress."""
        self._worker.budget.give_back(info.tenant, ear=info.pool.is_ear)
        self._worker.peers.on_gone(info.pool, reason)
        opening = self._openings.pop(server, None)
        place = info.tenant.cluster.name, info.pid
        if self.backends.get(place) == server:
            del self.backends[place]
        if opening is not None and reason in GIVEN_UP:
            self._reach(info.pool).trying = False
            self._go_on(info.pool.tenant.cluster)
        elif opening is not None:
            what = "timed out" if reason == Reason.CONNECT_FAILED else "closed the connection during login"
            detail = f"{_where(info)}: {what}."
            if opening.heard:
                self._failed(opening, detail)
            else:
                self._unreached(info.pool, opening.started, detail)

    def _failed(self, opening: Opening, detail: str) -> None:
        pool = opening.info.pool
        settings = pool.tenant.pool
        pool.backoff.failed(opening.started, settings.retry_min_s, settings.retry_max_s)
        pause = pool.backoff.wait_s()
        pool.last_error = detail
        self._note(pool, detail, pause)
        self._worker.engine.pool_down(pool.id, opening.info.startup_id, pause)
        self._worker.engine.pool_demand(pool.id)
        self._worker.engine.poke()

    def _unreached(self, pool: PoolRecord, started: float, detail: str) -> None:
        """The server could not be reached, which concerns all pools of its cluster."""
        settings, cluster = pool.tenant.pool, pool.tenant.cluster
        reach = self._reach(pool)
        pause = reach.failed(started, detail, settings.retry_min_s, settings.retry_max_s)
        self._note(pool, detail, pause)
        key = cluster_key(cluster)
        until, addresses = self._addresses.get(key, (0.0, []))
        if addresses and until != math.inf:
            # a name may lead elsewhere by now
            self._addresses[key] = (0.0, addresses)
        for one in self._worker.pools.of_host(key):
            self._tell(one, reach)
        self._worker.engine.poke()

    def _note(self, pool: PoolRecord, detail: str, pause: float) -> None:
        self.failures += 1
        error = errors.server_unavailable(pool.tenant.cluster.name, detail)
        self._worker.count_error(pool.tenant.name, error, Source.SERVER)
        log.warning(
            "server connection failed",
            tenant=pool.tenant.name,
            cluster=pool.tenant.cluster.name,
            user=pool.server_user,
            error=detail,
            retry_s=round(pause, 2),
        )

    def forget(self) -> None:
        """A reload: certificates and addresses are read again."""
        self._contexts.clear()
        self._addresses.clear()
        self._reaches.clear()


def cluster_key(cluster: Cluster) -> tuple[str, int]:
    return cluster.host, cluster.port


def _where(info: ServerInfo) -> str:
    if isinstance(info.address, str):
        return f"The server at {info.address}"
    return f"The server at {info.address[0]}:{info.address[1]}"
