"""A client's way in: first packets, TLS, authentication, its tenant, its pool, its greeting.

All of it runs in the loop's thread, called by the engine message by message; only look-ups
(auth_query) and key derivation leave it, and hold the client's further messages meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenant_proxy import errors
from tenant_proxy.auth.client_auth import ClientAuth
from tenant_proxy.auth.secret import Secret
from tenant_proxy.auth.tls import TlsInfo
from tenant_proxy.config.schema import Cluster, PoolMode
from tenant_proxy.errors import ClientProtocolError, ProxyError
from tenant_proxy.model import PAUSED, StartupRequest
from tenant_proxy.net.tls import ALPN, TlsLayer
from tenant_proxy.obs.log import get_logger
from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.entries import METHOD
from tenant_proxy.relay.moving import Moving
from tenant_proxy.relay.session import ServerInfo, Session
from tenant_proxy.settings_policy import MAX_IDENTIFIER_BYTES
from tenant_proxy.tenancy.registry import Login, Route, TenantInfo
from tenant_proxy.tenancy.startup import request_settings, startup_settings, wants_replication
from tenant_proxy.wire import messages
from tenant_proxy.wire.messages import StartupPacket

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("login")

#: bytes of a cancel key for protocol 3.2 and later; 3.0 has 4
LONG_KEY_BYTES = 32
#: a login that has taken longer goes when there are too many
SLOW_LOGIN_US = 2_000_000
#: startup packets whose outcome is remembered
MAX_ADMISSIONS = 4000

_LIMIT_NAMES = {
    "clients": "limits.max_clients",
    "clients of tenant": "max_clients of the tenant",
    "clients of user": "max_clients of the login",
}


@dataclass(frozen=True, slots=True)
class Admission:
    """Where an authenticated startup packet leads: the same for each connection with these bytes that has
    TLS, if the first had it, or has none."""

    packet: StartupPacket
    request: StartupRequest
    name: str
    login: Login | None
    tenant: TenantInfo
    route: Route
    startup_id: int
    settings_id: int
    application_name: str
    database: str
    user: str
    replication: bool
    #: the bytes lead there again; with TLS only where neither host name nor certificate had a say
    recurs: bool
    #: limits that it counts against, see Logins._limits_of
    places: dict[str, int]


class Attempt:
    """One login in progress."""

    __slots__ = (
        "address",
        "auth",
        "kind",
        "login",
        "minor",
        "name",
        "negotiation",
        "packet",
        "port",
        "raw",
        "request",
        "started",
        "tls",
        "waited",
    )

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.kind = "tcp"
        self.address = ""
        self.port = 0
        self.tls: TlsLayer | None = None
        self.packet: StartupPacket | None = None
        self.request: StartupRequest | None = None
        self.login: Login | None = None
        self.auth: ClientAuth | None = None
        self.minor = 0
        #: the login's name, without a tenant's suffix
        self.name = ""
        #: NegotiateProtocolVersion, sent with the first answer
        self.negotiation = b""
        #: the raw packet, by which admissions are remembered
        self.raw = b""
        #: for the tenant to be moved
        self.waited = False


class Logins:
    """All logins in progress of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._attempts: dict[int, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._moving = Moving(worker, self._attempts, self._authenticated, self.refuse)
        #: what connections with TLS (True) or without got before by these packets; emptied by a reload
        self._admissions: dict[tuple[bool, bytes], Admission] = {}
        #: figures
        self.succeeded = 0
        self.failed: Counter[str] = Counter()
        self.time_us = 0

    # --- first packets --------------------------------------------------------

    def on_startup(self, client: int, data: bytes) -> None:
        """An untyped packet, whole; or, for direct TLS, the first of its records."""
        attempt = self._attempts.get(client)
        if attempt is None:
            attempt = self._attempts[client] = Attempt()
            self._look_at_socket(client, attempt)
        try:
            if attempt.tls is None and data[0] == 0x16:
                self._start_tls(client, attempt, data)
                return
            known = self._admissions.get((attempt.tls is not None, data))
            packet = messages.read_startup(data) if known is None else known.packet
            self._on_packet(client, attempt, packet, data)
        except ClientProtocolError as error:
            self.refuse(client, errors.protocol_violation(str(error)))
        except ProxyError as error:
            self.refuse(client, error)

    def _look_at_socket(self, client: int, attempt: Attempt) -> None:
        engine = self._worker.engine
        if engine.is_local(client):
            attempt.kind = "local"
        else:
            attempt.tls = engine.tls_of(client)
            attempt.address, attempt.port = engine.address(client, True)

    def _on_packet(self, client: int, attempt: Attempt, packet: StartupPacket, data: bytes) -> None:
        engine = self._worker.engine
        if packet.code == messages.CANCEL_REQUEST:
            self._worker.cancels.on_request(packet.pid, packet.key, data, client, plain=attempt.tls is None)
            return
        if packet.code == messages.SSL_REQUEST and attempt.tls is None:
            # the engine answers it where there is no TLS
            engine.client_send(client, b"S")
            self._start_tls(client, attempt, b"")
            return
        if packet.major != 3:
            raise ProxyError(
                "0A000",
                f"unsupported frontend protocol {packet.major}.{packet.minor}: "
                f"server supports 3.0 to 3.{messages.NEWEST_MINOR}",
                severity="FATAL",
                reason="protocol_version",
            )
        if self._worker.hand_over(client, attempt, packet, data):
            self._attempts.pop(client, None)
            return
        attempt.raw = data
        self._begin(client, attempt, packet)

    def _start_tls(self, client: int, attempt: Attempt, first_records: bytes) -> None:
        context = self._worker.state.client_tls
        engine = self._worker.engine
        if context is None or attempt.kind == "local":
            # what a server without TLS does with a ClientHello: it is no startup packet
            engine.client_end(client, Reason.PROTOCOL)
            return

        def established(layer: TlsLayer) -> None:
            if first_records and layer.alpn != ALPN:
                raise ssl.SSLError("direct TLS without ALPN protocol postgresql")

        layer = TlsLayer(context, server_side=True, on_established=established)
        engine.use_tls(client, layer)
        # the login begins with the first packet in it, perhaps compiled
        del self._attempts[client]
        if first_records:
            try:
                layer.feed(first_records)
            except ssl.SSLError:
                engine.client_end(client, Reason.PROTOCOL)
                return
            engine.write_raw(client, layer.take_out())

    # --- authentication ---------------------------------------------------------

    def _begin(self, client: int, attempt: Attempt, packet: StartupPacket) -> None:
        worker, state = self._worker, self._worker.state
        attempt.packet = packet
        attempt.minor = min(packet.minor, messages.NEWEST_MINOR)
        if packet.minor > messages.NEWEST_MINOR or packet.extensions:
            attempt.negotiation = messages.negotiate_protocol(attempt.minor, packet.extensions)
        if worker.draining:
            raise errors.draining()
        _, logins, _ = worker.engine.open_counts()
        limits = state.config.limits
        if logins > limits.max_logins_in_progress and not worker.engine.end_slow_logins(SLOW_LOGIN_US):
            raise errors.too_many_connections("limits.max_logins_in_progress", limits.max_logins_in_progress)
        if state.config.listen.tls.mode == "require" and attempt.tls is None and attempt.kind != "local":
            raise errors.tls_required()
        method = self._identify(client, attempt, packet)
        assert attempt.request is not None
        cluster = state.registry.auth_query_cluster(attempt.request) if attempt.login is None else None
        if cluster is not None:
            self._later(client, self._ask_server(client, attempt, method, attempt.name, cluster))
            return
        self._start_auth(client, attempt, method, attempt.name, state.secrets.get(attempt.name))

    def _identify(self, client: int, attempt: Attempt, packet: StartupPacket) -> str:
        """Who wants to log in; returns the method by which."""
        state = self._worker.state
        engine = self._worker.engine
        known = self._admissions.get((attempt.tls is not None, attempt.raw))
        if known is not None:
            request, name, attempt.login = known.request, known.name, known.login
        else:
            request = self._request(attempt, packet)
            name = state.registry.login_name(request)
            attempt.login = state.registry.logins.get(name)
        attempt.request = request
        attempt.name = name
        rule = state.rules.match(
            kind=attempt.kind,
            tls=attempt.tls is not None,
            address=attempt.address,
            user=name,
            database=request.database,
            local_address=engine.address(client, False)[0] if state.samehost_rules else "",
        )
        shown = attempt.address or "[local]"
        if rule is None:
            raise errors.no_auth_rule(request.user, request.database, shown, attempt.tls is not None)
        if rule.method == "reject":
            raise errors.auth_rejected(request.user, request.database, shown)
        engine.client_login(client)
        return rule.method

    def _request(self, attempt: Attempt, packet: StartupPacket) -> StartupRequest:
        parameters = packet.parameters
        user = parameters.get("user", "")
        if not user:
            raise errors.no_user_name()
        cn: str | None = None
        names: tuple[str, ...] = ()
        if attempt.tls is not None:
            cn, names = attempt.tls.peer_names()
        return StartupRequest(
            user=user,
            database=parameters.get("database") or user,
            settings=request_settings(parameters),
            replication=parameters.get("replication"),
            address=attempt.address,
            tls=attempt.tls is not None,
            sni=attempt.tls.sni if attempt.tls is not None else None,
            cert_cn=cn,
            cert_names=names,
            minor=attempt.minor,
        )

    def _start_auth(
        self, client: int, attempt: Attempt, method: str, name: str, secret: Secret | None
    ) -> None:
        attempt.auth = self._new_auth(attempt, method, name, secret, None)
        first = attempt.auth.start()
        if attempt.auth.done:
            self._authenticated(client, attempt, b"")
        else:
            self._worker.engine.client_send(client, attempt.negotiation + first)
            attempt.negotiation = b""

    def _new_auth(
        self, attempt: Attempt, method: str, name: str, secret: Secret | None, nonce: bytes | None
    ) -> ClientAuth:
        state = self._worker.state
        request = attempt.request
        assert request is not None
        tls = None
        if attempt.tls is not None:
            tls = TlsInfo(state.end_point, request.cert_cn, request.cert_names)
        return ClientAuth(
            method,
            name,
            secret,
            tls=tls,
            mock_key=state.mock_key,
            mock_iterations=state.config.auth.scram_iterations,
            mock_kind=state.mock_kind,
            startup_user=request.user,
            database=request.database,
            address=attempt.address,
            defer=True,
            nonce=nonce,
            previous=state.previous.get(name) if secret is state.secrets.get(name) else None,
            tokens=state.tokens,
        )

    def on_entry(self, client: int, packet: bytes, first: bytes, nonce: bytes, body: bytes) -> None:
        """The compiled login gives up: all that it has been told, and the message that it could not answer.

        `first` and `nonce` are those of the SCRAM exchange, if it has begun.
        """
        attempt = self._attempts[client] = Attempt()
        self._look_at_socket(client, attempt)
        attempt.raw = packet
        attempt.packet = messages.read_startup(packet)
        attempt.minor = attempt.packet.minor
        try:
            method = self._identify(client, attempt, attempt.packet)
            assert attempt.request is not None
            secret = self._worker.state.secrets.get(attempt.name)
            attempt.auth = auth = self._new_auth(attempt, method, attempt.name, secret, nonce or None)
            auth.start()
            if method != METHOD:
                # a reload has come in between
                raise errors.authentication_failed(attempt.request.user)
            if first:
                auth.on_message(first)
                if auth.deferred is not None:
                    raise errors.authentication_failed(attempt.request.user)
        except ProxyError as error:
            self.refuse(client, error)
            return
        self.on_message(client, body)

    def on_message(self, client: int, body: bytes) -> None:
        """Body of a 'p' message."""
        attempt = self._attempts.get(client)
        if attempt is None or attempt.auth is None:
            self.refuse(client, errors.protocol_violation("unexpected password message"))
            return
        try:
            reply = attempt.auth.on_message(body)
            if attempt.auth.deferred is not None:
                self._later(client, self._derive(client, attempt, attempt.auth.deferred))
                return
            self._go_on(client, attempt, reply)
        except ProxyError as error:
            self.refuse(client, error)

    def _go_on(self, client: int, attempt: Attempt, reply: bytes) -> None:
        assert attempt.auth is not None
        if attempt.auth.done:
            self._authenticated(client, attempt, reply)
        elif reply:
            self._worker.engine.client_send(client, reply)

    # --- what takes time ----------------------------------------------------------

    def _later(self, client: int, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine for a client whose messages stay unread meanwhile."""
        self._worker.engine.client_hold(client, True)
        task = asyncio.get_running_loop().create_task(self._guarded(client, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, client: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ProxyError as error:
            self.refuse(client, error)
        except Exception:
            self._worker.on_bug(client)
        finally:
            self._worker.engine.client_hold(client, False)
            self._worker.engine.poke()

    async def _derive(self, client: int, attempt: Attempt, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(None, work)
        if client in self._attempts and attempt.auth is not None:
            self._go_on(client, attempt, attempt.auth.resume())

    async def _ask_server(
        self, client: int, attempt: Attempt, method: str, name: str, cluster: Cluster
    ) -> None:
        secret = await self._worker.users.look_up(cluster, name)
        if client in self._attempts:
            self._start_auth(client, attempt, method, name, secret)

    # --- in ------------------------------------------------------------------------

    def _authenticated(self, client: int, attempt: Attempt, reply: bytes) -> None:
        worker, request, auth = self._worker, attempt.request, attempt.auth
        assert request is not None
        assert auth is not None
        registry = worker.state.registry
        if auth.method == "jwt" and attempt.login is None:
            raise errors.authentication_failed(request.user)
        prelude = attempt.negotiation + reply + messages.AUTH_OK
        if registry.is_admin_database(request.database):
            self._enter_console(client, attempt, prelude)
            return
        tls = attempt.tls is not None
        admission = self._admissions.get((tls, attempt.raw))
        if admission is None:
            admission = self._admit(attempt, request)
            if admission.recurs:
                if len(self._admissions) >= MAX_ADMISSIONS:
                    self.forget()
                self._admissions[tls, attempt.raw] = admission
        tenant = admission.tenant
        _check_login(attempt, request)
        if auth.tenants is not None and tenant.name not in auth.tenants:
            raise errors.no_such_tenant(tenant.name, "of the token's tenants")
        if tenant.suspended is not None or tenant in worker.stopped:
            if self._moving.may_wait(attempt, tenant):
                self._later(client, self._moving.wait(client, attempt, reply, tenant.name))
                return
            raise errors.tenant_suspended(tenant.name, tenant.suspended or PAUSED)
        self._take_place(admission.places)
        pool = worker.pools.of(
            admission.route, auth.keys, replication=admission.replication, by_previous=auth.by_previous
        )
        session = Session(
            tenant=tenant.name,
            user=admission.user,
            database=admission.database,
            application_name=admission.application_name,
            tls=tls,
            prelude=prelude,
            places=admission.places,
            pool=pool,
            startup_id=admission.startup_id,
            minor=attempt.minor,
            address=attempt.address,
            port=attempt.port,
        )
        self._finished(client, attempt)
        engine = worker.engine
        engine.client_enter(
            client, pool.id, admission.startup_id, admission.settings_id, session, attempt.minor
        )
        welcome = pool.welcomes.get(admission.startup_id)
        if welcome is not None and not pool.session_mode:
            if admission.recurs and not auth.by_previous:
                shown = _with_name(welcome, admission.application_name)
                worker.entries.admitted(attempt.raw, admission, pool, shown, tls=tls)
            self._greet(client, session, welcome, 0)
        elif pool.shared and not worker.code.of(tenant.name).read:
            # what a login of its role would set is read with the tenant's code
            engine.client_hold(client, True)
            worker.code.when_read(tenant, lambda: self._want_server(client))
        else:
            engine.client_want_server(client)

    def _want_server(self, client: int) -> None:
        self._worker.engine.client_hold(client, False)
        self._worker.engine.client_want_server(client)

    def _admit(self, attempt: Attempt, request: StartupRequest) -> Admission:
        """Where a connection leads; ProxyError where it may not go."""
        worker = self._worker
        if attempt.login is not None:
            # a reload may have come since the startup packet
            attempt.login = worker.state.registry.logins.get(attempt.login.name)
            if attempt.login is None:
                raise errors.authentication_failed(request.user)
        route = worker.state.registry.route(request, attempt.login)
        tenant = route.tenant
        replication = wants_replication(request.replication)
        if replication and not (tenant.policy.allow_replication and tenant.pool.mode is PoolMode.SESSION):
            raise errors.replication_refused()
        settings = startup_settings(request, tenant, route.locked)
        if replication:
            assert request.replication is not None
            settings["replication"] = request.replication
        own: dict[str, str] = {}
        if tenant.pool.mode is PoolMode.TRANSACTION and "application_name" in settings:
            # not worth a server of its own: set on whatever server comes, if it is UTF-8
            own["application_name"] = settings.pop("application_name").encode(errors="replace").decode()
        assert attempt.packet is not None
        return Admission(
            packet=attempt.packet,
            request=request,
            name=attempt.name,
            login=attempt.login,
            tenant=tenant,
            route=route,
            startup_id=worker.settings.intern(settings),
            settings_id=worker.settings.intern(own),
            # no more of it is looked at, and each SHOW CLIENTS has it of all
            application_name=(own or request.settings).get("application_name", "")[:MAX_IDENTIFIER_BYTES],
            database=request.database,
            user=request.user,
            replication=replication,
            recurs=attempt.tls is None or (route.by_packet and not worker.state.config.listen.tls.client_ca),
            places=self._limits_of(tenant, attempt.login),
        )

    def forget(self) -> None:
        """A reload: what was admitted before may not be now."""
        self._admissions.clear()
        self._worker.engine.entry_forget()

    def forget_some(self, tenants: Set[str], logins: Set[str]) -> None:
        """… of these tenants, or by these logins."""
        for key, admission in list(self._admissions.items()):
            if admission.tenant.name in tenants or admission.name in logins:
                del self._admissions[key]
                self._worker.engine.entry_forget_packet(key[1])

    def _take_place(self, limits: Mapping[str, int]) -> None:
        """Counts one more client, over all workers, under these names; ProxyError (53300) at a limit."""
        reached = self._worker.budget.take_client(limits)
        if reached is not None:
            raise errors.too_many_connections(_LIMIT_NAMES[reached.partition(":")[0]], limits[reached])

    def _limits_of(self, tenant: TenantInfo | None, login: Login | None) -> dict[str, int]:
        """What a client is counted under, and how many there may be."""
        limits = {"clients": self._worker.state.config.limits.max_clients}
        if tenant is not None:
            limits[f"clients of tenant:{tenant.name}"] = tenant.max_clients
        if login is not None:
            limits[f"clients of user:{login.name}"] = login.max_clients
        return limits

    def _finished(self, client: int, attempt: Attempt) -> None:
        self._attempts.pop(client, None)
        self.succeeded += 1
        self.time_us += int((time.monotonic() - attempt.started) * 1e6)

    def on_greet(self, client: int, session: Session, info: ServerInfo) -> None:
        """A server is there for a client that waited for one to be greeted."""
        self._greet(client, session, tuple(info.parameters), info.pid)

    def greet_as(self, client: int, session: Session, parameters: tuple[bytes, ...]) -> None:
        """Greets with what a shared server says when it is the client's tenant's."""
        assert session.pool is not None
        session.pool.welcomes[session.startup_id] = parameters
        self._greet(client, session, parameters, 0)

    def _greet(self, client: int, session: Session, parameters: tuple[bytes, ...], pid: int) -> None:
        pool = session.pool
        assert pool is not None
        key = os.urandom(LONG_KEY_BYTES if session.minor >= 2 else 4)
        if not pool.session_mode or not pid:
            pid = self._worker.engine.next_pid()
            parameters = _with_name(parameters, session.application_name)
        greeting = b"".join(
            (session.prelude, *parameters, messages.backend_key_data(pid, key), messages.READY_IDLE)
        )
        session.prelude = b""
        session.cancel_key = (pid, key)
        self._worker.engine.client_greet(client, greeting, pid, key)
        if self._worker.state.config.log.connections:
            self.on_entered(client, session)

    def make_session(self, client: int, admission: Admission, pool: int, minor: int, tls: bool) -> Session:
        """What Python knows of a client that the compiled login has let in."""
        address, port = self._worker.engine.address(client, True)
        return Session(
            tenant=admission.tenant.name,
            user=admission.user,
            database=admission.database,
            application_name=admission.application_name,
            tls=tls,
            # its places are counted where it came in
            places={},
            pool=self._worker.pools.get(pool),
            startup_id=admission.startup_id,
            minor=minor,
            address=address,
            port=port,
        )

    def on_entered(self, client: int, session: Session) -> None:
        """Writes the line of a login."""
        log.info(
            "client connected",
            client=client,
            tenant=session.tenant,
            user=session.user,
            database=session.database,
            addr=session.address or "[local]",
            tls=session.tls,
        )

    def _enter_console(self, client: int, attempt: Attempt, prelude: bytes) -> None:
        request, login = attempt.request, attempt.login
        assert request is not None
        if login is None or not (login.admin or login.stats):
            raise errors.admin_refused(request.user, request.database)
        _check_login(attempt, request)
        limits = self._limits_of(None, login)
        self._take_place(limits)
        session = Session(
            tenant="",
            user=login.name,
            database=request.database,
            application_name=request.settings.get("application_name", ""),
            tls=attempt.tls is not None,
            address=attempt.address,
            port=attempt.port,
            admin=login.admin,
            places=limits,
        )
        self._finished(client, attempt)
        status = (
            ("server_version", "18.0 (tenant_proxy)"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
            ("application_name", session.application_name),
            ("is_superuser", "off"),
        )
        greeting = b"".join(messages.parameter_status(name, value) for name, value in status)
        self._worker.engine.client_admin(
            client,
            session,
            prelude
            + greeting
            + messages.backend_key_data(self._worker.engine.next_pid(), os.urandom(4))
            + messages.READY_IDLE,
        )

    # --- ends -------------------------------------------------------------------------

    def refuse(self, client: int, error: ProxyError) -> None:
        """Ends a login with an error."""
        attempt = self._attempts.pop(client, None)
        self.failed[error.reason] += 1
        error.severity = "FATAL"
        request = attempt.request if attempt is not None else None
        log.warning(
            "login failed",
            client=client,
            addr=(attempt.address or "[local]") if attempt is not None else "",
            user=request.user if request is not None else None,
            database=request.database if request is not None else None,
            sqlstate=error.sqlstate,
            reason=error.reason,
            error=error.message,
            detail=error.detail,
        )
        self._worker.count_error("", error)
        self._worker.engine.client_end(client, Reason.LOGIN_FAILED, error.to_message())

    def on_gone(self, client: int) -> None:
        self._attempts.pop(client, None)


def _check_login(attempt: Attempt, request: StartupRequest) -> None:
    """What may keep a login out although it has proved who it is."""
    login = attempt.login
    if login is None:
        return
    if login.expires_at is not None and time.time() >= login.expires_at:
        raise errors.login_expired(login.name)
    if not login.may_come_from(attempt.address):
        shown = attempt.address or "[local]"
        raise errors.no_auth_rule(request.user, request.database, shown, attempt.tls is not None)


def _with_name(parameters: tuple[bytes, ...], application_name: str) -> tuple[bytes, ...]:
    """In transaction mode the name is the client's own, not that of the server's log-in."""
    if not application_name.isascii() or not application_name.isprintable() or len(application_name) > 63:
        application_name = _as_server_shows(application_name, parameters)
    shown = messages.parameter_status("application_name", application_name)
    return tuple(shown if one[5:].startswith(b"application_name\0") else one for one in parameters)


def _as_server_shows(application_name: str, parameters: tuple[bytes, ...]) -> str:
    """What the server makes of a name: cut at NAMEDATALEN, then pg_clean_ascii (src/common/string.c), which
    writes other bytes than printable ASCII as \\xHH since PostgreSQL 16, and as ? before."""
    raw = application_name.encode("utf-8", "surrogateescape")[:63].decode("utf-8", "ignore").encode()
    version = next((one for one in parameters if one[5:].startswith(b"server_version\0")), b"")
    digits = re.match(rb"\d+", version[20:])
    major = int(digits[0]) if digits is not None else 0
    return "".join(
        chr(byte) if 32 <= byte <= 126 else f"\\x{byte:02x}" if major >= 16 else "?" for byte in raw
    )
