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
from collections.abc import Iterator

from loadtests import procfs
from loadtests.wire import READY_IDLE, Connection, Endpoint, message
from tenant_proxy.devel.postgres import Server

TENANTS = 100
CONNECTIONS = 16
ROUNDS = 4
SERVICE = "service"

#: one list of texts that are sent in one write, for each write of a transaction; `{}` is the tenant
Way = list[list[str]]

QUERY = "SELECT v FROM kv WHERE k = 17"
ROLE = "SET ROLE t{0}; SELECT set_config('search_path', 't{0}', false)"
NOBODY = "RESET ROLE; RESET ALL"
DISARM = "SET exit_on_error = off"

WAYS: dict[str, Way] = {
    "never switched": [[QUERY]],
    "unsafe: behind the switch, not armed": [[ROLE, QUERY]],
    "awaited": [[f"{NOBODY}; {ROLE}; {DISARM}"], [QUERY]],
    "armed, switch and disarming in one message": [[f"{ROLE}; {DISARM}", QUERY, NOBODY]],
    "armed, disarming in a message of its own": [[ROLE, DISARM, QUERY, NOBODY]],
    "armed, switch in a block, disarming behind it": [[f"BEGIN; {ROLE}; COMMIT; {DISARM}", QUERY, NOBODY]],
    "armed, and all that is not known cleaned": [
        [f"{ROLE}; {DISARM}", QUERY, f"DEALLOCATE ALL; DISCARD SEQUENCES; DISCARD TEMP; {NOBODY}"]
    ],
}


class Conversation:
    """One connection, going through the writes of its transactions."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._connection = Connection(endpoint)
        self.sock: socket.socket = self._connection._sock
        self._connection.query("SET exit_on_error = on")
        self._writes: Iterator[list[str]] = iter(())
        self._owed = 0

    def close(self) -> None:
        self._connection.close()

    def begin(self, way: Way) -> None:
        tenant = random.randrange(TENANTS)
        self._writes = iter([[text.format(tenant) for text in write] for write in way])
        self.write()

    def write(self) -> bool:
        """The next write; False at the end of the transaction."""
        texts = next(self._writes, None)
        if texts is None:
            return False
        self._owed = len(texts)
        self.sock.sendall(b"".join(message(b"Q", text.encode() + b"\0") for text in texts))
        return True

    def read(self) -> bool:
        """Whether a transaction has ended."""
        data = self.sock.recv(65536)
        if not data or b"\0C42501\0" in data:
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
                    run(conversations, [[NOBODY]], 0)
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
