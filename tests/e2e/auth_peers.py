"""A PostgreSQL that knows every method, raw logins to it, and a server that only authenticates."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from tenant_proxy.auth.client_auth import ClientAuth
from tenant_proxy.auth.server_auth import ServerAuth
from tenant_proxy.auth.tls import TlsInfo, server_end_point
from tenant_proxy.devel.postgres import Server, TlsFiles
from tenant_proxy.errors import ProxyError

PASSWORD = "it's a secret, Ⅸ"
#: user -> method that it is asked for; all others do SCRAM
METHODS = {"trusted": "trust", "md5_user": "md5", "md5_rule": "md5", "cleartext": "password"}
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def hba_lines() -> list[str]:
    return [f"host all {user} 127.0.0.1/32 {method}" for user, method in METHODS.items()]


def make_certificate(directory: Path, name: str = "localhost", *, eddsa: bool = False) -> TlsFiles:
    """A self-signed one for a server on loopback."""
    key = ed25519.Ed25519PrivateKey.generate() if eddsa else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None if eddsa else hashes.SHA384())
    )
    cert_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key_file.chmod(0o600)
    return TlsFiles(cert_file, key_file)


# --- the proxy's side of a login to a server, over a socket ------------------------


class RawLogin:
    """One connection to a PostgreSQL: start, and messages by hand."""

    def __init__(self, server: Server, user: str, *, tls: bool = False) -> None:
        self.socket = socket.create_connection((server.host, server.port), timeout=10)
        self.end_point: bytes | None = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.socket.sendall(SSL_REQUEST)
            assert self.socket.recv(1) == b"S"
            self.socket = context.wrap_socket(self.socket)
            certificate = self.socket.getpeercert(binary_form=True)
            assert certificate is not None
            self.end_point = server_end_point(certificate)
        self.stream = self.socket.makefile("rb")
        body = struct.pack("!i", 196608) + f"user\0{user}\0database\0postgres\0\0".encode()
        self.send(struct.pack("!i", len(body) + 4) + body)

    def __enter__(self) -> RawLogin:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stream.close()
        self.socket.close()

    def send(self, message: bytes) -> None:
        self.socket.sendall(message)

    def password(self, body: bytes) -> None:
        self.send(b"p" + struct.pack("!i", len(body) + 4) + body)

    def read(self) -> tuple[bytes, bytes]:
        """Type and body of the next message; of nothing at the end."""
        header = self.stream.read(5)
        if len(header) < 5:
            return b"", b""
        return header[:1], self.stream.read(struct.unpack("!i", header[1:])[0] - 4)

    def run(self, auth: ServerAuth) -> list[bytes]:
        """Types of what comes after AuthenticationOk; ServerError if the server refuses."""
        while not auth.done:
            kind, body = self.read()
            if kind == b"E":
                raise ServerError(body)
            assert kind == b"R"
            answer = auth.on_auth(body)
            if answer is not None:
                self.send(answer)
        kinds: list[bytes] = []
        while kinds[-1:] != [b"Z"]:
            kinds.append(self.read()[0])
            assert kinds[-1] not in (b"", b"E")
        return kinds


class ServerError(Exception):
    """An ErrorResponse."""

    def __init__(self, body: bytes) -> None:
        self.fields = {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}
        super().__init__(self.fields["M"])


# --- a server that only authenticates ----------------------------------------------


@dataclass
class AuthOnlyServer:
    """Runs `ClientAuth` for each connection that comes, then says ReadyForQuery and waits for the end."""

    make: Callable[[str, TlsInfo | None], ClientAuth]
    tls: ssl.SSLContext | None = None
    end_point: bytes | None = None
    port: int = 0
    #: of the logins that went well
    logins: list[ClientAuth] = field(default_factory=list)
    errors: list[ProxyError] = field(default_factory=list)

    async def on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls_info = None
        while True:
            (size,) = struct.unpack("!i", await reader.readexactly(4))
            body = await reader.readexactly(size - 4)
            (code,) = struct.unpack_from("!i", body)
            if code != 80877103:
                if code >> 16 == 3:
                    break
                writer.write(b"N")
            elif self.tls is None:
                writer.write(b"N")
            else:
                writer.write(b"S")
                await writer.start_tls(self.tls)
                tls_info = self._tls_info(writer)
        names = body[4:].rstrip(b"\0").decode().split("\0")
        parameters = dict(zip(names[::2], names[1::2], strict=True))
        auth = self.make(parameters["user"], tls_info)
        try:
            writer.write(auth.start())
            while not auth.done:
                kind = await reader.readexactly(1)
                assert kind == b"p"
                (size,) = struct.unpack("!i", await reader.readexactly(4))
                assert size - 4 <= auth.max_body_bytes
                reply = auth.on_message(await reader.readexactly(size - 4))
                if auth.deferred is not None:
                    await asyncio.get_running_loop().run_in_executor(None, auth.deferred)
                    reply = auth.resume()
                writer.write(reply)
        except ProxyError as error:
            self.errors.append(error)
            writer.write(error.to_message())
            await writer.drain()
            return
        self.logins.append(auth)
        status = b"".join(
            b"S" + struct.pack("!i", 4 + len(pair)) + pair
            for pair in (b"server_version\x0015.0\0", b"client_encoding\0UTF8\0", b"integer_datetimes\0on\0")
        )
        ready = b"K" + struct.pack("!iii", 12, 1, 1) + b"Z" + struct.pack("!i", 5) + b"I"
        writer.write(b"R" + struct.pack("!ii", 8, 0) + status + ready)
        await reader.read()

    def _tls_info(self, writer: asyncio.StreamWriter) -> TlsInfo:
        certificate = writer.get_extra_info("peercert") or {}
        names = [value for rdn in certificate.get("subject", ()) for key, value in rdn if key == "commonName"]
        return TlsInfo(self.end_point, cert_cn=names[0] if names else None)


@contextlib.asynccontextmanager
async def auth_only_server(
    make: Callable[[str, TlsInfo | None], ClientAuth],
    tls: TlsFiles | None = None,
    client_ca: Path | None = None,
) -> AsyncIterator[AuthOnlyServer]:
    server = AuthOnlyServer(make)
    if tls is not None:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(tls.cert, tls.key)
        if client_ca is not None:
            server.tls.load_verify_locations(client_ca)
            server.tls.verify_mode = ssl.CERT_OPTIONAL
        server.end_point = server_end_point(ssl.PEM_cert_to_DER_cert(tls.cert.read_text()))
    listener = await asyncio.start_server(server.on_client, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server
