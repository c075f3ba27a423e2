"""How many turns run at once (pool.width), on a server whose processors are shared by all that runs.

A turn needs so much of a processor, and waits for something else for so long; with more turns than
processors each gets its part.  The clock is the test's own.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest

from tenant_proxy.pool.model import Model

MS = 1000
S = 1000 * MS


@dataclass
class Member:
    """A tenant: so many clients, each asking again `pause_us` after its answer."""

    clients: int
    cpu_us: int
    wait_us: int = 0
    pause_us: int = 0


@dataclass
class Outcome:
    turns: list[int]
    latencies_us: list[list[int]]
    widths: list[int] = field(default_factory=list)

    def p99_us(self, members: range) -> int:
        found = sorted(one for member in members for one in self.latencies_us[member])
        return found[int(len(found) * 0.99)]


class Machine:
    """Processors that are shared evenly: `spent` is what each that runs has had since the beginning."""

    def __init__(self, processors: int) -> None:
        self._processors = processors
        self._running: list[tuple[float, int, tuple[int, ...]]] = []
        self._spent = 0.0
        self._at = 0.0
        self._number = 0

    def _pass(self, now: float) -> None:
        if self._running:
            self._spent += (now - self._at) * min(1.0, self._processors / len(self._running))
        self._at = now

    def run(self, now: float, cpu_us: float, what: tuple[int, ...]) -> None:
        self._pass(now)
        self._number += 1
        heapq.heappush(self._running, (self._spent + cpu_us, self._number, what))

    def next_us(self) -> float:
        if not self._running:
            return float("inf")
        left = self._running[0][0] - self._spent
        return self._at + max(0.0, left) / min(1.0, self._processors / len(self._running))

    def pop(self, now: float) -> tuple[int, ...]:
        self._pass(now)
        return heapq.heappop(self._running)[2]


def run(
    servers: int,
    processors: int,
    members: list[Member],
    duration_us: int,
    since_us: int = 0,
    later: dict[int, tuple[int, Member]] | None = None,
    yields: bool = True,
) -> Outcome:
    """What was asked after `since_us` counts; members become others `later`."""
    members = list(members)
    model = Model(servers, [(100, 0, servers)] * len(members), yields=yields)
    chance = random.Random(1)
    machine = Machine(processors)
    outcome = Outcome([0] * len(members), [[] for _ in members])
    idle = [-1] * servers
    waiting: list[list[int]] = [[] for _ in members]
    events: list[tuple[float, int, str, tuple[int, ...]]] = []
    number = 0

    def at(when: float, what: str, *arguments: int) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (when, number, what, arguments))

    def begin(now: float, member: int, asked: int) -> None:
        one = members[member]
        turn = model.begin(member, int(now))
        work = max(1.0, one.cpu_us * chance.uniform(0.5, 1.5))
        if one.wait_us:
            at(now + one.wait_us * chance.uniform(0.5, 1.5), "ready", member, turn, asked, int(work))
        else:
            machine.run(now, work, (member, turn, asked))

    for when, (index, _) in (later or {}).items():
        at(when, "change", index)
    for index, one in enumerate(members):
        for _ in range(one.clients):
            at(chance.uniform(0, one.pause_us + MS), "ask", index)
    while True:
        if machine.next_us() <= events[0][0] if events else True:
            now = machine.next_us()
            if now > duration_us:
                break
            member, turn, asked = machine.pop(now)
            model.end(member, turn, int(now))
            if asked >= since_us:
                outcome.turns[member] += 1
                outcome.latencies_us[member].append(int(now) - asked)
            outcome.widths.append(model.width)
            at(now + members[member].pause_us * chance.uniform(0.5, 1.5), "ask", member)
            idle.append(member)
            while idle and (chosen := model.next(idle[-1], int(now))) is not None:
                model.take_waiting(chosen)
                idle.pop()
                begin(now, chosen, waiting[chosen].pop(0))
            continue
        now, _, what, arguments = heapq.heappop(events)
        if now > duration_us:
            break
        member = arguments[0]
        if what == "change":
            assert later is not None
            members[member] = later[int(now)][1]
        elif what == "ready":
            machine.run(now, arguments[3], arguments[:3])
        elif idle and model.may_start(member, int(now)):
            idle.pop()
            begin(now, member, int(now))
        else:
            waiting[member].append(int(now))
            model.wait(member, int(now))
    return outcome


QUIET = [Member(clients=1, cpu_us=150, pause_us=100 * MS) for _ in range(50)]
FLOOD = Member(clients=100, cpu_us=150)


@pytest.mark.parametrize(("yields", "slower", "done"), [(True, 1.4, 0.45), (False, 1.75, 0.85)])
def test_a_flood_takes_the_processors_from_nobody(yields, slower, done):
    alone = run(50, 2, QUIET, S).p99_us(range(50))
    outcome = run(50, 2, [*QUIET, FLOOD], 3 * S, since_us=S, yields=yields)
    assert outcome.p99_us(range(50)) < slower * alone, "with 50 at once it is 25 times as long"
    possible = 2 * S * 2 / 150 - sum(outcome.turns[:50])
    assert outcome.turns[50] > done * possible
    assert max(outcome.widths[len(outcome.widths) // 2 :]) <= 12


@pytest.mark.parametrize(
    ("processors", "cpu_us", "wait_us"),
    [(2, 10, 5 * MS), (2, 50, 20 * MS), (64, 300, 0)],
    ids=["short waits", "long waits", "many processors"],
)
def test_what_gains_by_running_at_once_does(processors, cpu_us, wait_us):
    flood = Member(clients=100, cpu_us=cpu_us, wait_us=wait_us)
    outcome = run(50, processors, [*QUIET, flood], 2 * S, since_us=S)
    possible = S * min(50 / (cpu_us + wait_us), processors / cpu_us)
    assert outcome.turns[50] > 0.8 * possible


def test_it_grows_again_when_statements_wait_for_something_else():
    waits = Member(clients=100, cpu_us=10, wait_us=5 * MS)
    outcome = run(50, 2, [*QUIET, FLOOD], 5 * S, since_us=4 * S, later={S: (50, waits)})
    assert 0 < min(outcome.widths[len(outcome.widths) // 10 :]) <= 12, "at first"
    assert outcome.turns[50] > 0.8 * S * 50 / (5 * MS)


def test_long_turns_do_not_stop_the_others():
    """More of them than the width, each as long as all that is looked at."""
    long = Member(clients=20, cpu_us=10, wait_us=10 * S)
    outcome = run(50, 2, [*QUIET, FLOOD, long], 2 * S, since_us=S, yields=False)
    assert outcome.p99_us(range(50)) < 3 * MS
    assert outcome.turns[50] > 0.8 * (S * 2 / 150 - sum(outcome.turns[:50]))


def test_a_flood_yields_only_while_others_ask_now_and_then():
    gone = Member(clients=1, cpu_us=150, pause_us=10 * S)
    quiet = [Member(clients=1, cpu_us=150, pause_us=20 * MS)]
    outcome = run(50, 2, [*quiet, FLOOD], 3 * S, since_us=2 * S, later={S: (0, gone)})
    assert outcome.turns[1] > 0.85 * S * 2 / 150


def test_nobody_yields_where_no_tenant_has_most_of_the_turns():
    """Each of them wants more than all may have, and none is a flood."""
    busy = [Member(clients=20, cpu_us=150) for _ in range(4)]
    outcome = run(50, 2, [*QUIET, *busy], 3 * S, since_us=S)
    possible = 2 * S * 2 / 150 - sum(outcome.turns[:50])
    assert sum(outcome.turns[50:]) > 0.85 * possible


def test_one_alone_has_no_limit():
    outcome = run(50, 2, [FLOOD], S // 2)
    assert set(outcome.widths) == {0}
