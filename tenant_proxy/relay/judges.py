"""Judge processes: statements that take longer to judge than the loop may be held up.

A client whose statement is judged here is not read meanwhile (`Client.judging`); what the server answers
to its earlier ones goes on.  No text waits in a queue: it stays in its client's buffer, and the client is
told to offer it again, to be judged when its turn has come, or to be answered when the verdict is there.

Tenants have turns, and a tenant has one judge at a time.  A judgement that takes too long ends with its
process, and the statement is refused.  Processes start when they are needed and end when they are not.
"""

from __future__ import annotations

import asyncio
import enum
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.judge_process import ANSWER, CPU_S, REQUEST, load
from tenant_proxy.model import Action, Effect, Verdict
from tenant_proxy.obs.log import get_logger

log = get_logger("judges")

PROCESSES = 2
#: for a judgement and the start of its process, should the process not end itself (judge_process.CPU_S): on a
#: busy machine it may wait long for its turn
TIME_LIMIT_S = 30.0
#: for a place among the tenants' turns
WAIT_LIMIT_S = 60.0
#: a process that has had nothing to do for so long ends
IDLE_S = 120.0
#: between looks whether those killed are gone
REAP_S = 0.1
#: read or written at once
PIECE_BYTES = 128 * 1024


class Case(enum.Enum):
    """Where a client's statement is."""

    WAITS = "waits"  # in its tenant's queue
    CALLED = "called"  # its turn has come, and it is to offer its text
    JUDGED = "judged"  # a process has it
    ANSWERED = "answered"


@dataclass(slots=True, eq=False)
class Client:
    id: int
    tenant: str
    since: float
    case: Case
    #: that its statement is judged in
    scope: int = 0
    verdict: Verdict | None = None


class Judges:
    """The judge processes of a worker.  `wake` has a client offer its statement again."""

    def __init__(self, wake: Callable[[int], None]) -> None:
        self._wake_client = wake
        self._clients: dict[int, Client] = {}
        #: tenant -> clients that wait, in the order of the tenants' turns
        self._queues: dict[str, deque[Client]] = {}
        #: tenants that a process works for
        self._served: set[str] = set()
        self._processes: list[_Process] = []
        #: processes that were killed and are not gone yet
        self._dying: list[subprocess.Popen[bytes]] = []
        self._scopes: dict[int, bytes] = {}
        #: who waits for a verdict and is no client, by numbers below zero
        self._askers: dict[int, asyncio.Event] = {}
        self._asked = 0
        #: statements judged here, and those that ended their process
        self.judged = 0
        self.failed = 0

    # --- a client's statement ------------------------------------------------------

    def answer(self, client: int, scope: int) -> Verdict | None:
        """The verdict on the statement that the client offers, if it has been judged by these rules."""
        held = self._clients.get(client)
        if held is not None and held.verdict is not None and held.scope != scope:
            # a reload has come in between
            self.forget(client)
            return None
        return held.verdict if held is not None else None

    def submit(self, client: int, scope: GuardScope, sql: bytes) -> Verdict | None:
        """Takes a statement, or a place in the queue for it, and `wake` will be called; or refuses it."""
        held = self._clients.get(client)
        called = held is not None and held.case is Case.CALLED
        if held is None:
            held = self._clients[client] = Client(client, scope.tenant, time.monotonic(), Case.WAITS)
        held.scope = scope.id
        try:
            process = self._free_process() if held.tenant not in self._served else None
        except OSError as error:
            log.error("a judge process can't be started", error=str(error))
            del self._clients[client]
            return _UNAVAILABLE
        if process is None:
            self._enqueue(held, first=called)
            return None
        held.case = Case.JUDGED
        self._served.add(held.tenant)
        process.judge(held, self._pickled(scope), sql)
        return None

    def cancel(self, client: int) -> None:
        """A CancelRequest: the statement is refused, as PostgreSQL does one that runs."""
        held = self._clients.get(client)
        if held is not None and held.verdict is None:
            self._answer(held, _refused("57014", "canceling statement due to user request", "canceled"))

    def forget(self, client: int) -> None:
        """The statement has been dealt with, or its client has ended."""
        held = self._clients.pop(client, None)
        if held is None or held.case is not Case.WAITS:
            return
        queue = self._queues[held.tenant]
        queue.remove(held)
        if not queue:
            del self._queues[held.tenant]

    async def verdict(self, scope: GuardScope, sql: bytes) -> Verdict:
        """The verdict on a text that no client has sent: a tenant's code, which has the tenant's turns."""
        self._asked -= 1
        asker = self._asked
        woken = self._askers[asker] = asyncio.Event()
        try:
            while True:
                verdict = self.answer(asker, scope.id) or self.submit(asker, scope, sql)
                if verdict is not None:
                    return verdict
                await woken.wait()
                woken.clear()
        finally:
            del self._askers[asker]
            self.forget(asker)

    def _wake(self, client: int) -> None:
        woken = self._askers.get(client)
        if woken is not None:
            woken.set()
        else:
            self._wake_client(client)

    def state(self) -> dict[str, int]:
        """For metrics."""
        return {
            "processes": len(self._processes),
            "waiting": sum(map(len, self._queues.values())),
            "judged": self.judged,
            "failed": self.failed,
        }

    def close(self) -> None:
        for process in self._processes:
            process.end()
        for child in (*self._dying, *(process.child for process in self._processes)):
            child.wait()
        self._processes.clear()
        self._dying.clear()

    # --- turns ------------------------------------------------------------------------

    def _enqueue(self, held: Client, *, first: bool) -> None:
        held.case = Case.WAITS
        queue = self._queues.setdefault(held.tenant, deque())
        if first:
            queue.appendleft(held)
        else:
            queue.append(held)

    def _next_turns(self) -> None:
        """Calls clients to offer their texts while a process is free.

        One that does not come (it must first read what it has been sent) holds up nobody: the next is called.
        """
        while len(self._processes) < PROCESSES or any(process.free for process in self._processes):
            tenant = next((tenant for tenant in self._queues if tenant not in self._served), None)
            if tenant is None:
                return
            # the tenant's next turn is behind the others'
            queue = self._queues.pop(tenant)
            held = queue.popleft()
            if queue:
                self._queues[tenant] = queue
            if time.monotonic() - held.since > WAIT_LIMIT_S:
                self._answer(held, _TOO_LATE)
                continue
            held.case = Case.CALLED
            self._wake(held.id)

    def _answer(self, held: Client, verdict: Verdict) -> None:
        if held.case is Case.WAITS and held in self._queues.get(held.tenant, ()):
            self._queues[held.tenant].remove(held)
            if not self._queues[held.tenant]:
                del self._queues[held.tenant]
        held.case = Case.ANSWERED
        held.verdict = verdict
        if self._clients.get(held.id) is held:
            self._wake(held.id)

    # --- processes -----------------------------------------------------------------------

    def _free_process(self) -> _Process | None:
        for process in self._processes:
            if process.free:
                return process
        if len(self._processes) >= PROCESSES:
            return None
        process = _Process(self)
        self._processes.append(process)
        return process

    def _pickled(self, scope: GuardScope) -> bytes:
        if not scope.id:
            # of no client, and one of many
            return pickle.dumps(scope)
        found = self._scopes.get(scope.id)
        if found is None:
            found = self._scopes[scope.id] = pickle.dumps(scope)
        return found

    def on_done(self, process: _Process, held: Client, verdict: Verdict | None) -> None:
        """A process has judged, or failed to (None)."""
        self.judged += 1
        if verdict is None:
            self.failed += 1
            log.warning("a judge process failed", tenant=held.tenant, seconds=round(process.busy_s(), 1))
            verdict = _TOO_COMPLEX
        self._served.discard(held.tenant)
        if held.verdict is None:
            self._answer(held, verdict)
        self._next_turns()

    def on_end(self, process: _Process) -> None:
        self._processes.remove(process)
        self._dying.append(process.child)
        self._reap()

    def _reap(self) -> None:
        self._dying = [child for child in self._dying if child.poll() is None]
        if self._dying:
            asyncio.get_running_loop().call_later(REAP_S, self._reap)


class _Process:
    """One judge process, with at most one statement."""

    def __init__(self, judges: Judges) -> None:
        self._judges = judges
        self._loop = asyncio.get_running_loop()
        self._sock, theirs = socket.socketpair()
        try:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "tenant_proxy.judge_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        except OSError:
            self._sock.close()
            raise
        finally:
            theirs.close()
        self._sock.setblocking(False)
        self._out: list[memoryview] = []
        self._in = bytearray()
        self._held: Client | None = None
        self._since = 0.0
        self._timer = self._loop.call_later(IDLE_S, self._on_time)
        self._loop.add_reader(self._sock.fileno(), self._on_readable)

    @property
    def free(self) -> bool:
        return self._held is None

    def busy_s(self) -> float:
        return time.monotonic() - self._since

    def judge(self, held: Client, scope: bytes, sql: bytes) -> None:
        self._held = held
        self._since = time.monotonic()
        self._restart_timer(TIME_LIMIT_S)
        self._out = [memoryview(REQUEST.pack(len(scope), len(sql)) + scope), memoryview(sql)]
        self._loop.add_writer(self._sock.fileno(), self._on_writable)

    def end(self) -> None:
        """Ends the process, whatever it is at."""
        self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self.child.kill()

    def _restart_timer(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._on_time)

    def _on_time(self) -> None:
        self._fail()

    def _on_writable(self) -> None:
        try:
            sent = self._sock.send(self._out[0][:PIECE_BYTES])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._fail()
            return
        self._out[0] = self._out[0][sent:]
        if not self._out[0]:
            del self._out[0]
        if not self._out:
            self._loop.remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(PIECE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data or self._held is None:
            self._fail()
            return
        self._in += data
        if len(self._in) < ANSWER.size:
            return
        ends, size = ANSWER.unpack_from(self._in)
        if len(self._in) < ANSWER.size + size:
            return
        try:
            verdict: Verdict | None = load(bytes(self._in[ANSWER.size :]))
        except (ValueError, TypeError):
            verdict = None
        self._in.clear()
        held, self._held = self._held, None
        if ends or verdict is None:
            self.end()
            self._judges.on_end(self)
        else:
            self._restart_timer(IDLE_S)
        self._judges.on_done(self, held, verdict)

    def _fail(self) -> None:
        """Out of time, gone, or idle for long."""
        held, self._held = self._held, None
        self.end()
        self._judges.on_end(self)
        if held is not None:
            self._judges.on_done(self, held, None)


def _refused(sqlstate: str, message: str, reason: str, *, detail: str = "", hint: str = "") -> Verdict:
    return Verdict(
        Action.REJECT,
        Effect.WRITES | Effect.SETTINGS | Effect.OPAQUE,
        exact=True,
        sqlstate=sqlstate,
        message=message,
        detail=detail,
        hint=hint,
        reason=reason,
        rule=reason,
    )


_TOO_COMPLEX = _refused(
    "54001",
    "statement is too complex to be checked",
    "too_complex",
    detail=f"Checking it took more than {CPU_S:g} seconds, or too much memory.",
    hint="Send it in smaller parts.",
)
_UNAVAILABLE = _refused(
    "53000",
    "statement can't be checked now",
    "unavailable",
    detail="The proxy has no process for statements of this size.",
    hint="Try again; the operator finds the reason in the proxy's log.",
)
_TOO_LATE = _refused(
    "54001",
    "statement could not be checked in time",
    "too_complex",
    detail=f"Other statements of this tenant were being checked for {WAIT_LIMIT_S:g} seconds.",
    hint="Send fewer large statements at a time.",
)
