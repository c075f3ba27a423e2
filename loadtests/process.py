"""Starting and ending what is under test: whose account, its log, and its end by its own pid."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tenant_proxy.devel.installs import Account
from tenant_proxy.devel.lifeline import Lifeline


def as_installed() -> dict[str, str]:
    """The environment of a process whose start is timed.

    Packages are installed with their bytecode; where an environment forbids Python to write it, a program
    that runs from its sources compiles them anew at each start.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class StartError(Exception):
    """A server did not come up; the message ends with the last lines of its log."""


def give_to(path: Path, account: Account | None) -> None:
    """Makes an account the owner of a file or folder; nothing without one."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


class Service:
    """One server process (it may have children) and the folder that its files and log are in.

    It ends with us, however we end, and the folder goes with it.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise StartError(f"{self.name} has not been started")
        return self._process.pid

    def start(
        self,
        command: Sequence[str],
        *,
        account: Account | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process, in a session of its own: Ctrl-C is for us, who then stop it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                env=dict(os.environ) | dict(env or {}),
                start_new_session=True,
            )
        self._lifeline = Lifeline(self._process.pid, signal.SIGTERM, self.folder)

    def wait_ready(self, probe: Callable[[], object], timeout_s: float = 30) -> None:
        """Calls `probe` until it raises nothing; raises StartError if the process ends or time is up."""
        limit = time.monotonic() + timeout_s
        while True:
            try:
                probe()
                return
            except Exception as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > limit:
                    why = "ended" if ended else f"did not answer in {timeout_s:.0f} s ({error})"
                    self.stop()
                    raise StartError(f"{self.name} {why}:\n{self.log_tail()}") from error
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 20) -> None:
        """Ends the process with a signal, and with SIGKILL if that does not do."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            lifeline.release()

    def log_tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""
