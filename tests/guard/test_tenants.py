"""Where other tenants are hidden: the corpus once more, and what only holds there.

The database has the views of `catalog install`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from tenant_proxy.model import Action, Verdict
from tests.fix_proxy import PASSWORDS, Proxy
from tests.guard.attacker import Attacker, answer_is_wrong, is_for, refusal_is_wrong, run
from tests.guard.corpus_files import HIDING as DATABASE
from tests.guard.corpus_files import Database, Entry, Talk, any_oid, attacks, by_group, filled, legitimate
from tests.guard.test_attacks import nothing
from tests.guard.test_legitimate import Said, Session, differences, masked
from tests.unit.guard.scope import HIDING, judge
from tests.wire_client import WireClient

pytestmark = pytest.mark.timeout(180)

NEEDING = by_group(entry for entry in attacks() if entry.needs == "shims")
TALKS = by_group(legitimate())

#: the proxy's own here, and for sessions of one's own role alone (tests/e2e/test_own_session.py)
SIGNALS = re.compile(r"(tp_catalog\.)?pg_(?:terminate|cancel)_backend")


def test_attacks_are_refused_here_as_well():
    wrong = []
    for entry in attacks():
        if entry.refuse and entry.sql and not (entry.client_encoding or entry.params):
            text = filled(entry.sql[-1], any_oid)
            verdict = judge(text, HIDING)
            if verdict.action is Action.ALLOW and SIGNALS.search(text):
                if not all(SIGNALS.findall(edited(text, verdict))):
                    wrong.append(f"the server's own: {entry}")
            elif verdict.action is not Action.REJECT or entry.refuse[0] != verdict.sqlstate:
                wrong.append(f"{verdict.sqlstate} {verdict.reason}: {entry}")
    nothing(wrong)


def edited(text: str, verdict: Verdict) -> str:
    parts, at = [], 0
    raw = text.encode()
    for start, end, new in verdict.edits:
        parts += [raw[at:start], new.encode()]
        at = end
    return b"".join((*parts, raw[at:])).decode()


@pytest.mark.parametrize("group", NEEDING.values(), ids=list(NEEDING))
def test_what_takes_the_views(hiding_database: Database, hiding_proxy: Proxy, group):
    wrong = []
    for entry in group:
        if not is_for(entry, hiding_database):
            continue
        with Attacker(hiding_proxy, hiding_database) as attacker:
            if entry.meets_nobody:
                wrong.append(meeting(entry, attacker))
            else:
                replies = run(entry, attacker)
                wrong.append(
                    refusal_is_wrong(entry, replies) if entry.refuse else answer_is_wrong(entry, replies)
                )
    nothing(wrong)


def meeting(entry: Entry, attacker: Attacker) -> str | None:
    """Whether the neighbour's session and the attacker's have met."""
    dsn = attacker.proxy.dsn("beta_app", DATABASE)
    with psycopg.connect(dsn, autocommit=True) as beta:
        beta.execute(entry.neighbour.encode())
        wrong = answer_is_wrong(entry, run(entry, attacker))
        if any(beta.notifies(timeout=0.02)):
            return f"the neighbour has heard of {entry}"
        return wrong


@pytest.fixture
def direct(hiding_database: Database) -> Iterator[Session]:
    server = hiding_database.server
    client = WireClient.open(
        server.host,
        server.port,
        password=PASSWORDS["acme_app"],
        database=DATABASE,
        search_path="acme, public",
    )
    with Session(client) as session:
        yield session


@pytest.mark.slow
@pytest.mark.parametrize("group", TALKS.values(), ids=[name[:60] for name in TALKS])
def test_what_is_legitimate_is_answered_without_the_neighbour(hiding_database, hiding_proxy, direct, group):
    major = hiding_database.server.major
    talks = [talk for talk in group if talk.since <= major <= talk.until]
    wrong: list[str] = []
    with Session(hiding_proxy.wire(database=DATABASE)) as through:
        for talk in talks:
            compare = less_than if talk.catalog else differences
            wrong += compare(talk, direct, through, hiding_database)
    nothing(wrong)


def less_than(talk: Talk, direct: Session, through: Session, database: Database) -> Iterator[str]:
    """Answers from catalogs: no row names the neighbour or the views, and none is missing of the tenant's."""
    wanted, got = direct.run(talk, database), through.run(talk, database)
    for (sql, _), *answers in zip(talk.steps, wanted, got, strict=True):
        first, second = ([unordered(masked(line)) for line in answer] for answer in answers)
        if besides_rows(first) != besides_rows(second):
            yield f"{talk}: {sql[:200]}\n  {besides_rows(first)}\n  {besides_rows(second)}"
        rows = [line for line in second if line[0] == "D"]
        new = [line for line in rows if _OTHERS.search(repr(line))]
        lost = [line for line in first if line not in second and _OWN.search(repr(line))]
        if new or lost:
            yield f"{talk}: {sql[:200]}\n  others' {new[:2]}\n  lost {lost[:2]}"


def unordered(line: Said) -> Said:
    """With arrays sorted: array_agg takes rows as they come."""
    return tuple(
        re.sub(rb"\{([^{}\"]*)\}", lambda found: b"{%s}" % b",".join(sorted(found[1].split(b","))), part)
        if isinstance(part, bytes)
        else part
        for part in line
    )


_OTHERS = re.compile(r"\bbeta(_app)?\b|\btp_catalog\b")
#: a TOAST table is shown by no name of its tenant's
_OWN = re.compile(r"^(?!.*pg_toast).*\bacme\b", re.DOTALL)


def besides_rows(answer: list[Said]) -> list[object]:
    """What else there is: the names of columns, errors, notices."""
    return [
        [column[0] for column in line[1:] if isinstance(column, tuple)] if line[0] == "T" else line
        for line in answer
        if line[0] not in ("D", "C")
    ]
