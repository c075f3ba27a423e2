"""A child's phases, seen from the loop that it lives in."""

import asyncio
import sys

import pytest

from tenant_proxy.children import Child, Phase, RestartPolicy, describe_exit
from tenant_proxy.hub import Hub


def child_of(*argv, **policy):
    return Child(
        "worker:0",
        list(argv),
        Hub(),
        worker=0,
        pass_fds=lambda: (),
        policy=RestartPolicy(**policy),
        next_incarnation=iter(range(1, 100)).__next__,
    )


async def test_a_change_before_the_wait_begins_is_not_missed():
    child = child_of("unused")
    changed = child.changed()
    child._enter(Phase.STARTING)
    await asyncio.wait_for(changed, 5)


async def test_a_child_that_exits_is_started_again_until_it_is_given_up():
    child = child_of(sys.executable, "-c", "raise SystemExit(3)", first_s=0.001, max_s=0.01)
    child.start()
    while child.restarts < 2:
        await asyncio.wait_for(child.changed(), 30)
    assert child.last_exit == "exit status 3"
    assert child.incarnation >= 2
    child.give_up()
    assert await child.join(30)
    assert child.status()["phase"] == "stopped"
    assert child.pid is None


async def test_a_program_that_is_not_there_is_tried_again():
    child = child_of("/no/such/program", first_s=0.001)
    child.start()
    while child.restarts < 2:
        await asyncio.wait_for(child.changed(), 30)
    child.give_up()
    assert await child.join(30)
    assert "No such file" in child.last_exit


async def test_stop_is_sigterm_and_then_sigkill():
    polite = child_of(sys.executable, "-c", "import time; time.sleep(60)")
    deaf = child_of("/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    for child in (polite, deaf):
        child.start()
        while child.pid is None:
            await asyncio.wait_for(child.changed(), 30)
    await asyncio.sleep(0.3)  # until the trap is set
    await asyncio.gather(polite.stop(grace_s=30), deaf.stop(grace_s=0.3))
    assert polite.last_exit == "killed by SIGTERM"
    assert deaf.last_exit == "killed by SIGKILL"


@pytest.mark.parametrize("failures", [1, 2, 5, 100, 10_000])
def test_pauses_double_up_to_the_longest(failures):
    policy = RestartPolicy(first_s=0.1, max_s=15)
    longest = min(15, 0.1 * 2 ** min(failures - 1, 50))
    assert 0.8 * longest <= policy.pause_s(failures) <= longest


def test_exits_are_told_in_words():
    assert describe_exit(3) == "exit status 3"
    assert describe_exit(-9) == "killed by SIGKILL"
    assert describe_exit(-33) == "killed by signal 33"
