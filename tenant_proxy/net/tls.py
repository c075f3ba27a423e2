"""TLS as a layer over a link's bytes: OpenSSL through the standard library's memory BIOs.

The reactor gives received records to `feed` and sends what `take_out` and `seal` return.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Literal

from tenant_proxy.config.schema import ClientTls, ServerTls

#: ALPN protocol of PostgreSQL (docs 54.2.12, SSL Session Encryption)
ALPN = "postgresql"

#: what one record holds at most (RFC 8446, 5.1), and so what a read gives
READ_BYTES = 16384


class TlsLayer:
    """One TLS connection.  `on_established` is called once, when the handshake is complete."""

    __slots__ = ("_incoming", "_on_established", "_outgoing", "closed", "established", "ssl_object")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        on_established: Callable[[TlsLayer], None],
        server_hostname: str | None = None,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._on_established = on_established
        self.established = False
        self.closed = False

    def start(self) -> bytes:
        """A client's first records."""
        self._shake_hands()
        return self.take_out()

    def feed(self, data: bytes) -> bytes:
        """Received records -> plain bytes.  Raises ssl.SSLError."""
        incoming, read = self._incoming, self.ssl_object.read
        incoming.write(data)
        if not self.established and not self._shake_hands():
            return b""
        plain: list[bytes] = []
        try:
            while True:
                piece = read(READ_BYTES)
                if not piece:
                    self.closed = True
                    break
                plain.append(piece)
                # mostly one record is all there is; to be told so by an exception costs more than to read it
                if not incoming.pending and not self.ssl_object.pending():
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def seal(self, data: bytes) -> bytes:
        """Plain bytes -> records to send."""
        self.ssl_object.write(data)
        return self._outgoing.read()

    def close(self) -> None:
        """Makes close_notify, for `take_out`; nothing during the handshake.  Raises ssl.SSLError."""
        if not self.established:
            return
        try:
            self.ssl_object.unwrap()
        except ssl.SSLWantReadError:
            # the peer's own close_notify is not waited for
            pass

    def take_out(self) -> bytes:
        """Records that the layer itself has to send."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def _shake_hands(self) -> bool:
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.established = True
        self._on_established(self)
        return True

    # --- what the handshake told ---------------------------------------------

    @property
    def alpn(self) -> str | None:
        return self.ssl_object.selected_alpn_protocol()

    @property
    def sni(self) -> str | None:
        """The host name that the client asked for."""
        return getattr(self.ssl_object, "sni_name", None)

    def peer_names(self) -> tuple[str | None, tuple[str, ...]]:
        """Common name and alternative names of a verified peer's certificate."""
        certificate: dict[str, Any] = dict(self.ssl_object.getpeercert() or {})
        cn: str | None = None
        for part in certificate.get("subject", ()):
            for key, value in part:
                if key == "commonName":
                    cn = str(value)
        alternatives = certificate.get("subjectAltName", ())
        return cn, tuple(str(value) for kind, value in alternatives if kind != "IP Address")


def _note_sni(ssl_object: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    ssl_object.sni_name = name  # type: ignore[attr-defined]


def client_context(tls: ClientTls) -> ssl.SSLContext | None:
    """For connections from clients, None when TLS is off.  Raises OSError and ssl.SSLError."""
    if tls.mode == "disable" or tls.cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if tls.min_version == "TLSv1.3" else ssl.TLSVersion.TLSv1_2
    )
    # no sessions are resumed, as in PostgreSQL (src/backend/libpq/be-secure-openssl.c): drivers don't, and
    # tickets make a handshake dearer
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.load_cert_chain(tls.cert, tls.key)
    context.set_alpn_protocols([ALPN])
    context.sni_callback = _note_sni
    if tls.client_ca:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def server_context(tls: ServerTls) -> ssl.SSLContext | None:
    """For connections to servers, None when TLS is off.  Modes as libpq's sslmode."""
    if tls.mode == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = tls.mode == "verify-full"
    if tls.mode in ("verify-ca", "verify-full"):
        context.verify_mode = ssl.CERT_REQUIRED
        if tls.ca:
            context.load_verify_locations(tls.ca)
        else:
            context.load_default_certs()
    else:
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    context.set_alpn_protocols([ALPN])
    return context


def asyncpg_ssl(tls: ServerTls) -> ssl.SSLContext | Literal["prefer", False]:
    """The same for asyncpg, as its argument `ssl`; it knows itself how to prefer."""
    return "prefer" if tls.mode == "prefer" else server_context(tls) or False
