"""The database server moves: its host name leads to another address."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.adversity.test_server_down import QUICK, works
from tests.wire_client import wait_until

#: preloaded, "moving.test" is what a file says, and unknown if that is empty
NAMES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*resolver)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    static const char *const name = "moving.test";
    char address[64] = "";
    resolver real = (resolver) dlsym(RTLD_NEXT, "getaddrinfo");

    if (node == NULL || strcmp(node, name) != 0 || (hints != NULL && hints->ai_flags & AI_NUMERICHOST))
        return real(node, service, hints, found);
    FILE *file = fopen(getenv("TP_TEST_NAMES"), "r");
    if (file != NULL) {
        if (fgets(address, sizeof address, file) == NULL)
            address[0] = 0;
        fclose(file);
    }
    return address[0] ? real(address, service, hints, found) : EAI_NONAME;
}
"""


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the address of "moving.test", for processes that are started from here on."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path / "other_names.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=NAMES, text=True, check=True)
    file = tmp_path / "address"
    file.write_text("127.0.0.1")
    monkeypatch.setenv("TP_TEST_NAMES", str(file))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return file


def test_a_name_is_looked_up_again_as_soon_as_its_server_is_gone(new_pg, own_proxy, name):
    server = new_pg(hba=["host all all 127.0.0.2/32 scram-sha-256"])
    clusters = [{"name": "main", "host": "moving.test", "port": server.port, "database": "app"}]
    proxy = own_proxy(
        server, fresh=True, clusters=clusters, pool={"mode": "transaction", "when_down": "fail", **QUICK}
    )
    wait_until(lambda: works(proxy), "the name is found")

    server.stop()
    assert not works(proxy)
    server.settings["listen_addresses"] = "127.0.0.2"
    server.host = "127.0.0.2"
    server.start()
    name.write_text("127.0.0.2")
    wait_until(lambda: works(proxy), "the server is found where its name leads now")

    # nobody answers for the name now: it is tried where it was
    name.write_text("")
    server.stop()
    assert not works(proxy)
    server.start()
    wait_until(lambda: works(proxy), "the server is found where it was")
