"""The server's disk is full: exactly those are told whose statements need more of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_shared import either_isolation
from tests.pg_server import Server
from tests.wire_client import rows, sqlstates

SIZE = "4m"


@pytest.fixture
def small_disk(pg: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tablespace on a disk of its own, which only root can make."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = pg.directory / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        place.rmdir()
        pytest.skip("no file system can be mounted here")
    try:
        if pg.account is not None:
            os.chown(place, pg.account.uid, pg.account.gid)
        with pg.connect() as conn:
            conn.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
            conn.execute("CREATE TABLE acme.heap (body text) TABLESPACE small")
            conn.execute("ALTER TABLE acme.heap OWNER TO acme_app")
            yield "small"
            conn.execute("DROP TABLE acme.heap; DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", str(place)], check=True)
        Path(place).rmdir()


FILL = "INSERT INTO heap SELECT repeat(md5(n::text), 60) FROM generate_series(1, 1000) AS g (n)"


@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
def test_a_full_disk(isolation, small_disk, proxies, pg):
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
        with pg.connect() as conn:
            conn.execute("TRUNCATE acme.heap")
        assert sqlstates(acme.query("INSERT INTO heap VALUES ('there is room')")) == []
