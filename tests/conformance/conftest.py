"""The same conversation with PostgreSQL directly and through the proxy; the replies must be equal.

    def test_x(both):
        for c in both():
            assert types(c.query("SELECT 1")) == "TDCZ"

runs the body twice, and compares message for message when it has run on both sides.  Masked is
only what must differ: pids and keys, OIDs of objects that the conversation makes, and the place
in the server's source that an error came from (see `test_errors_are_whole` for that).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.fix_pg import SharedServers
from tests.fix_proxy import Proxy
from tests.pg_server import Server, majors
from tests.wire_client import Message, WireClient, columns, fields

#: objects made after initdb have OIDs from here on (PostgreSQL's FirstNormalObjectId)
FIRST_NORMAL_OID = 16384


class Peer(NamedTuple):
    """One side of the comparison."""

    name: str
    host: str
    port: int
    #: settings that only this side needs in its startup packet
    settings: dict[str, str]


class Recorder(WireClient):
    """A client that keeps what it receives, and knows which side it talks to."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.transcript: list[Message] = []

    def receive(self) -> Message:
        reply = super().receive()
        self.transcript.append(reply)
        return reply


def masked(client: Recorder) -> list[object]:
    """A transcript in which what must differ is made equal, in a form that pytest shows well."""
    oids: dict[int, str] = {}
    found: list[object] = []
    for reply in client.transcript:
        match reply.type:
            case "E" | "N":
                said = {k: v for k, v in fields(reply).items() if k not in "FLR"}
                # of syntax errors the proxy adds which version's grammar it reads
                if said.get("D", "").startswith("The proxy reads SQL as"):
                    del said["D"]
                found.append((reply.type, said))
            case "K":
                found.append(("K", len(reply.body)))
            case "A":
                (pid,) = struct.unpack_from("!i", reply.body)
                found.append(("A", "own" if pid == client.pid else "other", reply.body[4:]))
            case "T":
                found.append(("T", [(c.name, _ordinal(oids, c.table), *c[2:]) for c in columns(reply)]))
            case "D" if len(reply.body) > 1000:
                found.append(("D", len(reply.body), hash(reply.body)))
            case _:
                found.append((reply.type, reply.body))
    return found


def _ordinal(oids: dict[int, str], oid: int) -> object:
    return oid if oid < FIRST_NORMAL_OID else oids.setdefault(oid, f"oid {len(oids)}")


def login_masked(client: Recorder) -> list[object]:
    """The login's messages: the authentication exchange apart, ParameterStatus in any order."""
    said = [m for m in client.login_replies if m.type != "R"]
    status = sorted(m.body for m in said if m.type == "S")
    return [status, [m.body if m.type == "Z" else m.type for m in said if m.type not in "SEN"]] + [
        {k: v for k, v in fields(m).items() if k not in "FLR"} for m in said if m.type in "EN"
    ]


class Both:
    def __init__(self, server: Server, proxy: Proxy) -> None:
        self.server = server
        self.peers = [
            Peer("direct", server.host, server.port, {"search_path": "acme, public"}),
            Peer("proxied", proxy.host, proxy.port, {}),
        ]

    def __call__(self, **settings: Any) -> Iterator[Recorder]:
        """Logged in on each side in turn, with these settings in the startup packet."""
        done: list[Recorder] = []
        for peer in self.peers:
            client = Recorder(peer.host, peer.port)
            with client:
                client.log_in(**{**peer.settings, **settings})
                client.transcript.clear()
                yield client
            done.append(client)
        direct, proxied = done
        assert login_masked(proxied) == login_masked(direct)
        assert masked(proxied) == masked(direct)

    def strangers(self) -> Iterator[tuple[Recorder, dict[str, str]]]:
        """Connected on each side in turn without a login, with the settings that this side needs."""
        done: list[Recorder] = []
        for peer in self.peers:
            client = Recorder(peer.host, peer.port)
            with client:
                yield client, peer.settings
            done.append(client)
        direct, proxied = done
        assert masked(proxied) == masked(direct)


VARIANTS: dict[str, dict[str, Any]] = {
    "session": {"pool": {"mode": "session"}},
    "transaction": {"pool": {"mode": "transaction"}},
    "session-2-workers": {"pool": {"mode": "session"}, "workers": 2},
    "transaction-2-workers": {"pool": {"mode": "transaction"}, "workers": 2},
}
#: every version meets both pool modes, and one worker and two; `--matrix` runs all combinations
USUAL = [("session", "transaction-2-workers"), ("session-2-workers", "transaction")]


def combinations(matrix: bool) -> list[tuple[int, str]]:
    """(major version, variant) of each run."""
    return [
        (major, variant)
        for number, major in enumerate(sorted(majors(), reverse=True))
        for variant in (VARIANTS if matrix else USUAL[number % 2])
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted = combinations(metafunc.config.getoption("--matrix"))
    chosen: dict[str, list[tuple[int | None, str]]] = {
        "both": list(wanted),
        "both_session": [(major, variant) for major, variant in wanted if variant.startswith("session")],
        "both_once": [(None, "session"), (None, "transaction-2-workers")],
    }
    for name, parameters in chosen.items():
        if name in metafunc.fixturenames:
            ids = [f"pg{major}-{variant}" if major else variant for major, variant in parameters]
            metafunc.parametrize(name, parameters, ids=ids, indirect=True)


def _both(request: pytest.FixtureRequest, pg_servers: SharedServers, proxies: Callable[..., Proxy]) -> Both:
    major, variant = request.param
    server = pg_servers.get(major)
    return Both(server, proxies(server, **VARIANTS[variant]))


@pytest.fixture
def both(request: pytest.FixtureRequest, pg_servers: SharedServers, proxies: Callable[..., Proxy]) -> Both:
    """Every major version, in both pool modes."""
    return _both(request, pg_servers, proxies)


@pytest.fixture
def both_session(
    request: pytest.FixtureRequest, pg_servers: SharedServers, proxies: Callable[..., Proxy]
) -> Both:
    """As `both`, for what only session mode promises."""
    return _both(request, pg_servers, proxies)


@pytest.fixture
def both_once(
    request: pytest.FixtureRequest, pg_servers: SharedServers, proxies: Callable[..., Proxy]
) -> Both:
    """As `both`, for what takes seconds: the default server only."""
    return _both(request, pg_servers, proxies)


@pytest.fixture
def scratch(both: Both) -> Iterator[Callable[[], None]]:
    """Table acme.scratch is empty at first, whenever this is called, and afterwards."""

    def empty() -> None:
        with both.server.connect() as conn:
            conn.execute("TRUNCATE acme.scratch, acme.promises")

    empty()
    yield empty
    empty()
