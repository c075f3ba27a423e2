"""One child process of the supervisor: started, watched, restarted with growing pauses.

A child is in one of the phases below; `Child._enter` is the only writer.

    STARTING -> READY -> (exit) -> PAUSED -> STARTING …
    any      -> STOPPED when it exits while the child is not wanted any more
"""

from __future__ import annotations

import asyncio
import enum
import math
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tenant_proxy import hub
from tenant_proxy.obs.log import get_logger

log = get_logger("supervisor")


class Phase(enum.StrEnum):
    STARTING = "starting"
    READY = "ready"
    #: waits before the next start
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    #: pause before the first restart; doubles with each failure up to max_s, with jitter
    first_s: float = 0.1
    max_s: float = 15.0
    #: a child that was ready for this long was stable: the next pause is first_s again
    stable_s: float = 30.0
    #: a child that does not say "ready" within this is killed
    start_timeout_s: float = 60.0
    #: what a child has left, when its time to finish is over, to close its files and exit
    exit_grace_s: float = 5.0

    def pause_s(self, failures: int) -> float:
        """Before restart number `failures` (from 1) in a row; up to a fifth shorter, at random."""
        longest = min(self.max_s, self.first_s * 2.0 ** min(failures - 1, 32))
        return longest * random.uniform(0.8, 1.0)


class Process(Protocol):
    """What is needed of a child's process: asyncio's have it, and the nursery's."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int: ...


#: (argv, files that it has under the same numbers) -> the process
Start = Callable[[Sequence[str], Iterable[int]], Awaitable[Process]]


async def start_afresh(argv: Sequence[str], files: Iterable[int]) -> Process:
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=subprocess.DEVNULL,
        pass_fds=tuple(files),
        process_group=0,  # Ctrl-C in a terminal is for the supervisor alone to handle
    )


class Child:
    """Keeps one process running until `stop`.

    `argv` gets `--hub-fd N` appended; `pass_fds` are inherited under the same numbers.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        switchboard: hub.Hub,
        *,
        worker: int | None = None,
        pass_fds: Callable[[], Iterable[int]],
        policy: RestartPolicy,
        next_incarnation: Callable[[], int],
        on_exit: Callable[[Child], None] = lambda child: None,
        start_process: Start = start_afresh,
    ) -> None:
        self.name = name
        self.worker = worker
        self.phase = Phase.STOPPED
        self.incarnation = 0
        self.restarts = 0
        self.last_exit = ""
        #: failures without a stable run between them
        self.failures = 0
        self.was_ready = False
        self._argv = argv
        self._hub = switchboard
        self._pass_fds = pass_fds
        self._policy = policy
        self._next_incarnation = next_incarnation
        self._on_exit = on_exit
        self._start_process = start_process
        self._unwanted = asyncio.Event()
        self._process: Process | None = None
        self._started_s = 0.0
        #: when the process became ready, on the monotonic clock; infinite before
        self._ready_s = math.inf
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self._started_s if self._process is not None else 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_running(), name=f"keep {self.name}")

    def set_ready(self) -> None:
        if self.phase is Phase.STARTING:
            self.was_ready = True
            self._ready_s = time.monotonic()
            self._enter(Phase.READY)

    def give_up(self) -> None:
        """Does not start it again; the process, if there is one, goes on."""
        self._unwanted.set()

    def send_signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            # Not Process.send_signal: it polls first, and so may reap the child before asyncio's
            # watcher does, which then reports status 255.
            try:
                os.kill(self._process.pid, number)
            except ProcessLookupError:
                pass

    async def join(self, timeout_s: float | None = None) -> bool:
        """Waits until it is STOPPED (after `give_up`); False if that takes longer than `timeout_s`."""
        if self._task is None:
            return True
        done, _ = await asyncio.wait([self._task], timeout=timeout_s)
        if done:
            self._task.result()
        return bool(done)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL if it is still there after `grace_s`."""
        self.give_up()
        self.send_signal(signal.SIGTERM)
        if not await self.join(grace_s):
            self.send_signal(signal.SIGKILL)
            await self.join()

    def changed(self) -> Coroutine[Any, Any, Any]:
        """Ends at the next change of phase after this call, even if it is awaited later."""
        return self._changed.wait()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep_running(self) -> None:
        while not self._unwanted.is_set():
            try:
                await self._run_once()
            except OSError as error:  # fork or exec failed: no memory, no such interpreter
                self.last_exit = f"could not be started: {error.strerror}"
                log.error("child could not be started", child=self.name, error=error)
            if self._unwanted.is_set():
                break
            self.restarts += 1
            pause_s = self._policy.pause_s(self.failures)
            self._enter(Phase.PAUSED)
            log.error(
                "child exited, restarting", child=self.name, exit=self.last_exit,
                pause_s=round(pause_s, 3), restarts=self.restarts,
            )  # fmt: skip
            try:
                await asyncio.wait_for(self._unwanted.wait(), pause_s)
            except TimeoutError:
                pass
        self._enter(Phase.STOPPED)

    async def _run_once(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.failures += 1  # until it has proved stable
        with theirs:
            fd = theirs.fileno()
            try:
                process = await self._start_process(
                    [*self._argv, "--hub-fd", str(fd)], (fd, *self._pass_fds())
                )
            except BaseException:
                ours.close()
                raise
        self._process = process
        self._started_s = time.monotonic()
        self._ready_s = math.inf
        self.incarnation = self._next_incarnation()
        self._enter(Phase.STARTING)
        peer = await self._hub.attach(self.name, ours, worker=self.worker, incarnation=self.incarnation)
        if self._unwanted.is_set():  # while it was being started: nobody could tell it yet
            self.send_signal(signal.SIGTERM)
        watch = asyncio.create_task(self._watch_start(process))
        try:
            code = await process.wait()
        finally:
            watch.cancel()
            self._hub.detach(peer)
        if time.monotonic() - self._ready_s >= self._policy.stable_s:
            self.failures = 1
        self._process = None
        self.last_exit = describe_exit(code)
        self._on_exit(self)

    async def _watch_start(self, process: Process) -> None:
        await asyncio.sleep(self._policy.start_timeout_s)
        if self.phase is Phase.STARTING:
            log.error("child does not get ready, killing it", child=self.name, pid=process.pid)
            self.send_signal(signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        return {
            "phase": str(self.phase),
            "pid": self.pid,
            "incarnation": self.incarnation,
            "restarts": self.restarts,
            "uptime_s": round(self.uptime_s, 3),
            "last_exit": self.last_exit,
        }


def describe_exit(code: int) -> str:
    """A wait status as people read it: "exit status 1", "killed by SIGKILL"."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
