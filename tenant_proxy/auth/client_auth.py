"""The proxy as the server of an authentication exchange with a client.

    auth = ClientAuth(rule.method, user, secret, tls=tls, mock_key=key)
    send(auth.start())
    while not auth.done:
        send(auth.on_message(next body of a 'p' message))
    # log in succeeded; the caller routes, and writes AuthenticationOk itself

A refusal is a `ProxyError`.  A user without a secret gets the same messages as one
with a wrong password, and the same salt at each try.

PBKDF2 (for `password` against a SCRAM verifier, and once per plain password that has
not been derived yet) runs inside `on_message` unless `defer=True`.  Then, when
`on_message` has left something in `deferred`, the caller runs that in a thread, and
`resume()` returns what `on_message` would have returned:

    reply = auth.on_message(body)
    if auth.deferred is not None:
        await loop.run_in_executor(None, auth.deferred)
        reply = auth.resume()

`METHODS` is the table of methods; another one is another `Exchange`.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from tenant_proxy import errors
from tenant_proxy.auth import scram, verify
from tenant_proxy.auth.scram import MECHANISM, MECHANISM_PLUS, ScramKeys, ScramServer, Verifier
from tenant_proxy.auth.secret import Secret, SecretKind
from tenant_proxy.auth.tls import TlsInfo

if TYPE_CHECKING:
    # takes a while to import, and few use it
    from tenant_proxy.auth.jwt import LoginTokens

#: longest body of a PasswordMessage (PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH), and so of any 'p' message
MAX_BODY_BYTES = 65535
#: longest body of a SASL message (PG_MAX_SASL_MESSAGE_LENGTH)
MAX_SASL_BYTES = 1024

_CLEARTEXT = struct.pack("!cii", b"R", 8, 3)
_SASL_CONTINUE = 11
_SASL_FINAL = 12
_HEADER = struct.Struct("!cii")
_INT32 = struct.Struct("!i")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Everything that a method may want to know of one login."""

    user: str
    #: the user as the startup packet has it: what the client hashes into md5, and what errors name
    startup_user: str
    secret: Secret | None
    tls: TlsInfo | None
    mock_key: bytes
    mock_iterations: int
    mock_kind: SecretKind
    defer: bool
    database: str
    address: str
    nonce: bytes | None = None
    #: a verifier that is being replaced
    previous: Secret | None = None
    #: of method jwt
    tokens: LoginTokens | None = None


class Exchange:
    """One method's part of a login; a subclass is what `METHODS` names."""

    #: longest body that `on_message` may get
    max_body_bytes = MAX_BODY_BYTES

    __slots__ = ("attempt", "by_previous", "deferred", "done", "keys", "tenants")

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.done = False
        self.by_previous = False
        self.keys: ScramKeys | None = None
        self.tenants: frozenset[str] | None = None
        self.deferred: Callable[[], None] | None = None

    def start(self) -> bytes:
        raise NotImplementedError

    def on_message(self, body: bytes) -> bytes:
        raise errors.protocol_violation("unexpected password message")

    def resume(self) -> bytes:
        """Goes on after `deferred` has run."""
        raise NotImplementedError

    def failed(self) -> errors.ProxyError:
        return errors.authentication_failed(self.attempt.startup_user)


@final
class ClientAuth:
    """One login by one method; see the module's text for how to drive it.

    `mock_key` is a secret of the installation, the same in all workers; unknown users'
    salts are made of it.  `mock_iterations` should be what most verifiers have, and
    `mock_kind` the kind of secret that unknown users seem to have (it matters to the
    method md5, which is SCRAM for users with a SCRAM verifier, as in PostgreSQL).
    `startup_user` is the name in the startup packet if that differs from `user`.
    `nonce` is the server's part of SCRAM's nonce, of an exchange that began elsewhere.
    `previous` is a SCRAM verifier that is being replaced: its password is taken too.
    `tokens` checks those of the method jwt.
    """

    __slots__ = ("_exchange", "_failed", "method")

    def __init__(
        self,
        method: str,
        user: str,
        secret: Secret | None,
        *,
        tls: TlsInfo | None = None,
        mock_key: bytes,
        mock_iterations: int = scram.DEFAULT_ITERATIONS,
        mock_kind: SecretKind = SecretKind.PLAIN,
        startup_user: str | None = None,
        database: str = "",
        address: str = "",
        defer: bool = False,
        nonce: bytes | None = None,
        previous: Secret | None = None,
        tokens: LoginTokens | None = None,
    ) -> None:
        self.method = method
        self._failed = False
        self._exchange = METHODS[method](
            Attempt(
                user=user,
                startup_user=user if startup_user is None else startup_user,
                secret=secret,
                tls=tls,
                mock_key=mock_key,
                mock_iterations=mock_iterations,
                mock_kind=mock_kind,
                defer=defer,
                database=database,
                address=address,
                nonce=nonce,
                previous=previous,
                tokens=tokens,
            )
        )

    @property
    def done(self) -> bool:
        """The client is who it says it is."""
        return self._exchange.done

    @property
    def by_previous(self) -> bool:
        """It was the password that is being replaced."""
        return self._exchange.by_previous

    @property
    def keys(self) -> ScramKeys | None:
        """What the exchange left for SCRAM pass-through: only when done, by SCRAM or a SCRAM verifier."""
        return self._exchange.keys

    @property
    def tenants(self) -> frozenset[str] | None:
        """The tenants that it has shown a right to; None: whichever the login has."""
        return self._exchange.tenants

    @property
    def deferred(self) -> Callable[[], None] | None:
        """Work for a thread; only with `defer=True`."""
        return self._exchange.deferred

    @property
    def max_body_bytes(self) -> int:
        """A 'p' message with a longer body need not be read: `on_message` would refuse it."""
        return self._exchange.max_body_bytes

    def start(self) -> bytes:
        """The first AuthenticationXxx message, b"" if nothing is asked; ProxyError if the login ends here."""
        try:
            return self._exchange.start()
        except errors.ProxyError:
            self._failed = True
            raise

    def on_message(self, body: bytes) -> bytes:
        """Body of a 'p' message -> message to send, b"" if none; ProxyError if the login has failed."""
        exchange = self._exchange
        if self._failed or exchange.done or exchange.deferred is not None:
            raise errors.protocol_violation("unexpected password message")
        try:
            if len(body) > exchange.max_body_bytes:
                raise errors.protocol_violation("invalid message length")
            return exchange.on_message(body)
        except errors.ProxyError:
            self._failed = True
            raise

    def resume(self) -> bytes:
        """What `on_message` would have returned or raised, once `deferred` has run."""
        exchange = self._exchange
        exchange.deferred = None
        try:
            return exchange.resume()
        except errors.ProxyError:
            self._failed = True
            raise


# --- the methods -----------------------------------------------------------------


class Scram(Exchange):
    """AuthenticationSASL, SASLContinue, SASLFinal."""

    max_body_bytes = MAX_SASL_BYTES

    __slots__ = ("_derived", "_first", "_mechanism", "_server")

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(attempt)
        self._mechanism = b""
        #: client-first-message that waits for the keys of a plain password
        self._first = b""
        self._derived: Verifier | None = None
        self._server: ScramServer | None = None

    def start(self) -> bytes:
        return _SASL_PLUS if self._end_point() is not None else _SASL

    def on_message(self, body: bytes) -> bytes:
        if self._server is not None:
            reply = self._server.final(body)
            if reply is None:
                raise self.failed()
            self.keys = self._server.keys
            self.by_previous = self._server.by_previous
            self.done = True
            return _authentication(_SASL_FINAL, reply)

        message = body if self._mechanism else self._initial_response(body)
        if message is None:
            # no initial response: an empty challenge asks for it
            return _authentication(_SASL_CONTINUE, b"")
        attempt = self.attempt
        secret = attempt.secret
        if secret is not None and secret.kind is SecretKind.PLAIN:
            # the salt that an unknown user of this name would have
            salt = scram.mock_salt(attempt.mock_key, attempt.user)
            verifier = secret.cached_verifier(salt, attempt.mock_iterations)
            if verifier is None:
                self._first = message
                if attempt.defer:
                    self.deferred = self._derive
                    return b""
                self._derive()
                return self.resume()
            return self._challenge(message, verifier)
        return self._challenge(message, secret.verifier if secret is not None else None)

    def resume(self) -> bytes:
        return self._challenge(self._first, self._derived)

    def _derive(self) -> None:
        attempt = self.attempt
        assert attempt.secret is not None
        salt = scram.mock_salt(attempt.mock_key, attempt.user)
        self._derived = attempt.secret.derive(salt, attempt.mock_iterations).verifier()

    def _challenge(self, message: bytes, verifier: Verifier | None) -> bytes:
        attempt = self.attempt
        end_point = self._end_point()
        server = ScramServer(
            verifier or scram.mock_verifier(attempt.mock_key, attempt.user, attempt.mock_iterations),
            previous=attempt.previous.verifier if verifier is not None and attempt.previous else None,
            doomed=verifier is None,
            binding=end_point if self._mechanism == MECHANISM_PLUS else None,
            plus_offered=end_point is not None,
        )
        reply = server.first(message, nonce=attempt.nonce)
        self._server = server
        return _authentication(_SASL_CONTINUE, reply)

    def _initial_response(self, body: bytes) -> bytes | None:
        """SASLInitialResponse: the mechanism, and the first message if there is one."""
        mechanism, terminator, rest = body.partition(b"\0")
        if not terminator:
            raise errors.protocol_violation("invalid string in message")
        if len(rest) < 4:
            raise errors.protocol_violation("insufficient data left in message")
        size = _INT32.unpack_from(rest)[0]
        message = rest[4:]
        if mechanism != MECHANISM and (mechanism != MECHANISM_PLUS or self._end_point() is None):
            raise errors.protocol_violation("client selected an invalid SASL authentication mechanism")
        if size == -1:
            if message:
                raise errors.protocol_violation("invalid message format")
            self._mechanism = mechanism
            return None
        if size != len(message):
            short = size < 0 or size > len(message)
            raise errors.protocol_violation(
                "insufficient data left in message" if short else "invalid message format"
            )
        self._mechanism = mechanism
        return message

    def _end_point(self) -> bytes | None:
        tls = self.attempt.tls
        return None if tls is None else tls.end_point


class Md5(Exchange):
    """AuthenticationMD5Password: against a plain password or an md5 hash."""

    __slots__ = ("_salt",)

    def start(self) -> bytes:
        self._salt = os.urandom(4)
        return _authentication(5, self._salt)

    def on_message(self, body: bytes) -> bytes:
        attempt = self.attempt
        response = _password(body)
        if not verify.check_md5(response, self._salt, attempt.secret, attempt.startup_user):
            raise self.failed()
        self.done = True
        return b""


class Cleartext(Exchange):
    """AuthenticationCleartextPassword: against a secret of any kind."""

    __slots__ = ("_checked", "_response")

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(attempt)
        self._response = b""
        self._checked = verify.Checked(ok=False)

    def start(self) -> bytes:
        return _CLEARTEXT

    def on_message(self, body: bytes) -> bytes:
        attempt = self.attempt
        self._response = _password(body)
        if verify.check_cleartext_fast(self._response, attempt.secret, attempt.user):
            self._checked = verify.Checked(ok=True)
        elif attempt.defer:
            self.deferred = self._check
            return b""
        else:
            self._check()
        return self.resume()

    def resume(self) -> bytes:
        self._response = b""
        if not self._checked.ok:
            raise self.failed()
        self.keys = self._checked.keys
        self.by_previous = self._checked.by_previous
        self.done = True
        return b""

    def _check(self) -> None:
        attempt = self.attempt
        self._checked = verify.check_cleartext(
            self._response,
            attempt.secret,
            attempt.user,
            salt=scram.mock_salt(attempt.mock_key, attempt.user),
            iterations=attempt.mock_iterations,
            previous=attempt.previous,
        )


class Certificate(Exchange):
    """The common name of the client's TLS certificate is the user, as PostgreSQL has it without a map."""

    __slots__ = ()

    def start(self) -> bytes:
        attempt = self.attempt
        if attempt.tls is None or attempt.tls.cert_cn is None:
            raise errors.certificate_required()
        name = attempt.tls.cert_cn.encode("utf-8", "surrogateescape")
        if not name or not hmac.compare_digest(name, attempt.user.encode("utf-8", "surrogateescape")):
            raise errors.certificate_failed(attempt.startup_user)
        self.done = True
        return b""


class Trust(Exchange):
    """Nothing is asked: whether the user exists is the caller's to see."""

    __slots__ = ()

    def start(self) -> bytes:
        self.done = True
        return b""


class Reject(Exchange):
    """A rule that says no."""

    __slots__ = ()

    def start(self) -> bytes:
        attempt = self.attempt
        raise errors.auth_rejected(attempt.startup_user, attempt.database, attempt.address)


class Token(Exchange):
    """AuthenticationCleartextPassword, and a JSON Web Token for an answer."""

    __slots__ = ()

    def start(self) -> bytes:
        return _CLEARTEXT

    def on_message(self, body: bytes) -> bytes:
        token, tokens = _password(body), self.attempt.tokens
        try:
            claims = tokens.check(token) if tokens is not None else None
        except ValueError:
            raise self.failed() from None
        if claims is None or claims.login != self.attempt.user:
            raise self.failed()
        self.tenants = claims.tenants
        self.done = True
        return b""


def _md5_or_scram(attempt: Attempt) -> Exchange:
    """Rule method md5: SCRAM where the secret is a SCRAM verifier, as PostgreSQL does."""
    kind = attempt.mock_kind if attempt.secret is None else attempt.secret.kind
    return Scram(attempt) if kind is SecretKind.SCRAM else Md5(attempt)


#: rule method -> what carries it out
METHODS: dict[str, Callable[[Attempt], Exchange]] = {
    "scram-sha-256": Scram,
    "md5": _md5_or_scram,
    "password": Cleartext,
    "jwt": Token,
    "cert": Certificate,
    "trust": Trust,
    "reject": Reject,
}


# --- messages (docs 55.7) --------------------------------------------------------


def _authentication(code: int, data: bytes) -> bytes:
    """AuthenticationXxx."""
    return _HEADER.pack(b"R", 8 + len(data), code) + data


_SASL = _authentication(10, MECHANISM + b"\0\0")
_SASL_PLUS = _authentication(10, MECHANISM_PLUS + b"\0" + MECHANISM + b"\0\0")


def _password(body: bytes) -> bytes:
    """PasswordMessage: one string that fills the body."""
    if body.find(b"\0") != len(body) - 1 or not body:
        raise errors.protocol_violation("invalid password packet size")
    if len(body) == 1:
        raise errors.empty_password()
    return body[:-1]
