"""Starts programs of ours in a fraction of a second of CPU: forks of a process that has imported the package.

    program = Warm().start(code, arguments, log=path)      # much as subprocess.Popen([python, "-c", code, …])

Nearly all of a start is imports, and the tests start hundreds of proxies.  What starts afresh is tested where
it matters (`fresh=True`, the commands, the demo).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MODULES = (
    "tenant_proxy.cli",
    "tenant_proxy.supervisor",
    "tenant_proxy.worker",
    "tenant_proxy.control.__main__",
    "tenant_proxy.control.http",
    "tenant_proxy.control.state",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.loops.uvloop",
    "uvicorn.lifespan.off",
)
#: room for what the proxy's processes show as their command, which is written over this process's
_ROOM = "-" * 200
_MESSAGE_BYTES = 256 * 1024
_POLL_S = 0.005


class Warm:
    """The process that programs are forked from; one for the whole run."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno()), _ROOM],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(self, code: str, arguments: Sequence[str], *, env: Mapping[str, str], log: Path) -> Program:
        return Program(
            self, self.ask({"code": code, "arguments": [*arguments], "env": dict(env), "log": str(log)})
        )

    def ask(self, request: Any) -> Any:
        self._sock.sendall(json.dumps(request).encode())
        answer = self._sock.recv(_MESSAGE_BYTES)
        assert answer, "the process that programs are forked from has ended"
        return json.loads(answer)

    def close(self) -> None:
        """Ends what still runs."""
        self._sock.close()
        self._process.wait(30)


class Program:
    """As far as tests need it, a subprocess.Popen."""

    def __init__(self, warm: Warm, pid: int) -> None:
        self._warm = warm
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._warm.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + timeout if timeout is not None else None
        while (status := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(_POLL_S)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


# --- in that process ---------------------------------------------------------------


def serve(sock: socket.socket) -> None:
    for module in MODULES:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    running: set[int] = set()
    while message := sock.recv(_MESSAGE_BYTES):
        request = json.loads(message)
        if "code" in request:
            pid = os.fork()
            if not pid:
                sock.close()
                _run(**request)
            running.add(pid)
            answer: int | None = pid
        else:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            running.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        sock.sendall(json.dumps(answer).encode())
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _run(code: str, arguments: list[str], env: dict[str, str], log: str) -> None:
    status = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = ["-c", *arguments]
        exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
