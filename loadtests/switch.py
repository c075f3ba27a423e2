"""What it costs PostgreSQL to serve another tenant on the same backend (docs/decisions/0012).

    python -m loadtests.switch [SECONDS]

Raw protocol on a server of its own, no proxy.  Each way is tried in alternating rounds on the same
connections, point queries of tenants that change each time.  Told are the server's CPU time per
transaction, which other load on the machine disturbs least, and transactions a second.
"""

from __future__ import annotations

import random
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from loadtests import procfs
from loadtests.wire import READY_IDLE, Connection, Endpoint, message
from tenant_proxy.devel.postgres import Server
from tenant_proxy.wire import messages

TENANTS = 100
CONNECTIONS = 16
ROUNDS = 3
SERVICE = "service"

QUERY = "SELECT v FROM kv WHERE k = 17"
ROLE = "SET ROLE {0}; SELECT set_config('search_path', '{0}', false)"
NOBODY = "RESET ROLE; RESET ALL"
DISARM = "SET exit_on_error = off"
#: a query of the extended protocol, up to its Sync
BATCH = messages.parse("", QUERY, []) + messages.bind("", []) + message(b"D", b"P\0") + messages.execute()
SYNC = message(b"S", b"")
#: role, search_path and disarming for one transaction
TURN = ("role", "{0}"), ("search_path", "{0}"), ("exit_on_error", "off")

#: what is sent at once, and how many ReadyForQuery answer it
Write = tuple[bytes, int]
#: a tenant's transaction
Way = Callable[[str], list[Write]]


def queries(*writes: tuple[str, ...]) -> Way:
    """Texts of the simple protocol, `{}` being the tenant."""

    def way(tenant: str) -> list[Write]:
        return [
            (b"".join(messages.query(text.format(tenant)) for text in write), len(write)) for write in writes
        ]

    return way


def switched_batch(tenant: str) -> list[Write]:
    head = messages.query(ROLE.format(tenant)) + messages.query(DISARM)
    return [(head + BATCH + SYNC + messages.query(NOBODY), 4)]


def turn(tenant: str) -> list[Write]:
    values = [text.format(tenant).encode() for pair in TURN for text in pair]
    return [(messages.bind("turn", values) + messages.execute() + BATCH + SYNC, 1)]


def parsed_turn(tenant: str) -> list[Write]:
    switch = messages.parse("", LOCAL.format(tenant), []) + messages.bind("", []) + messages.execute()
    return [(switch + BATCH + SYNC, 1)]


LOCAL = "SELECT " + ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in TURN)

WAYS: dict[str, Way] = {
    "never switched": queries((QUERY,)),
    "never switched, extended": lambda _: [(BATCH + SYNC, 1)],
    "unsafe: behind the switch, not armed": queries((ROLE, QUERY)),
    "awaited": queries((f"{NOBODY}; {ROLE}; {DISARM}",), (QUERY,)),
    "armed, switch and disarming in one message": queries((f"{ROLE}; {DISARM}", QUERY, NOBODY)),
    "armed, disarming in a message of its own": queries((ROLE, DISARM, QUERY, NOBODY)),
    "the same, extended": switched_batch,
    "armed, switch in a block, disarming behind it": queries(
        (f"BEGIN; {ROLE}; COMMIT; {DISARM}", QUERY, NOBODY)
    ),
    "armed, and all that is not known cleaned": queries(
        (f"{ROLE}; {DISARM}", QUERY, f"DEALLOCATE ALL; DISCARD SEQUENCES; DISCARD TEMP; {NOBODY}")
    ),
    "a turn": turn,
    "a turn whose switch is parsed each time": parsed_turn,
    "a turn and the query in one text": queries((f"{LOCAL}; {QUERY}",)),
}


class Conversation:
    """One connection, going through the writes of its transactions."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._connection = Connection(endpoint)
        self.sock: socket.socket = self._connection._sock
        self._connection.query("SET exit_on_error = on")
        self._writes: Iterator[Write] = iter(())
        self._owed = 0

    def close(self) -> None:
        self._connection.close()

    def prepare(self) -> None:
        """The turn's statement, and no other."""
        self._connection.query("DEALLOCATE ALL")
        calls = ", ".join(f"set_config(${2 * n + 1}, ${2 * n + 2}, true)" for n in range(len(TURN)))
        types = [messages.TEXT_OID] * 2 * len(TURN)
        self._owed = 1
        self.sock.sendall(messages.parse("turn", f"SELECT {calls}", types) + SYNC)
        while not self.read():
            pass

    def begin(self, way: Way) -> None:
        self._writes = iter(way(f"t{random.randrange(TENANTS)}"))
        self.write()

    def write(self) -> bool:
        """The next write; False at the end of the transaction."""
        following = next(self._writes, None)
        if following is None:
            return False
        data, self._owed = following
        self.sock.sendall(data)
        return True

    def read(self) -> bool:
        """Whether a transaction has ended."""
        data = self.sock.recv(65536)
        if not data or b"SERROR\0" in data:
            raise SystemExit(f"the server said: {data[-200:]!r}")
        self._owed -= data.count(READY_IDLE)
        return self._owed == 0 and not self.write()


def provision(server: Server) -> None:
    me = server
    with Connection(Endpoint(me.host, me.port, me.superuser, me.password, "postgres")) as connection:
        # a reload of pg_hba is not needed: the service logs in by password
        connection.query(f"CREATE ROLE {SERVICE} LOGIN NOINHERIT PASSWORD '{SERVICE}'")
        for n in range(TENANTS):
            connection.query(
                f"CREATE ROLE t{n}; GRANT t{n} TO {SERVICE}; CREATE SCHEMA t{n} AUTHORIZATION t{n};"
                f"CREATE TABLE t{n}.kv (k int PRIMARY KEY, v text);"
                f"ALTER TABLE t{n}.kv OWNER TO t{n};"
                f"INSERT INTO t{n}.kv SELECT i, 't{n}' FROM generate_series(1, 100) i"
            )
        # for the way that never switches
        connection.query(f"GRANT USAGE ON SCHEMA t0 TO {SERVICE}; GRANT SELECT ON t0.kv TO {SERVICE}")
        connection.query(f"ALTER ROLE {SERVICE} SET search_path = t0")


def run(conversations: list[Conversation], way: Way, seconds: float) -> int:
    """Transactions that were completed."""
    selector = selectors.DefaultSelector()
    for one in conversations:
        one.prepare()
        selector.register(one.sock, selectors.EVENT_READ, one)
        one.begin(way)
    done, under_way = 0, len(conversations)
    end = time.monotonic() + seconds
    while under_way:
        for key, _ in selector.select():
            if key.data.read():
                done += 1
                if time.monotonic() < end:
                    key.data.begin(way)
                else:
                    under_way -= 1
    selector.close()
    return done


def main(seconds: float) -> None:
    server = Server(settings={"fsync": "off", "autovacuum": "off", "jit": "off"})
    server.start()
    try:
        provision(server)
        endpoint = Endpoint(server.host, server.port, SERVICE, SERVICE, "postgres")
        conversations = [Conversation(endpoint) for _ in range(CONNECTIONS)]
        run(conversations, WAYS["awaited"], seconds)
        cpu_us: dict[str, list[float]] = {name: [] for name in WAYS}
        rate: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(ROUNDS):
            for name, way in WAYS.items():
                if way is WAYS["never switched"]:
                    run(conversations, queries((NOBODY,)), 0)
                before, begin = procfs.tree_cpu(server.pid), time.monotonic()
                done = run(conversations, way, seconds)
                used = procfs.tree_cpu(server.pid).cpu_s - before.cpu_s
                cpu_us[name].append(used * 1e6 / done)
                rate[name].append(done / (time.monotonic() - begin))
        for one in conversations:
            one.close()
    finally:
        server.close()
    print(f"{'way':50} {'CPU us':>8} {'tx/s':>8}")
    for name in WAYS:
        print(f"{name:50} {statistics.median(cpu_us[name]):8.0f} {statistics.median(rate[name]):8.0f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
