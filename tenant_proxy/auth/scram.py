"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677) as PostgreSQL speaks them.

`ScramServer` and `ScramClient` are the two ends of one exchange, each called once
per message.  What PostgreSQL adds to the RFCs:

- the user name inside the messages is ignored, that of the startup packet counts;
- the one channel binding is tls-server-end-point;
- an unknown user gets a *mock* verifier and the whole exchange, and then fails.

A verifier holds neither the password nor ClientKey, but a client's proof gives its
ClientKey away to whoever has the verifier.  With that, and where the server has the
same verifier, the proxy logs in to the server as the client (`ScramKeys`).

Malformed messages of a client are 08P01 with PostgreSQL's texts (its auth-scram.c);
those of a server are `errors.server_login_failed`.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass, field
from typing import NoReturn, final

from tenant_proxy import errors
from tenant_proxy.auth.saslprep import prepare_password
from tenant_proxy.errors import ProxyError

MECHANISM = b"SCRAM-SHA-256"
MECHANISM_PLUS = b"SCRAM-SHA-256-PLUS"

KEY_BYTES = 32
SALT_BYTES = 16
#: random bytes of a nonce; 24 characters on the wire
NONCE_BYTES = 18
DEFAULT_ITERATIONS = 4096
#: bounds the work that a verifier or a server can ask for (about 3 s)
MAX_ITERATIONS = 10_000_000

_BINDING_HEADER = b"p=tls-server-end-point,,"
_PREFIX = "SCRAM-SHA-256$"
_PRINTABLE = bytes(code for code in range(0x21, 0x7F) if code != 0x2C)


@final
@dataclass(frozen=True, slots=True, repr=False)
class Verifier:
    """What a server keeps of a password; enough to check a login, not to make one."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes
    #: the part of every server-first-message that is the verifier's
    challenge: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "challenge", b",s=%b,i=%d" % (_b64(self.salt), self.iterations))

    def __repr__(self) -> str:
        return f"Verifier(iterations={self.iterations})"

    def __str__(self) -> str:
        """As in pg_authid.rolpassword; a secret."""
        salt, stored, server = (_b64(x).decode() for x in (self.salt, self.stored_key, self.server_key))
        return f"{_PREFIX}{self.iterations}:{salt}${stored}:{server}"


@final
@dataclass(frozen=True, slots=True, repr=False)
class ScramKeys:
    """What a client needs instead of a password, for servers with this salt and iteration count."""

    client_key: bytes
    server_key: bytes
    salt: bytes
    iterations: int

    def __repr__(self) -> str:
        return f"ScramKeys(iterations={self.iterations})"

    def verifier(self) -> Verifier:
        stored_key = hashlib.sha256(self.client_key).digest()
        return Verifier(self.iterations, self.salt, stored_key, self.server_key)


def derive_keys(password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """PBKDF2: slow on purpose, and without the GIL."""
    salted = hashlib.pbkdf2_hmac("sha256", prepare_password(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return ScramKeys(client_key, hmac.digest(salted, b"Server Key", "sha256"), salt, iterations)


def build_verifier(
    password: str, *, salt: bytes | None = None, iterations: int = DEFAULT_ITERATIONS
) -> Verifier:
    if salt is None:
        salt = os.urandom(SALT_BYTES)
    return derive_keys(password.encode(), salt, iterations).verifier()


def parse_verifier(text: str) -> Verifier:
    """`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`; ValueError if it is anything else."""
    head, _, keys = text.removeprefix(_PREFIX).partition("$")
    count, _, salt = head.partition(":")
    stored_key, _, server_key = keys.partition(":")
    if not text.startswith(_PREFIX) or not (count.isascii() and count.isdigit() and len(count) <= 8):
        raise ValueError("not a SCRAM-SHA-256 verifier")
    try:
        verifier = Verifier(int(count), _unb64(salt), _unb64(stored_key), _unb64(server_key))
    except ValueError:
        # the original says where, and shows what it read
        raise ValueError("not a SCRAM-SHA-256 verifier: invalid base64") from None
    if not 1 <= verifier.iterations <= MAX_ITERATIONS:
        raise ValueError(f"iterations of a SCRAM-SHA-256 verifier must be 1 to {MAX_ITERATIONS}")
    if not verifier.salt or len(verifier.stored_key) != KEY_BYTES or len(verifier.server_key) != KEY_BYTES:
        raise ValueError("not a SCRAM-SHA-256 verifier: a part has the wrong length")
    return verifier


def mock_salt(mock_key: bytes, user: str) -> bytes:
    """The same for a user at each try and in each process that has the key.

    Plain passwords' verifiers use it too, so that a user who exists has the salt
    that it would have if it didn't.
    """
    return hmac.digest(mock_key, user.encode("utf-8", "surrogateescape"), "sha256")[:SALT_BYTES]


def mock_verifier(mock_key: bytes, user: str, iterations: int = DEFAULT_ITERATIONS) -> Verifier:
    """For an exchange that is bound to fail: no proof fits keys of zeros."""
    return Verifier(iterations, mock_salt(mock_key, user), bytes(KEY_BYTES), bytes(KEY_BYTES))


# --- the server's end ------------------------------------------------------------


@final
class ScramServer:
    """One exchange with a client: `first`, then `final`.

    `binding` is the tls-server-end-point hash if the client chose the PLUS mechanism;
    `plus_offered` tells a client that could have chosen it from one that was deceived.
    `previous` is taken too; it has the salt and iterations of `verifier`.
    """

    __slots__ = (
        *("_binding", "_flag", "_messages", "_nonce", "_plus_offered", "_previous", "_verifier"),
        *("by_previous", "doomed", "keys"),
    )

    def __init__(
        self,
        verifier: Verifier,
        *,
        previous: Verifier | None = None,
        doomed: bool = False,
        binding: bytes | None = None,
        plus_offered: bool = False,
    ) -> None:
        self._verifier = verifier
        self._previous = previous
        #: the proof was one of `previous`
        self.by_previous = False
        self._binding = binding
        self._plus_offered = plus_offered
        self._flag = b""
        self._nonce = b""
        #: client-first-message-bare "," server-first-message ","
        self._messages = b""
        self.doomed = doomed
        #: the client's, once it has proved to have them
        self.keys: ScramKeys | None = None

    def first(self, message: bytes, *, nonce: bytes | None = None) -> bytes:
        """client-first-message -> server-first-message; `nonce` (24 characters) is one sent already."""
        parts = _split(message)
        flag = parts[0]
        self._check_flag(parts)
        if len(parts) < 3 or parts[1]:
            found = message[len(flag) + 1 : len(flag) + 2]
            if found == b"a":
                raise errors.scram_unsupported("client uses authorization identity, but it is not supported")
            _malformed(f'Unexpected attribute "{_show(found)}" in client-first-message.')
        if parts[2].startswith(b"m"):
            raise errors.scram_unsupported("client requires an unsupported SCRAM extension")
        _value(parts, 2, b"n")
        client_nonce = _value(parts, 3, b"r")
        if client_nonce.translate(None, _PRINTABLE):
            raise errors.protocol_violation("non-printable characters in SCRAM nonce")
        for index in range(4, _end(parts)):
            _any_attribute(parts, index)
        self._flag = flag
        self._nonce = client_nonce + (nonce or _b64(os.urandom(NONCE_BYTES)))
        reply = b"r=" + self._nonce + self._verifier.challenge
        self._messages = b"%b,%b," % (message[len(flag) + 2 :], reply)
        return reply

    def final(self, message: bytes) -> bytes | None:
        """client-final-message -> server-final-message, or None if the password is wrong."""
        parts = _split(message)
        self._check_binding(_value(parts, 0, b"c"))
        nonce = _value(parts, 1, b"r")
        index = 2
        while _any_attribute(parts, index) != b"p":
            index += 1
        try:
            proof = binascii.a2b_base64(parts[index][2:], strict_mode=True)
        except ValueError:
            proof = b""
        if len(proof) != KEY_BYTES:
            _malformed("Malformed proof in client-final-message.")
        if index + 1 != _end(parts):
            _malformed("Garbage found at the end of client-final-message.")
        if nonce != self._nonce:
            raise errors.protocol_violation("invalid SCRAM response", "Nonce does not match.")

        signed = self._messages + b",".join(parts[:index])
        reply = self._prove(self._verifier, signed, proof)
        if reply is None and self._previous is not None:
            reply = self._prove(self._previous, signed, proof)
            self.by_previous = reply is not None
        return reply

    def _prove(self, verifier: Verifier, signed: bytes, proof: bytes) -> bytes | None:
        client_key = _xor(proof, hmac.digest(verifier.stored_key, signed, "sha256"))
        # computed for doomed exchanges too, so that time tells nothing
        proved = hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key)
        signature = hmac.digest(verifier.server_key, signed, "sha256")
        if not proved or self.doomed:
            return None
        self.keys = ScramKeys(client_key, verifier.server_key, verifier.salt, verifier.iterations)
        return b"v=" + _b64(signature)

    def _check_flag(self, parts: list[bytes]) -> None:
        """The gs2-cbind-flag against the mechanism that the client chose."""
        flag = parts[0]
        kind = flag[:1]
        if kind == b"p":
            if self._binding is None:
                _malformed(
                    "The client selected SCRAM-SHA-256 without channel binding, "
                    "but the SCRAM message includes channel binding data."
                )
            binding_type = _value(parts, 0, b"p")
            if binding_type != b"tls-server-end-point":
                shown = "".join(chr(c) if 0x21 <= c <= 0x7E else "?" for c in binding_type[:30])
                raise errors.protocol_violation(f'unsupported SCRAM channel-binding type "{shown}"')
            return
        if kind not in (b"n", b"y"):
            _malformed(f'Unexpected channel-binding flag "{_found(parts, 0)}".')
        if self._binding is not None:
            _malformed(
                "The client selected SCRAM-SHA-256-PLUS, "
                "but the SCRAM message does not include channel binding data."
            )
        if kind == b"y" and self._plus_offered:
            raise errors.channel_binding_downgrade()
        if len(flag) != 1 or len(parts) == 1:
            _malformed(f'Comma expected, but found character "{_show(flag[1:2])}".')

    def _check_binding(self, value: bytes) -> None:
        """The c= attribute: the gs2 header again, and what the client saw of the TLS connection."""
        if self._binding is not None:
            if not hmac.compare_digest(value, _b64(_BINDING_HEADER + self._binding)):
                raise errors.channel_binding_failed()
        elif value != (b"biws" if self._flag == b"n" else b"eSws"):
            raise errors.protocol_violation(
                "unexpected SCRAM channel-binding attribute in client-final-message"
            )


def bound_to(binding: bytes) -> bytes:
    """How client-final-messages begin that are bound to a certificate by its tls-server-end-point hash."""
    return b"c=" + _b64(_BINDING_HEADER + binding) + b",r="


# --- the client's end ------------------------------------------------------------


@final
class ScramClient:
    """One exchange with a server: `first`, `challenge`, `final`, `verify`.

    `binding` is the tls-server-end-point hash of the server's certificate, if known;
    `plus` says whether the mechanism is the PLUS one.
    """

    __slots__ = ("_first_bare", "_header", "_keys", "_nonce", "_server_first", "_signed")

    def __init__(
        self, *, binding: bytes | None = None, plus: bool = False, nonce: bytes | None = None
    ) -> None:
        self._nonce = nonce or _b64(os.urandom(NONCE_BYTES))
        self._first_bare = b"n=,r=" + self._nonce
        # "y" tells a server that does offer PLUS that somebody removed it from the list
        if plus and binding is not None:
            self._header = (_BINDING_HEADER, binding)
        else:
            self._header = (b"n,," if binding is None else b"y,,", b"")
        self._server_first = b""
        self._signed = b""
        self._keys: ScramKeys | None = None

    def first(self) -> bytes:
        """-> client-first-message."""
        return self._header[0] + self._first_bare

    def challenge(self, message: bytes) -> tuple[bytes, int]:
        """server-first-message -> (salt, iterations) that the keys must be made for."""
        try:
            parts = _split(message)
            nonce = _value(parts, 0, b"r")
            salt = binascii.a2b_base64(_value(parts, 1, b"s"), strict_mode=True)
            count = _value(parts, 2, b"i")
        except ProxyError as error:
            raise _server_malformed(error.detail or error.message) from None
        except ValueError:
            raise _server_malformed("The salt is not base64.") from None
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise _server_malformed("The nonce does not match.")
        if len(parts) != 3:
            raise _server_malformed("There is garbage at the end of server-first-message.")
        if not salt:
            raise _server_malformed("The salt is empty.")
        if not (count.isdigit() and len(count) <= 8 and 1 <= int(count) <= MAX_ITERATIONS):
            raise _server_malformed(f"The iteration count is not within 1 to {MAX_ITERATIONS}.")
        self._nonce = nonce
        self._server_first = message
        return salt, int(count)

    def final(self, keys: ScramKeys) -> bytes:
        """-> client-final-message."""
        without_proof = b"c=%b,r=%b" % (_b64(b"".join(self._header)), self._nonce)
        self._signed = b"%b,%b,%b" % (self._first_bare, self._server_first, without_proof)
        self._keys = keys
        stored_key = hashlib.sha256(keys.client_key).digest()
        proof = _xor(keys.client_key, hmac.digest(stored_key, self._signed, "sha256"))
        return b"%b,p=%b" % (without_proof, _b64(proof))

    def verify(self, message: bytes) -> None:
        """server-final-message: proves that the server knows the verifier; ProxyError if it doesn't."""
        assert self._keys is not None
        parts = message.split(b",")
        if parts[0].startswith(b"e="):
            shown = "".join(chr(c) if 0x21 <= c <= 0x7E else "?" for c in parts[0][2:62])
            raise errors.server_login_failed(f"The server refused SCRAM authentication: {shown}.")
        try:
            signature = binascii.a2b_base64(_value(parts, 0, b"v"), strict_mode=True)
        except ProxyError as error:
            raise _server_malformed(error.detail or error.message) from None
        except ValueError:
            raise _server_malformed("The signature is not base64.") from None
        if len(parts) != 1:
            raise _server_malformed("There is garbage at the end of server-final-message.")
        if not hmac.compare_digest(signature, hmac.digest(self._keys.server_key, self._signed, "sha256")):
            raise errors.server_login_failed(
                "The server's SCRAM signature is wrong, so it does not know the password."
            )


# --- syntax ----------------------------------------------------------------------


def _split(message: bytes) -> list[bytes]:
    """The attributes of a message."""
    if not message:
        _malformed("The message is empty.")
    if 0 in message:
        _malformed("Message length does not match input length.")
    return message.split(b",")


def _value(parts: list[bytes], index: int, attribute: bytes) -> bytes:
    """The value of an attribute that must be at this place."""
    part = parts[index] if index < len(parts) else b""
    if part[:1] != attribute:
        _malformed(f'Expected attribute "{attribute.decode()}" but found "{_found(parts, index)}".')
    if part[1:2] != b"=":
        _malformed(f'Expected character "=" for attribute "{attribute.decode()}".')
    return part[2:]


def _any_attribute(parts: list[bytes], index: int) -> bytes:
    """The letter of an attribute, whichever it is."""
    if index >= _end(parts):
        _malformed("Attribute expected, but found end of string.")
    part = parts[index]
    letter = part[:1]
    if not letter.isalpha():
        _malformed(f'Attribute expected, but found invalid character "{_found(parts, index)}".')
    if part[1:2] != b"=":
        _malformed(f'Expected character "=" for attribute "{letter.decode()}".')
    return letter


def _end(parts: list[bytes]) -> int:
    """How many there are; PostgreSQL does not mind a comma after the last."""
    return len(parts) if parts[-1] else len(parts) - 1


def _found(parts: list[bytes], index: int) -> str:
    """The character at the start of an attribute, for errors; of an empty one the comma after it."""
    if index < len(parts) and parts[index]:
        return _show(parts[index][:1])
    return _show(b"," if index < len(parts) - 1 else b"")


def _malformed(detail: str) -> NoReturn:
    raise errors.protocol_violation("malformed SCRAM message", detail)


def _server_malformed(detail: str) -> ProxyError:
    return errors.server_login_failed(f"The server sent a malformed SCRAM message. {detail}")


def _show(char: bytes) -> str:
    code = char[0] if char else 0
    return f"'{chr(code)}'" if 0x21 <= code <= 0x7E else f"0x{code:02x}"


def _b64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)


def _unb64(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
