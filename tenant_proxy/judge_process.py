"""A judge process: judges statements that would hold up a worker's loop (relay/judges.py starts it).

It reads a request at a time from the socket that it is started with, and answers it: the worker cannot
be harmed by a text that takes all memory, all time, or the parser with it.  It is nice, so that on a busy
machine it waits for those who carry traffic, and ends by itself when a text has left it large.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from dataclasses import fields
from typing import Final

from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.hub import die_with_parent
from tenant_proxy.model import Action, Edit, Effect, Verdict

#: of a request: size of the scope's pickle, size of the text
REQUEST: Final = struct.Struct("!II")
#: of an answer: 1 if the process ends now, size of the verdict
ANSWER: Final = struct.Struct("!BI")

#: address space; what asks for more ends the process
MEMORY_BYTES: Final = 1024 * 1024 * 1024
#: after a judgement that left it larger than this, it makes place for a fresh one
LARGE_BYTES: Final = 192 * 1024 * 1024
STACK_BYTES: Final = 64 * 1024 * 1024
NICENESS: Final = 5
#: CPU time of a judgement; what takes more ends the process
CPU_S: Final = 4.0
#: scopes kept; each comes with every request, and is read once
SCOPES: Final = 64


def dump(verdict: Verdict) -> bytes:
    """A verdict as JSON: its values in the order of its fields."""
    values = [getattr(verdict, field.name) for field in fields(Verdict)]
    return json.dumps(values, default=lambda action: action.value).encode()


def load(data: bytes) -> Verdict:
    values = dict(zip((field.name for field in fields(Verdict)), json.loads(data), strict=True))
    values["action"] = Action(values["action"])
    values["effects"] = Effect(values["effects"])
    values["edits"] = tuple(Edit(*edit) for edit in values["edits"])
    values["bound"] = tuple(map(tuple, values["bound"]))
    for name in ("deallocates", "settings", "executes", "listens"):
        values[name] = tuple(values[name])
    return Verdict(**values)


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent()
    os.nice(NICENESS)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_STACK, STACK_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    # what goes wrong from here on could hold a statement's text; a parser out of memory writes its contexts
    logging.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    gc.freeze()
    gc.disable()
    serve(sock)


def serve(sock: socket.socket) -> None:
    guard = Guard()
    scopes: dict[bytes, GuardScope] = {}
    with sock, contextlib.suppress(OSError, EOFError):
        while True:
            scope_size, text_size = REQUEST.unpack(_read(sock, REQUEST.size))
            pickled, text = _read(sock, scope_size), _read(sock, text_size)
            scope = scopes.get(pickled)
            if scope is None:
                if len(scopes) >= SCOPES:
                    scopes.clear()
                # from the worker, which has started this process
                scope = scopes[pickled] = pickle.loads(pickled)  # noqa: S301
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            verdict = dump(guard.judge(scope, text))
            signal.setitimer(signal.ITIMER_PROF, 0)
            del text
            large = resident_bytes() > LARGE_BYTES
            sock.sendall(ANSWER.pack(large, len(verdict)) + verdict)
            if large:
                return


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux: the most that it ever had
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _read(sock: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return bytes(data)


def _limit(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard == resource.RLIM_INFINITY or hard >= limit:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (limit, hard))


if __name__ == "__main__":
    main()
