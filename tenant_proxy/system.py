"""The little that the supervisor asks of the operating system beside processes and sockets."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, Final

#: pydantic reads of every installed package whether it has a plugin for it: longer than onboarding a tenant
_NO_PLUGINS: Final = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
_added: dict[str, str] = {}


def without_plugins() -> None:
    """Of pydantic's, in this process and in those of ours that it starts."""
    for name, value in _NO_PLUGINS.items():
        if name not in os.environ:
            os.environ[name] = _added[name] = value
    # what they would be looked for with: zip files, mail and CSV come along with it
    sys.modules.setdefault(_METADATA, _Metadata(_METADATA))


_METADATA: Final = "importlib.metadata"


class _Metadata(ModuleType):
    """That module, imported when one of its functions is called, or anything else of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the machinery of imports asks
            raise AttributeError(name)
        if name in ("entry_points", "version"):
            return partial(_called, name)
        return getattr(_metadata(), name)


def _called(name: str, *given: Any, **named: Any) -> Any:
    return getattr(_metadata(), name)(*given, **named)


def _metadata() -> ModuleType:
    if isinstance(sys.modules.get(_METADATA), _Metadata):
        del sys.modules[_METADATA]
    return import_module(_METADATA)


def as_given(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for programs that are not ours."""
    return {name: value for name, value in environ.items() if _added.get(name) != value}


def notify(state: str) -> None:
    """Tells systemd (sd_notify(3)) when NOTIFY_SOCKET is set; silent if nobody listens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            pass


def raise_fd_limit() -> int | None:
    """Sets the soft limit of open files to the hard one, for this process and its children.

    Each client and each backend is a file; the usual soft limit is 1024.  Returns
    the limit, None if there is none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else hard
