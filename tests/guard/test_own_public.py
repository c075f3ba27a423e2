"""Where `public` is the tenant's own schema: a corpus of its own (corpus/public_is_own)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fix_proxy import Proxies, Proxy
from tests.guard.attacker import Attacker, answer_is_wrong, refusal_is_wrong, run
from tests.guard.conftest import started
from tests.guard.corpus_files import Database, Entry, own_public
from tests.guard.test_attacks import LOCKED, NEIGHBOUR, nothing
from tests.wire_client import errors

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def proxy(hiding_database: Database, proxy_pool: Proxies) -> Iterator[Proxy]:
    policy = {"catalogs": "hide", "public_is_own": True}
    yield from started(hiding_database, proxy_pool, secret={"value": "the corpus's"}, policy=policy)


def failed(entry: Entry, attacker: Attacker) -> str | None:
    """An error where an answer, or no more than success, is expected."""
    replies = run(entry, attacker)
    found = errors(replies)
    return f"{found} for {entry}" if found else answer_is_wrong(entry, replies)


def test_attacks(hiding_database: Database, proxy: Proxy):
    before = hiding_database.superuser.execute(NEIGHBOUR).fetchone()
    wrong = []
    for entry in own_public("attacks"):
        with Attacker(proxy, hiding_database) as attacker:
            if entry.refuse:
                wrong.append(refusal_is_wrong(entry, run(entry, attacker)))
            else:
                wrong.append(failed(entry, attacker))
                assert hiding_database.superuser.execute(LOCKED).fetchone() == (None,), entry
    nothing(wrong)
    assert hiding_database.superuser.execute(NEIGHBOUR).fetchone() == before


def test_what_is_legitimate(hiding_database: Database, proxy: Proxy):
    wrong = []
    for entry in own_public("legitimate"):
        with Attacker(proxy, hiding_database) as attacker:
            wrong.append(failed(entry, attacker))
    nothing(wrong)
