"""EXECUTE of what a client has prepared by Parse.

Of such a statement the values may be judged when they are bound (`Verdict.bound`); EXECUTE gives it others,
as expressions.  So EXECUTE may not name it, in whatever order the two come: in session mode a statement with
EXECUTE that is prepared itself finds what goes by the name when it runs.  In code EXECUTE is refused, or
looked at when it runs (guard/statements.py, shims/data/dynamic.sql).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from tenant_proxy.settings_policy import MAX_IDENTIFIER_BYTES

#: of a client; beyond that any name may be one of them
MAX_NAMES: Final = 10_000


class ExecutedNames:
    """Of all clients of a worker, in UTF-8; a name stays when its statement goes, as that may yet fail."""

    def __init__(self) -> None:
        #: client -> names of statements whose values are judged; none of them: any may be one
        self._bound: dict[int, set[bytes] | None] = {}
        #: … and those that EXECUTE names where it is prepared itself
        self._executed: defaultdict[int, set[bytes]] = defaultdict(set)

    def binds(self, client: int, name: bytes) -> bool:
        """A Parse makes a statement with such values; false if it may be executed already."""
        name = name[:MAX_IDENTIFIER_BYTES]  # as servers do with names of the protocol too
        if name in self._executed.get(client, ()):
            return False
        known = self._bound.setdefault(client, set())
        if known is not None:
            known.add(name)
            if len(known) > MAX_NAMES:
                self._bound[client] = None
        return True

    def executes(self, client: int, names: Sequence[bytes], *, prepared: bool) -> bytes | None:
        """EXECUTE names these, at once or when what is `prepared` runs; one that may have such values."""
        known = self._bound.get(client, ())
        for name in names:
            if known is None or name in known:
                return name
        if prepared:
            executed = self._executed[client]
            executed.update(names)
            if len(executed) > MAX_NAMES:
                return names[0]
        return None

    def forget(self, client: int) -> None:
        self._bound.pop(client, None)
        self._executed.pop(client, None)
