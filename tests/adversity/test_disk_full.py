"""The server's disk is full: exactly those are told whose statements need more of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.fix_shared import either_isolation
from tests.pg_server import Server
from tests.wire_client import rows, sqlstates

SIZE, LARGER = "4m", "64m"


@pytest.fixture
def grow(pg: Server) -> Iterator[Callable[[], int]]:
    """A table acme.heap on a small disk of its own, which only root can make; call for more room."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = pg.directory / "small"
    place.mkdir()

    def mount(*options: str) -> int:
        command = ["mount", *options, "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    if mount("-t", "tmpfs", "-o", f"size={SIZE}"):
        place.rmdir()
        pytest.skip("no file system can be mounted here")
    try:
        if pg.account is not None:
            os.chown(place, pg.account.uid, pg.account.gid)
        with pg.connect() as conn:
            conn.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
            conn.execute("CREATE TABLE acme.heap (body text) TABLESPACE small")
            conn.execute("ALTER TABLE acme.heap OWNER TO acme_app")
            try:
                yield lambda: mount("-o", f"remount,size={LARGER}")
            finally:
                conn.execute("DROP TABLE acme.heap")
                conn.execute("DROP TABLESPACE small")
    finally:
        # lazily: backends may have files open there
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


FILL = "INSERT INTO heap SELECT repeat(md5(n::text), 60) FROM generate_series(1, 1000) AS g (n)"


@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
def test_a_full_disk(isolation, grow, proxies, pg):
    proxy = either_isolation(isolation, proxies, pg, 1)
    with proxy.wire() as acme, proxy.wire("beta_app") as beta:
        acme.query("DELETE FROM scratch")
        for _ in range(20):
            said = sqlstates(acme.query(FILL))
            if said:
                break
        assert said == ["53100"]
        # its session goes on, and so do others
        assert acme.value("SELECT count(*) > 0 FROM orders") == "t"
        assert beta.value("SELECT item FROM orders WHERE id = 1") == "bolt"
        acme.query("BEGIN")
        assert sqlstates(acme.query("INSERT INTO scratch VALUES (1, 'undone')")) == []
        assert sqlstates(acme.query(FILL)) == ["53100"]
        assert acme.xact_status == "E"
        assert sqlstates(acme.query("COMMIT")) == []
        assert rows(acme.query("SELECT count(*) FROM scratch")) == [("0",)]
        grow()
        assert sqlstates(acme.query(FILL)) == []
