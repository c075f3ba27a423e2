"""The proxy as the client of an authentication exchange with a PostgreSQL server.

    auth = ServerAuth("app", password=secret, channel_binding=server_end_point(cert))
    while not auth.done:
        reply = auth.on_auth(body of the next 'R' message)
        if reply is not None:
            send(reply)

As libpq does, it answers whatever the server asks that it has an answer to, also in
the clear, unless `require` says otherwise.  A server that does not prove by its SCRAM
signature that it knows the password is refused.  Everything that goes wrong here is
`errors.server_login_failed`; the server's own ErrorResponse is the caller's to read.

PBKDF2 is needed for a plain password and a salt not seen before; with `defer=True` it
is left in `deferred` as in `ClientAuth`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from typing import final

from tenant_proxy.auth import verify
from tenant_proxy.auth.scram import MECHANISM, MECHANISM_PLUS, ScramClient, ScramKeys
from tenant_proxy.auth.secret import Secret, SecretKind
from tenant_proxy.errors import ProxyError, server_login_failed

OK = 0
CLEARTEXT = 3
MD5 = 5
SASL = 10
SASL_CONTINUE = 11
SASL_FINAL = 12

#: what `require` may name, as libpq's require_auth; "none": the server asks for nothing
REQUIREMENTS = frozenset({"password", "md5", "scram-sha-256", "none"})

#: longest AuthenticationXxx body that makes sense (libpq: 2000)
MAX_BODY_BYTES = 2000

_UNSUPPORTED = {2: "Kerberos V5", 4: "crypt", 6: "SCM credentials", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}
_INT32 = struct.Struct("!i")
_HEADER = struct.Struct("!ci")


@final
class ServerAuth:
    """One login to a server.

    `password` is a text or a `Secret` (which caches what PBKDF2 makes of it: keep one per
    login); an md5 hash answers md5 only.  `keys` are those that a client's own SCRAM login
    left: they answer SCRAM only, and only where the server's verifier is the proxy's.
    `channel_binding` is `tls.server_end_point` of the server's certificate, None without TLS.
    """

    __slots__ = (
        "_binding",
        "_defer",
        "_keys",
        "_plus",
        "_require",
        "_require_channel_binding",
        "_salt",
        "_scram",
        "_secret",
        "_state",
        "_user",
        "deferred",
        "done",
        "method",
    )

    def __init__(
        self,
        user: str,
        *,
        password: Secret | str | None = None,
        keys: ScramKeys | None = None,
        channel_binding: bytes | None = None,
        require: Collection[str] = (),
        require_channel_binding: bool = False,
        defer: bool = False,
    ) -> None:
        if isinstance(password, str):
            password = Secret.plain(password) if password else None
        if not REQUIREMENTS.issuperset(require):
            raise ValueError(f"require: must be of {', '.join(sorted(REQUIREMENTS))}")
        self._user = user
        self._secret = password
        self._keys = keys
        self._binding = channel_binding
        self._require = frozenset(require)
        self._require_channel_binding = require_channel_binding
        self._defer = defer
        self._scram: ScramClient | None = None
        self._plus = False
        self._salt = (b"", 0)
        #: the code of the message that must come next, -1 for any first one
        self._state = -1
        self.deferred: Callable[[], None] | None = None
        #: AuthenticationOk has come, and everything that had to be proved is
        self.done = False
        #: what the server asked for: "none", "password", "md5", "scram-sha-256"
        self.method = "none"

    def on_auth(self, body: bytes) -> bytes | None:
        """Body of an 'R' message -> complete 'p' message to send, or None; ProxyError if it fails."""
        if self.done or self.deferred is not None:
            raise server_login_failed("The server sent an authentication message out of turn.")
        if not 4 <= len(body) <= MAX_BODY_BYTES:
            raise server_login_failed("The server sent an authentication message of a wrong length.")
        code = _INT32.unpack_from(body)[0]
        data = body[4:]
        if code in _UNSUPPORTED:
            raise server_login_failed(
                f"The server asks for {_UNSUPPORTED[code]} authentication, which the proxy does not support."
            )
        if self._state == -1:
            if code in (OK, CLEARTEXT, MD5, SASL):
                return self._on_request(code, data)
        elif code == self._state:
            if code == SASL_CONTINUE:
                return self._on_challenge(data)
            if code == SASL_FINAL:
                self._on_final(data)
            else:
                self._on_ok(data)
            return None
        raise server_login_failed(f"The server sent authentication message {code} out of turn.")

    def resume(self) -> bytes:
        """What `on_auth` would have returned, once `deferred` has run."""
        self.deferred = None
        assert self._secret is not None
        return self._answer(self._secret.derive(*self._salt))

    # --- first message ---

    def _on_request(self, code: int, data: bytes) -> bytes | None:
        self.method = {OK: "none", CLEARTEXT: "password", MD5: "md5", SASL: "scram-sha-256"}[code]
        if self._require and self.method not in self._require:
            raise server_login_failed(
                f'The server asks for authentication method "{self.method}", '
                f"but only {', '.join(sorted(self._require))} is allowed."
            )
        if self._require_channel_binding and code != SASL:
            raise server_login_failed("Channel binding is required, but the server asks for no SCRAM.")
        if code == OK:
            self._on_ok(data)
            return None
        if code == SASL:
            return self._on_mechanisms(data)
        self._state = OK
        if code == CLEARTEXT:
            if data:
                raise _wrong_length()
            return _password_message(self._password("password"))
        if len(data) != 4:
            raise _wrong_length()
        stored = verify.stored_md5(self._secret, self._user)
        if stored is None:
            raise self._no_answer("md5")
        return _password_message(verify.md5_response(stored, data))

    def _on_ok(self, data: bytes) -> None:
        if data:
            raise _wrong_length()
        self.done = True

    # --- SASL ---

    def _on_mechanisms(self, data: bytes) -> bytes:
        names = data.split(b"\0")
        if len(names) < 3 or names[-1] or names[-2]:
            raise server_login_failed("The server sent a malformed list of SASL mechanisms.")
        self._plus = MECHANISM_PLUS in names and self._binding is not None
        if self._require_channel_binding and not self._plus:
            raise server_login_failed("Channel binding is required, but not offered by the server.")
        if not self._plus and MECHANISM not in names:
            raise server_login_failed("The server offers no SASL mechanism that the proxy supports.")
        if self._keys is None and (self._secret is None or self._secret.password is None):
            raise self._no_answer("scram-sha-256")
        # if PLUS is offered but cannot be used, "y" would wrongly accuse the server
        known = self._binding if self._plus or MECHANISM_PLUS not in names else None
        self._scram = ScramClient(binding=known, plus=self._plus)
        first = self._scram.first()
        mechanism = MECHANISM_PLUS if self._plus else MECHANISM
        self._state = SASL_CONTINUE
        return _message(mechanism + b"\0" + _INT32.pack(len(first)) + first)

    def _on_challenge(self, data: bytes) -> bytes | None:
        assert self._scram is not None
        salt, iterations = self._scram.challenge(data)
        self._state = SASL_FINAL
        if self._secret is not None and self._secret.password is not None:
            keys = self._secret.cached_keys(salt, iterations)
            if keys is None:
                self._salt = (salt, iterations)
                if self._defer:
                    self.deferred = self._derive
                    return None
                keys = self._secret.derive(salt, iterations)
            return self._answer(keys)
        assert self._keys is not None
        if (self._keys.salt, self._keys.iterations) != (salt, iterations):
            raise server_login_failed(
                f'The SCRAM verifier of user "{self._user}" on the server is not the one that the proxy has, '
                "so the client's own login cannot be passed on."
            )
        return self._answer(self._keys)

    def _derive(self) -> None:
        assert self._secret is not None
        self._secret.derive(*self._salt)

    def _answer(self, keys: ScramKeys) -> bytes:
        assert self._scram is not None
        return _message(self._scram.final(keys))

    def _on_final(self, data: bytes) -> None:
        assert self._scram is not None
        self._scram.verify(data)
        self._state = OK

    # --- what there is to answer with ---

    def _password(self, method: str) -> bytes:
        password = self._secret.password if self._secret is not None else None
        if password is None:
            raise self._no_answer(method)
        return password

    def _no_answer(self, method: str) -> ProxyError:
        if self._secret is not None:
            have = "an md5 hash" if self._secret.kind is SecretKind.MD5 else "a SCRAM verifier"
            have = f"the proxy has only {have}"
        elif self._keys is not None:
            have = "the proxy has only the SCRAM keys of the client's login"
        else:
            have = "the proxy has no password"
        return server_login_failed(
            f'The server asks for authentication method "{method}" of user "{self._user}", but {have}.'
        )


def _wrong_length() -> ProxyError:
    return server_login_failed("The server sent an authentication message of a wrong length.")


def _password_message(password: bytes) -> bytes:
    """PasswordMessage."""
    return _message(password + b"\0")


def _message(body: bytes) -> bytes:
    return _HEADER.pack(b"p", len(body) + 4) + body
