"""Where children are born: a copy of the supervisor in which all that a worker needs has been imported.

Imports are nearly all of what a start costs.  So `serve` forks this process first of all, before it reads
the configuration: it has no secrets, no loop and no threads, none of which would survive a fork.  It forks
a child whenever the supervisor asks for one.

    supervisor ── argv, files ──> nursery
                                    └─ a go-between, which ends at once
                                         └─ the child, from then on the supervisor's own

When the go-between has ended its child passes to the supervisor (a subreaper), as if that had started it:
the supervisor is told how it ends, and it dies with the supervisor.  Should the nursery end or fail,
children are started afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from tenant_proxy.children import Process, start_afresh
from tenant_proxy.hub import die_with_parent
from tenant_proxy.obs.log import get_logger
from tenant_proxy.system import raise_fd_limit

log = get_logger("supervisor")

#: what `python -m` runs -> the module whose `main` does the same
ENTRIES: Final = {
    "tenant_proxy.worker": "tenant_proxy.worker",
    "tenant_proxy.control": "tenant_proxy.control.__main__",
}
#: files that the kernel passes with one message (SCM_MAX_FD)
MAX_FILES: Final = 253
MESSAGE_BYTES: Final = 64 * 1024
#: a nursery that has not answered by then is taken for broken
ANSWER_TIMEOUT_S: Final = 60.0
#: between looks whether the go-between has ended, which it does at once
REPARENT_POLL_S: Final = 0.0005

_PR_SET_CHILD_SUBREAPER: Final = 36


class Nursery:
    """The supervisor's side.  While it is open, all children of this process are its own or left behind by
    those (a killed worker's judges): whatever else ends is reaped too."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._sock: socket.socket | None = sock
        self._pid = pid
        self._asking = asyncio.Lock()
        #: born here and still running
        self._born: dict[int, _Born] = {}

    @classmethod
    def open(cls) -> Nursery | None:
        """Forks the nursery; None where the system can't do it.  No thread may run yet."""
        if not _adopt_orphans(True):
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        pid = os.fork()
        if not pid:
            ours.close()
            _run(partial(_serve, theirs, supervisor))
        theirs.close()
        ours.setblocking(False)
        return cls(ours, pid)

    async def start(self, argv: Sequence[str], files: Iterable[int]) -> Process:
        """A child that does what `argv` says (python -m …) and has these files under the same numbers."""
        files = [*files]
        async with self._asking:
            if self._sock is not None:
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(signal.SIGCHLD, self._reap)
                try:
                    socket.send_fds(self._sock, [json.dumps([argv, files]).encode()], files)
                    answer = loop.sock_recv(self._sock, MESSAGE_BYTES)
                    pid = int(await asyncio.wait_for(answer, ANSWER_TIMEOUT_S))
                except BaseException as error:
                    self._end(repr(error))
                    if not isinstance(error, (OSError, ValueError, TimeoutError)):
                        raise
                else:
                    self._born[pid] = born = _Born(pid)
                    loop.call_soon(self._reap)  # it may have ended already
                    return born
        return await start_afresh(argv, files)

    def _end(self, reason: str) -> None:
        if self._sock is not None:
            log.error("the nursery has ended, children are started afresh", reason=reason)
            self.close()

    def close(self) -> None:
        """The nursery ends; those born there live on."""
        if self._sock is None:
            return
        self._sock.close()
        self._sock = None
        _adopt_orphans(False)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _reap(self) -> None:
        for born in list(self._born.values()):
            if born.poll():
                del self._born[born.pid]
        # One that has just been born isn't known before the answer is here.
        while self._sock is not None and not self._asking.locked():
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if ended.si_pid == self._pid:
                self._end("it was ended")
            elif ended.si_pid in self._born:
                asyncio.get_running_loop().call_soon(self._reap)
                return
            else:
                os.waitpid(ended.si_pid, 0)


class _Born:
    """A child of the nursery's, as `children.Process`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def poll(self) -> bool:
        """Whether it has ended."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # its go-between has not ended yet
            return False
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)
            self._ended.set()
        return bool(pid)


# --- in the nursery ----------------------------------------------------------------


def _serve(sock: socket.socket, supervisor: int) -> None:
    die_with_parent()
    if os.getppid() != supervisor:
        return
    os.setpgid(0, 0)  # Ctrl-C in a terminal is for the supervisor alone to handle
    raise_fd_limit()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    gc.disable()  # all of what is made now stays
    for module in ENTRIES.values():
        importlib.import_module(module)
    # what is never collected is never written to, and stays shared
    gc.collect()
    gc.freeze()
    gc.enable()
    _show_as(["tenant-proxy:", "nursery"])
    while True:
        message, files, _, _ = socket.recv_fds(sock, MESSAGE_BYTES, MAX_FILES)
        if not message:
            return
        argv, numbers = json.loads(message)
        go_between = os.fork()
        if not go_between:
            _run(partial(_go_between, sock, supervisor, argv, files, numbers))
        os.waitpid(go_between, 0)
        for file in files:
            os.close(file)


def _go_between(
    sock: socket.socket, supervisor: int, argv: list[str], files: list[int], numbers: list[int]
) -> None:
    me = os.getpid()
    child = os.fork()
    if child:
        sock.send(str(child).encode())
        return
    os.setpgid(0, 0)
    while os.getppid() == me:
        time.sleep(REPARENT_POLL_S)
    die_with_parent()
    if os.getppid() != supervisor:
        return
    sock.close()
    _renumber(files, numbers)
    _show_as(argv)
    _, _, module, *arguments = argv
    sys.argv = [module, *arguments]
    sys.exit(importlib.import_module(ENTRIES[module]).main())


def _renumber(files: list[int], numbers: list[int]) -> None:
    if len(files) != len(numbers):
        raise OSError("not all files came")
    above = max((*files, *numbers), default=0) + 1
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, above) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(moved, numbers, strict=True):
        os.dup2(file, number, inheritable=False)
        os.close(file)


def _run(work: Callable[[], None]) -> NoReturn:
    """Does it and ends the process, whatever comes: nothing returns to the code that has been forked."""
    status = 1
    try:
        work()
        status = 0
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


# --- Linux -------------------------------------------------------------------------


def _adopt_orphans(yes: bool) -> bool:
    """Whether what its children leave behind passes to this process, rather than to process 1."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _show_as(argv: Sequence[str]) -> None:
    """What ps shows of this process, as far as there is room: it is written over the command's arguments."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
    # fields 48 and 49 of proc(5), the state being number 3; 0 if we may not know
    begin, end = int(after_name[45]), int(after_name[46])
    if 0 < begin < end:
        size = end - begin
        shown = b"\0".join(map(os.fsencode, argv))[: size - 1]
        ctypes.memmove(begin, shown.ljust(size, b"\0"), size)
