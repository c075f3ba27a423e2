"""Workers without servers, for what clients say until they are logged in; the compiled login may be off.

What is random in the answers is masked, so that both can be compared.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from tenant_proxy import shm
from tenant_proxy.auth import scram
from tenant_proxy.config.load import load_text
from tenant_proxy.config.transport import to_transport
from tenant_proxy.obs.log import get_logger
from tenant_proxy.pool.budget import AWAKE
from tenant_proxy.relay.core import Reason
from tenant_proxy.wire import messages
from tenant_proxy.worker import Worker
from tests.protocol.rig import TERMINATE, End, message, split

PASSWORD = "wonderland"
SALT = b"0123456789abcdef"
KEYS = scram.derive_keys(PASSWORD.encode(), SALT, 4096)
VERIFIER = str(KEYS.verifier())

CONFIG = f"""
listen: {{port: 6432}}
clusters: [{{name: main, host: 127.0.0.1, port: 1, database: app}}]
tenants: [{{name: acme}}, {{name: beta}}]
users:
  - {{name: acme_app, tenant: acme, verifier: {{value: "{VERIFIER}"}}}}
  - {{name: few, tenant: acme, verifier: {{value: "{VERIFIER}"}}, max_clients: 5}}
  - {{name: both, tenants: [acme, beta], verifier: {{value: "{VERIFIER}"}}}}
mapping: [login, user_suffix, database]
pool: {{mode: transaction}}
log: {{level: error}}
"""

WELCOME = (
    messages.parameter_status("server_version", "17.4"),
    messages.parameter_status("application_name", "server's"),
)


class OneWorker:
    """A worker whose loop is the test, and whose pools have a welcome without any server."""

    def __init__(self, *, compiled: bool, slot: int = 0, workers: int = 1, text: str = CONFIG) -> None:
        self._run: Callable[[], None] | None = None
        self._sockets: list[socket.socket] = []
        self.counters = shm.SharedCounters()
        names = [
            "cluster:main", "tenant:acme", "tenant:beta", "clients", "clients of tenant:acme",
            "clients of tenant:beta", "clients of user:acme_app", "clients of user:both",
            "clients of user:few", AWAKE,
        ]  # fmt: skip
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]
        self.indexes = {name: number for number, name in enumerate(names)}
        self.boot = {
            "config": to_transport(load_text(text, environ={}).config),
            "slot": slot,
            "workers": workers,
            "shm_fd": self.counters.fd,
            "tenant_indexes": self.indexes,
            "mailboxes": [(a.detach(), b.detach()) for a, b in pairs],
        }
        self.worker = Worker(self.boot, None)  # type: ignore[arg-type]
        for other in range(workers):
            # all have their turns
            place = shm.offset(other, self.indexes[AWAKE]) // shm.COUNTER_BYTES
            self.worker.budget.memory[place] = int(time.monotonic())
        self.worker.dialer.on_demand = self._welcome  # type: ignore[method-assign]
        self.worker.engine.start(self, get_logger("test"))
        self.worker.budget.share(self.worker.engine)
        self.worker.entries.configure()
        if not compiled:
            self.worker.engine.entry_stop()

    def close(self) -> None:
        self.worker.engine.stop()
        for sock in self._sockets:
            sock.close()
        self.counters.close()
        mailbox = self.worker.mailbox
        for sock in (mailbox._receiver, *mailbox._senders):
            sock.close()

    def _welcome(self, pool_id: int) -> None:
        """A pool is asked for its first server: from now on it greets without."""
        record = self.worker.pools.get(pool_id)
        startup_id = self.worker.engine.pool_wanted(pool_id)
        assert record is not None
        assert startup_id is not None
        record.welcomes[startup_id] = WELCOME

    def add_reader(self, fd: int, run: Callable[[], None]) -> None:
        self._run = run

    def remove_reader(self, _fd: int) -> None:
        self._run = None

    def pump(self) -> None:
        assert self._run is not None
        self._run()

    def client(self, packet: bytes) -> End:
        ours, theirs = socket.socketpair()
        self._sockets.append(ours)
        theirs.setblocking(False)
        end = End(self, ours)  # type: ignore[arg-type]
        end.link = self.worker.engine.adopt_client(theirs.detach(), packet, True)
        self.pump()
        return end

    def tcp_client(self, packet: bytes, source: str, *, listen: str = "127.0.0.1") -> End:
        """One that comes from an address of this machine."""
        family = socket.AF_INET6 if ":" in listen else socket.AF_INET
        with socket.create_server(
            (listen, 0), family=family, dualstack_ipv6=family is socket.AF_INET6
        ) as listener:
            port = listener.getsockname()[1]
            where = source if ":" in source else "127.0.0.1"
            ours = socket.create_connection((where, port), source_address=(source, 0))
            theirs, _ = listener.accept()
        self._sockets.append(ours)
        theirs.setblocking(False)
        end = End(self, ours)  # type: ignore[arg-type]
        end.link = self.worker.engine.adopt_client(theirs.detach(), packet, False)
        self.pump()
        return end

    def tls_client(self, packet: bytes, *, host: str | None = None) -> TlsEnd:
        """One that asks for TLS first; `host` is the name that it tells."""
        ours, theirs = socket.socketpair()
        self._sockets.append(ours)
        theirs.setblocking(False)
        end = TlsEnd(self, ours, host)
        end.link = self.worker.engine.adopt_client(theirs.detach(), messages.ssl_request(), False)
        self.pump()
        end.shake_hands()
        end.send(packet)
        return end

    def log_in(self, packet: bytes) -> bytes:
        """The whole of a login with the right password; what came last."""
        end = self.client(packet)
        end.take()
        end.send(first_message())
        challenge = end.take()
        end.send(final_message(challenge))
        got = end.take()
        end.send(TERMINATE)
        return got

    def used(self, name: str) -> int:
        return self.worker.budget.used(name)

    def entered(self) -> int:
        return self.worker.engine.entry_figures()[0]

    def figures(self) -> dict[Any, int]:
        """What is counted, each figure under a name."""
        logins = self.worker.logins
        clients, in_progress, _ = self.worker.engine.open_counts()
        return {
            "ok": logins.succeeded + self.entered(),
            "clients": clients,
            "logins": in_progress,
            **{("failed", reason): count for reason, count in logins.failed.items()},
            **self.worker.error_counts,
            **self.worker.engine.counters()["client_ends"],
            **{("place", name): self.used(name) for name in self.indexes},
        }


class TlsEnd(End):
    """A client's end behind TLS."""

    def __init__(self, one: OneWorker, sock: socket.socket, host: str | None) -> None:
        super().__init__(one, sock)  # type: ignore[arg-type]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def shake_hands(self) -> None:
        assert super().take() == b"S"
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                super().send(self._outgoing.read())
                self._incoming.write(super().take())
            else:
                return super().send(self._outgoing.read())

    def send(self, *parts: bytes) -> None:
        self.tls.write(b"".join(parts))
        super().send(self._outgoing.read())

    def take(self) -> bytes:
        self._incoming.write(super().take())
        got = b""
        try:
            while piece := self.tls.read():
                got += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return got


def startup(minor: int = 0, more: dict[str, str] | None = None, **parameters: str) -> bytes:
    packet = messages.startup_message(parameters | (more or {}))
    return packet[:4] + struct.pack("!I", 196608 + minor) + packet[8:]


CLIENT_NONCE = "fyko+d2lbbFgONRv9qkxdawL"
USUAL = startup(user="acme_app", database="app", application_name="psql")


def first_message(text: str = f"n,,n=,r={CLIENT_NONCE}", mechanism: str = "SCRAM-SHA-256") -> bytes:
    return message("p", mechanism.encode() + b"\0" + struct.pack("!i", len(text)) + text.encode())


def final_message(
    challenge: bytes,
    password_keys: scram.ScramKeys = KEYS,
    bare: str = f"n=,r={CLIENT_NONCE}",
    change: Callable[[bytes], bytes] | None = None,
    binding: bytes = b"n,,",
) -> bytes:
    """The proof for a challenge (an AuthenticationSASLContinue); `binding` goes into its c=."""
    [(_, body)] = split(challenge)
    server_first = body[4:]
    nonce = server_first.split(b",")[0]
    without_proof = b"c=%b,%b" % (base64.b64encode(binding), nonce)
    signed = b"%b,%b,%b" % (bare.encode(), server_first, without_proof)
    stored = hashlib.sha256(password_keys.client_key).digest()
    signature = hmac.digest(stored, signed, "sha256")
    proof = bytes(a ^ b for a, b in zip(password_keys.client_key, signature, strict=True))
    text = without_proof + b",p=" + base64.b64encode(proof)
    return message("p", change(text) if change is not None else text)


def masked(data: bytes) -> list[tuple[str, bytes]]:
    """Messages without what is random in them."""
    found = []
    for kind, body in split(data):
        if kind == "R" and body[:4] == struct.pack("!I", 11):
            nonce, _, rest = body[4:].partition(b",")
            body = nonce[:-24] + b",".join((b"...", rest))
        elif kind == "R" and body[:4] == struct.pack("!I", 12):
            body = body[:6] + bytes(len(body) - 6)
        elif kind == "K":
            body = bytes(len(body))
        found.append((kind, body))
    return found


def warm_up(one: OneWorker, *packets: bytes) -> None:
    """As after some traffic: the pools have their welcomes, and usual packets have been admitted."""
    for packet in packets or (USUAL, startup(user="both.beta", database="x"), startup(2, user="acme_app")):
        end = one.client(packet)
        end.take()
        end.send(first_message())
        end.send(final_message(end.take()))
        # the first of a pool waits for a server
        one.worker.engine.client_end(end.link, Reason.KILLED)
        one.log_in(packet)


Talk = Callable[[OneWorker], list[Any]]


def without_chance(said: list[Any]) -> list[Any]:
    """A message that is spoilt in the middle of the server's nonce is spoilt at any character."""
    at_a_character = (
        rb'DAttribute expected, but found invalid character "[^"]*"|DExpected character "=" for attribute "."'
    )
    return [
        [(kind, re.sub(at_a_character, b"D...", body)) for kind, body in item]
        if isinstance(item, list)
        else item
        for item in said
    ]


def same(both: tuple[OneWorker, OneWorker], talk: Talk) -> list[Any]:
    """Both say the same, and count the same."""
    answers, counts = [], []
    for one in both:
        before = one.figures()
        answers.append(talk(one))
        counts.append({name: value - before.get(name, 0) for name, value in one.figures().items()})
    assert without_chance(answers[0]) == without_chance(answers[1])
    assert {k: v for k, v in counts[0].items() if v} == {k: v for k, v in counts[1].items() if v}
    return answers[0]


def conversation(packet: bytes, *answers: bytes | Callable[[bytes], bytes], tls: bool = False) -> Talk:
    def talk(one: OneWorker) -> list[Any]:
        end = one.tls_client(packet) if tls else one.client(packet)
        said = [end.take()]
        for answer in answers:
            try:
                end.send(answer if isinstance(answer, bytes) else answer(said[-1]))
            except OSError:
                break
            said.append(end.take())
        closed = end.closed
        end.sock.close()
        one.pump()
        return [masked(data) for data in said] + [closed]

    return talk
