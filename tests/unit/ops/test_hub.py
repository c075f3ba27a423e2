"""The switchboard: who can call whom, what a failed call says, what is bounded."""

import asyncio
import socket
import struct
import subprocess
import sys

import pytest

from tenant_proxy import hub
from tenant_proxy.hub import Hub, HubClient, HubError


class Exchange:
    """A hub with children in this process."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.clients: list[HubClient] = []
        self.peers: dict[str, hub.Peer] = {}

    async def child(self, name: str, worker: int | None = None, incarnation: int = 1) -> HubClient:
        ours, theirs = socket.socketpair()
        self.peers[name] = await self.hub.attach(name, ours, worker=worker, incarnation=incarnation)
        client = await HubClient.connect(theirs.detach())
        self.clients.append(client)
        return client


@pytest.fixture
async def exchange():
    exchange = Exchange()
    yield exchange
    for client in exchange.clients:
        client.close()
    for peer in exchange.peers.values():
        exchange.hub.detach(peer)
    await asyncio.sleep(0)


async def test_a_child_calls_the_supervisor_which_knows_who_asks(exchange):
    exchange.hub.on("whoami", lambda caller, params: {"caller": caller, **params})
    worker = await exchange.child("worker:0", 0)
    assert await worker.call("supervisor", "whoami", {"x": 1}) == {"caller": "worker:0", "x": 1}


async def test_children_call_each_other_through_the_supervisor(exchange):
    one = await exchange.child("worker:1", 1)
    control = await exchange.child("control")

    async def echo(params):
        await asyncio.sleep(0)
        return params["text"]

    one.on("echo", echo)
    assert await control.call("worker:1", "echo", {"text": "grüß"}) == "grüß"


async def test_words_that_are_no_text_and_large_numbers_arrive(exchange):
    """As a client's name that is no UTF-8."""
    exchange.hub.on("echo", lambda caller, params: params)
    worker = await exchange.child("worker:0", 0)
    for value in (b"caf\xe9".decode("utf-8", "surrogateescape"), 1 << 70, -(1 << 63), None, {"1": 2.5}):
        assert await worker.call("supervisor", "echo", {"value": value}) == {"value": value}


async def test_many_calls_at_once_get_their_own_answers(exchange):
    worker = await exchange.child("worker:0", 0)
    control = await exchange.child("control")

    async def double(params):
        await asyncio.sleep(0.001 * (params["n"] % 7))
        return params["n"] * 2

    worker.on("double", double)
    answers = await asyncio.gather(*(control.call("worker:0", "double", {"n": n}) for n in range(200)))
    assert answers == [n * 2 for n in range(200)]


async def test_workers_asks_all_workers_in_order_and_not_the_control_process(exchange):
    for slot in (2, 0, 1):
        worker = await exchange.child(f"worker:{slot}", slot, incarnation=slot + 10)
        worker.on("slot", lambda params, slot=slot: slot)
    control = await exchange.child("control")
    assert await control.call("workers", "slot") == [
        {"worker": slot, "incarnation": slot + 10, "result": slot} for slot in range(3)
    ]


async def test_workers_returns_those_that_answered_in_time(exchange):
    quick = await exchange.child("worker:0", 0)
    quick.on("snapshot", lambda params: "here")
    stuck = await exchange.child("worker:1", 1)
    stuck.on("snapshot", lambda params: asyncio.sleep(30))
    await exchange.child("worker:2", 2)  # has no such method
    control = await exchange.child("control")
    answers = await control.call("workers", "snapshot", timeout_s=0.2)
    assert [(a["worker"], a["result"]) for a in answers] == [(0, "here")]


async def test_a_worker_may_ask_all_workers_itself_included(exchange):
    worker = await exchange.child("worker:0", 0)
    worker.on("n", lambda params: 1)
    assert [a["result"] for a in await worker.call("workers", "n")] == [1]


@pytest.mark.parametrize(
    ("target", "method", "text"),
    [
        ("worker:9", "x", '"worker:9" is not there'),
        ("supervisor", "x", 'no method "x"'),
        ("worker:0", "x", 'no method "x"'),
        ("worker:0", "refuse", "not now"),
        ("worker:0", "break", "break failed: ZeroDivisionError"),
    ],
)
async def test_a_call_that_fails_says_why(exchange, caplog, target, method, text):
    def refuse(params):
        raise HubError("not now")

    worker = await exchange.child("worker:0", 0)
    worker.on("refuse", refuse)
    worker.on("break", lambda params: 1 / 0)
    control = await exchange.child("control")
    with pytest.raises(HubError, match=text):
        await control.call(target, method)


async def test_an_unforeseen_error_does_not_carry_its_text_which_might_be_a_secret(exchange, caplog):
    def leak(params):
        raise ValueError("hunter2")

    worker = await exchange.child("worker:0", 0)
    worker.on("leak", leak)
    control = await exchange.child("control")
    with pytest.raises(HubError) as error:
        await control.call("worker:0", "leak")
    assert "hunter2" not in str(error.value)


async def test_no_answer_in_time_is_an_error_and_the_link_goes_on(exchange):
    worker = await exchange.child("worker:0", 0)
    worker.on("sleep", lambda params: asyncio.sleep(30))
    worker.on("ok", lambda params: "ok")
    control = await exchange.child("control")
    with pytest.raises(HubError, match="did not answer"):
        await control.call("worker:0", "sleep", timeout_s=0.05)
    assert await control.call("worker:0", "ok") == "ok"


async def test_a_child_that_dies_fails_the_calls_to_it_at_once(exchange):
    worker = await exchange.child("worker:0", 0)
    worker.on("sleep", lambda params: asyncio.sleep(30))
    control = await exchange.child("control")
    call = asyncio.create_task(control.call("worker:0", "sleep", timeout_s=30))
    await asyncio.sleep(0.05)
    worker.close()
    with pytest.raises(HubError, match="worker:0 is gone"):
        await asyncio.wait_for(call, 5)
    with pytest.raises(HubError, match="gone"):
        await control.call("worker:0", "sleep")


async def test_a_child_sees_that_the_supervisor_is_gone(exchange):
    worker = await exchange.child("worker:0", 0)
    call = asyncio.create_task(worker.call("worker:0", "never"))
    exchange.hub.detach(exchange.peers["worker:0"])
    await asyncio.wait_for(worker.closed(), 5)
    with pytest.raises(HubError):
        await call
    with pytest.raises(HubError, match="gone"):
        await worker.call("supervisor", "x")


async def test_a_restarted_worker_takes_over_its_name(exchange):
    old = await exchange.child("worker:0", 0, incarnation=1)
    old_peer = exchange.peers["worker:0"]
    new = await exchange.child("worker:0", 0, incarnation=2)
    new.on("who", lambda params: "new")
    exchange.hub.detach(old_peer)  # noticed late
    control = await exchange.child("control")
    assert await control.call("worker:0", "who") == "new"
    old.close()


async def test_a_result_that_is_too_large_is_an_error_for_this_call_only(exchange, monkeypatch):
    monkeypatch.setattr(hub, "MAX_FRAME_BYTES", 10_000)
    worker = await exchange.child("worker:0", 0)
    worker.on("big", lambda params: "x" * 20_000)
    worker.on("small", lambda params: "x")
    control = await exchange.child("control")
    with pytest.raises(HubError, match="larger than"):
        await control.call("worker:0", "big")
    assert await control.call("worker:0", "small") == "x"


async def test_a_large_result_passes(exchange):
    worker = await exchange.child("worker:0", 0)
    worker.on("big", lambda params: "x" * 5_000_000)
    control = await exchange.child("control")
    assert len(await control.call("worker:0", "big")) == 5_000_000


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack("!I", hub.MAX_FRAME_BYTES + 1),
        struct.pack("!I", 4) + b"null",
        struct.pack("!I", 5) + b"{}{}{",
        struct.pack("!I", 2) + b"{}",
        struct.pack("!I", 2) + b"\xff\xfe",
    ],
)
async def test_a_frame_that_breaks_the_rules_ends_the_link(exchange, garbage, caplog):
    ours, theirs = socket.socketpair()
    peer = await exchange.hub.attach("worker:5", ours, worker=5)
    exchange.peers["worker:5"] = peer
    theirs.sendall(garbage)
    await asyncio.wait_for(peer.link.gone.wait(), 5)
    theirs.close()


async def test_the_number_of_unanswered_calls_is_bounded(exchange, monkeypatch):
    monkeypatch.setattr(hub, "MAX_PENDING", 3)
    worker = await exchange.child("worker:0", 0)
    worker.on("sleep", lambda params: asyncio.sleep(30))
    calls = [asyncio.create_task(worker.call("worker:0", "sleep", timeout_s=30)) for _ in range(3)]
    await asyncio.sleep(0.05)
    with pytest.raises(HubError, match="unanswered"):
        await worker.call("worker:0", "sleep")
    worker.close()
    assert all(isinstance(r, HubError) for r in await asyncio.gather(*calls, return_exceptions=True))


async def test_a_peer_that_does_not_read_does_not_fill_our_memory(exchange, monkeypatch):
    monkeypatch.setattr(hub, "MAX_UNSENT_BYTES", 100_000)
    ours, theirs = socket.socketpair()
    exchange.peers["worker:0"] = await exchange.hub.attach("worker:0", ours, worker=0)
    calls = [
        asyncio.create_task(exchange.hub.call("worker:0", "x", {"text": "y" * 100_000}, timeout_s=0.2))
        for _ in range(30)
    ]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert any("does not read" in str(e) for e in errors)
    theirs.close()


@pytest.mark.parametrize("module", ["tenant_proxy.worker", "tenant_proxy.control"])
def test_a_child_that_the_supervisor_does_not_want_says_so_in_a_line(module):
    """As when the proxy is stopped while it starts."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        done = subprocess.run(
            [sys.executable, "-m", module, "--hub-fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "supervisor" in done.stdout + done.stderr
