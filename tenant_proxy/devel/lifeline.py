"""Ends a child process when we are gone without having ended it (kill -9, a crash, a closed terminal).

A shell waits at the other end of a pipe.  A line from us means that all is well; end of
file, that we are gone: it stops the child, waits for it, and removes what was ours.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path

#: $1 pid, $2 its start time (empty where there is no /proc), $3 signal's name, $4 what to remove
_SCRIPT = """
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
lives() { kill -0 "$1" 2>/dev/null && { [ -z "$2" ] || [ "$(started "$1")" = "$2" ]; }; }
read -r word && exit 0
lives "$1" "$2" && kill "-$3" "$1"
tries=0
while lives "$1" "$2" && [ $tries -lt 150 ]; do sleep 0.1; tries=$((tries + 1)); done
lives "$1" "$2" && kill -KILL "$1"
[ -z "$4" ] || rm -rf "$4"
"""


class Lifeline:
    """Watches `pid`, a child of ours, until `release`.

    stop_signal: what asks the child to end; SIGKILL follows 15 s later.
    removes: a directory of ours to remove after it.
    """

    def __init__(self, pid: int, stop_signal: signal.Signals, removes: Path | None = None) -> None:
        name = stop_signal.name.removeprefix("SIG")
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "lifeline", str(pid), _start_time(pid), name, str(removes or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C at the terminal is not for it
            start_new_session=True,
            cwd="/",
        )

    def release(self) -> None:
        """The child is gone, or no concern of ours any more."""
        with contextlib.suppress(BrokenPipeError):
            self._shell.communicate(b"ok\n")


def _start_time(pid: int) -> str:
    """In clock ticks since boot (proc(5), field 22): tells a process from a later one of the same pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]
    except (OSError, IndexError):
        return ""
