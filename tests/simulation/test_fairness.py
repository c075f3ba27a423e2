"""Shares of the shared backends under made-up loads: decided by pool.fair, on a clock of the test's own.

Each load is run to its end and scored: how evenly those who wanted more were served, by weight
(Jain's index, 1 is even), and how long those who seldom ask had to wait.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from tenant_proxy.pool.model import Model

MS = 1000


@dataclass
class Member:
    """A login: so many clients, each asking again `pause_us` after its answer.

    It is a tenant's of its own, or one of those of the same `tenant`, whose limits are those of its first."""

    clients: int
    work_us: int
    pause_us: int = 0
    weight: int = 100
    reserved: int = 0
    max: int = 1000
    tenant: str = ""


@dataclass
class Outcome:
    served_us: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    turns: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    waits_us: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    busy_us: int = 0
    kept: int = 0

    def evenness(self, members: list[Member], among: list[int]) -> float:
        shares = [self.served_us[one] / members[one].weight for one in among]
        return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))

    def served_of(self, members: list[Member], tenant: str) -> int:
        return sum(self.served_us[i] for i, one in enumerate(members) if one.tenant == tenant)

    def worst_wait_us(self, member: int) -> int:
        waits = sorted(self.waits_us[member])
        return waits[int(len(waits) * 0.99)] if waits else 0


def model_of(servers: int, members: list[Member], workers: int = 1) -> Model:
    names = [one.tenant or f"of {i}" for i, one in enumerate(members)]
    tenants = list(dict.fromkeys(names))
    firsts = [members[names.index(name)] for name in tenants]
    limits = [(one.weight, one.reserved, one.max) for one in firsts]
    return Model(servers, limits, [tenants.index(name) for name in names], workers)


def run(servers: int, members: list[Member], duration_us: int = 2_000 * MS, seed: int = 1) -> Outcome:
    """Every server serves one turn at a time; a turn takes `work_us`, give or take a half."""
    model = model_of(servers, members)
    chance = random.Random(seed)
    outcome = Outcome()
    idle: list[int] = [-1] * servers  # whose each was last
    waiting: dict[int, list[int]] = defaultdict(list)
    events: list[tuple[int, int, str, tuple[int, ...]]] = []
    number = 0

    def at(when: int, what: str, *arguments: int) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (when, number, what, arguments))

    def begin(now: int, member: int, last: int) -> None:
        took = max(1, int(members[member].work_us * chance.uniform(0.5, 1.5)))
        outcome.kept += last == member
        at(now + took, "done", member, model.begin(member, now), took)

    for index, one in enumerate(members):
        for _ in range(one.clients):
            at(int(chance.uniform(0, one.pause_us + MS)), "ask", index)
    while events:
        now, _, what, arguments = heapq.heappop(events)
        if now > duration_us:
            break
        member = arguments[0]
        if what == "ask":
            if idle and model.may_start(member, now):
                outcome.waits_us[member].append(0)
                begin(now, member, idle.pop())
            else:
                waiting[member].append(now)
                model.wait(member, now)
            continue
        _, turn, took = arguments
        model.end(member, turn, now)
        outcome.served_us[member] += took
        outcome.turns[member] += 1
        outcome.busy_us += took
        at(now + int(members[member].pause_us * chance.uniform(0.5, 1.5)), "ask", member)
        idle.append(member)
        while idle and (chosen := model.next(idle[-1], now)) is not None:
            model.take_waiting(chosen)
            outcome.waits_us[chosen].append(now - waiting[chosen].pop(0))
            begin(now, chosen, idle.pop())
    return outcome


def test_equal_tenants_get_equal_shares():
    members = [Member(clients=8, work_us=MS) for _ in range(20)]
    outcome = run(10, members)
    assert outcome.evenness(members, list(range(20))) > 0.99


def test_long_statements_get_no_more_than_short_ones():
    members = [Member(clients=20, work_us=work) for work in (200, MS, 5 * MS, 20 * MS)]
    outcome = run(4, members, duration_us=8_000 * MS)
    assert outcome.evenness(members, [0, 1, 2, 3]) > 0.97


def test_weights():
    members = [Member(clients=20, work_us=MS, weight=weight) for weight in (50, 100, 200, 400)]
    outcome = run(6, members)
    assert outcome.evenness(members, [0, 1, 2, 3]) > 0.98
    assert outcome.served_us[3] > 6 * outcome.served_us[0]


def test_a_flood_does_not_delay_those_who_seldom_ask():
    """A hundred clients without pause beside fifty tenants that ask now and then."""
    quiet = [Member(clients=1, work_us=MS, pause_us=100 * MS) for _ in range(50)]
    alone = run(10, quiet)
    outcome = run(10, [Member(clients=100, work_us=MS), *quiet])
    flood_busy = outcome.busy_us / (10 * 2_000 * MS)
    assert flood_busy > 0.95, "and no server is idle meanwhile"
    for index in range(50):
        # a turn that is under way ends first: that much, and little more
        assert outcome.worst_wait_us(index + 1) <= alone.worst_wait_us(index) + 2 * MS
        assert outcome.turns[index + 1] >= 0.8 * alone.turns[index]


def test_nobody_saves_up():
    """Who was away for long comes back as an equal, not with all that it has missed."""
    model = Model(1, [(100, 0, 10), (100, 0, 10)])
    now = 0
    for _ in range(1000):
        turn = model.begin(0, now)
        now += MS
        model.end(0, turn, now)
    for member in (0, 1):
        for _ in range(50):
            model.wait(member, now)
    turns = []
    for _ in range(40):
        chosen = model.next(now_us=now)
        assert chosen is not None
        model.take_waiting(chosen)
        turns.append(chosen)
        turn = model.begin(chosen, now)
        now += MS
        model.end(chosen, turn, now)
    assert 15 <= turns.count(0) <= 25


def test_reserved_servers_are_there_when_they_are_wanted():
    members = [
        Member(clients=100, work_us=50 * MS),
        Member(clients=1, work_us=MS, pause_us=50 * MS, reserved=1),
    ]
    outcome = run(4, members, duration_us=5_000 * MS)
    assert outcome.worst_wait_us(1) == 0


def test_no_more_than_its_maximum():
    members = [Member(clients=50, work_us=MS, max=2), Member(clients=1, work_us=MS)]
    outcome = run(10, members)
    assert outcome.served_us[0] <= 2 * 2_000 * MS
    assert outcome.worst_wait_us(1) == 0


def test_turns_of_one_tenant_follow_each_other():
    """A switch that can be saved is: within the credit that fairness allows."""
    members = [Member(clients=4, work_us=300) for _ in range(10)]
    outcome = run(2, members)
    assert outcome.kept / sum(outcome.turns.values()) > 0.3
    assert outcome.evenness(members, list(range(10))) > 0.98


# --- tenants with several logins -----------------------------------------------------


@pytest.mark.parametrize("weight", [50, 100, 300])
def test_ten_logins_have_no_more_than_one(weight):
    members = [Member(clients=4, work_us=MS, weight=weight, tenant="acme") for _ in range(10)]
    members.append(Member(clients=40, work_us=MS, tenant="beta"))
    outcome = run(6, members)
    acme, beta = (outcome.served_of(members, name) for name in ("acme", "beta"))
    assert acme / beta == pytest.approx(weight / 100, rel=0.05)
    assert outcome.evenness(members, list(range(10))) > 0.98, "and they are served alike"


def test_a_logins_flood_delays_no_other_login_of_its_tenant():
    quiet = Member(clients=1, work_us=MS, pause_us=100 * MS, tenant="acme")
    flood = Member(clients=100, work_us=MS, tenant="acme")
    outcome = run(10, [quiet, flood, Member(clients=100, work_us=MS, tenant="beta")])
    # its tenant has five: until one of these is free, and little more
    assert outcome.worst_wait_us(0) <= 4 * MS
    assert outcome.served_us[1] == pytest.approx(outcome.served_us[2], rel=0.05)


def test_limits_are_all_logins_together():
    logins = [Member(clients=5, work_us=MS, max=2, tenant="acme") for _ in range(10)]
    outcome = run(10, [*logins, Member(clients=1, work_us=MS, tenant="beta")])
    assert 1.9 * 2_000 * MS < sum(outcome.served_us[i] for i in range(10)) <= 2 * 2_000 * MS
    assert outcome.worst_wait_us(10) == 0
    model = model_of(10, logins[:3])
    assert model.may_start(0)
    turns = [(login, model.begin(login)) for login in (0, 1)]
    assert not any(model.may_start(login) for login in range(3))
    for login, turn in turns:
        model.end(login, turn, MS)
    assert all(model.may_start(login) for login in range(3))


def test_what_is_reserved_is_all_logins_together():
    members = [Member(clients=1, work_us=MS, reserved=2, tenant="acme") for _ in range(5)]
    members.append(Member(clients=1, work_us=MS))
    model = model_of(4, members)
    turns = [model.begin(5), model.begin(5)]
    assert not model.may_start(5), "two are reserved, not ten"
    assert model.may_start(0)
    model.end(5, turns.pop(), MS)
    assert model.may_start(5)
    for login in range(5):
        model.part(login)
    turns += [model.begin(5), model.begin(5)]
    assert model.may_start(5), "the tenant is gone, and what was reserved for it is not"


def test_who_waits_behind_another_login_of_its_tenant_is_not_passed():
    model = model_of(1, [Member(clients=1, work_us=MS, tenant="acme") for _ in range(2)])
    turn = model.begin(0)
    model.wait(1)
    model.end(0, turn, MS)
    assert not model.may_start(0)
    assert model.next(0, MS) == 1


def test_turns_of_one_login_follow_each_other():
    members = [Member(clients=4, work_us=300, tenant="acme") for _ in range(10)]
    outcome = run(2, members)
    assert outcome.kept / sum(outcome.turns.values()) > 0.3
    assert outcome.evenness(members, list(range(10))) > 0.98


def test_a_turn_that_ends_elsewhere():
    """Its login has come to a share of which nothing has run yet, with those of its clients that wait."""
    model = model_of(2, [Member(clients=1, work_us=MS, tenant=name) for name in ("acme", "beta")])
    turn = model.begin(0)
    model.wait(0)
    model.wait(1)
    model.move(0, 7)
    model.end(0, turn, 1)
    served = []
    for now in range(2, 6):
        chosen = model.next(now_us=now)
        assert chosen is not None
        model.take_waiting(chosen)
        model.end(chosen, model.begin(chosen, now), now + MS)
        served.append(chosen)
        if now < 4:
            model.wait(chosen, now)
    assert sorted(served) == [0, 0, 1, 1]


# --- tenants that several workers serve ----------------------------------------------


def test_a_weight_is_had_once_over_all_workers():
    """Beside one that is served here alone, one that is served by two has half of its weight in each."""
    members = [Member(clients=1, work_us=MS, tenant=name) for name in ("acme", "beta")]
    model = model_of(1, members, workers=2)
    model.elsewhere(0, 1, 3)
    now = 0
    served = [0, 0]
    for login in (0, 1):
        for _ in range(1000):
            model.wait(login, now)
    for _ in range(900):
        chosen = model.next(now_us=now)
        assert chosen is not None
        model.take_waiting(chosen)
        turn = model.begin(chosen, now)
        now += MS
        model.end(chosen, turn, now)
        served[chosen] += 1
    assert served[1] / served[0] == pytest.approx(2, rel=0.05)
    assert model.need == 150, "by which workers share what there is"
    model.elsewhere(0, 1, 0)
    model.begin(0, now)
    assert model.need == 200


def test_a_maximum_holds_over_all_workers():
    model = model_of(10, [Member(clients=1, work_us=MS, max=3, tenant="acme")], workers=3)
    model.elsewhere(0, 1, 1)
    model.elsewhere(0, 2, 1)
    assert model.may_start(0)
    turn = model.begin(0)
    assert not model.may_start(0)
    model.wait(0)
    assert model.next() is None
    model.elsewhere(0, 1, 0)
    assert model.next() == 0
    model.take_waiting(0)
    model.begin(0)
    model.end(0, turn, MS)
    model.wait(0, MS)
    assert model.next(now_us=MS) == 0


def test_two_workers_that_begin_at_once_stay_within_the_maximum():
    """The other one begins the last turn after this one has looked."""
    model = model_of(10, [Member(clients=1, work_us=MS, max=3, tenant="acme")], workers=2)
    assert model.begin(0)
    assert model.may_start(0)
    model.elsewhere(0, 1, 2)
    assert not model.begin(0)
    assert model.counted(0, 0) == 1
    model.elsewhere(0, 1, 1)
    assert model.begin(0)
    assert model.counted(0, 0) == 2


def test_a_reserve_is_no_way_around_the_maximum():
    """Each worker has none of the tenant's turns, and so less than is reserved for it."""
    members = [
        Member(clients=1, work_us=MS, reserved=2, max=2, tenant="acme"),
        Member(clients=1, work_us=MS, tenant="beta"),
    ]
    model = model_of(10, members, workers=2)
    model.elsewhere(0, 1, 2)
    model.wait(0)
    assert model.next() is None
    model.wait(1)
    assert model.next() == 1, "others don't wait behind it"
    model.elsewhere(0, 1, 1)
    assert model.next() == 0


@pytest.mark.parametrize("seed", range(5))
def test_random_loads_are_served_whole(seed):
    """Whatever the mix: nobody who waits is forgotten, and no server idles beside one who may have it."""
    chance = random.Random(seed)
    members = [
        Member(
            clients=chance.randrange(1, 30),
            work_us=chance.choice([100, MS, 10 * MS]),
            pause_us=chance.choice([0, MS, 100 * MS]),
            weight=chance.choice([10, 100, 1000]),
            max=chance.choice([1, 3, 1000]),
            tenant=chance.choice(["", "", "acme", "beta"]),
        )
        for _ in range(chance.randrange(2, 40))
    ]
    outcome = run(chance.randrange(1, 20), members, seed=seed)
    # a login of a tenant with little weight and many of them may have to wait for longer than this
    assert all(outcome.turns[i] for i, one in enumerate(members) if not one.tenant)
    tenants = {one.tenant for one in members if one.tenant}
    assert all(outcome.served_of(members, one) for one in tenants)
