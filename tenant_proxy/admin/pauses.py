"""Who is paused, as operators ask for it from several consoles at once; the supervisor keeps it.

A PAUSE waits until its tenant has come to rest, and may be given up.  Meanwhile it is in force like any
other, and what becomes of it undoes no one else's of the same tenant, nor outlives a RESUME: so each has a
number.
"""

from __future__ import annotations

import itertools
from typing import Any

from tenant_proxy.model import ALL


class Pauses:
    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        #: number -> tenant, of those that still wait
        self._begun: dict[int, str] = {}
        #: tenants that have come to rest
        self._held: set[str] = set()

    @property
    def names(self) -> list[str]:
        """Whose clients begin nothing."""
        return sorted(self._held | set(self._begun.values()))

    def apply(self, step: str, params: dict[str, Any]) -> dict[str, Any]:
        """A console's message: one of the methods below, by its name."""
        match step:
            case "begin":
                return {"number": self.begin(params["tenant"])}
            case "hold":
                return {"done": self.hold(params["number"])}
            case "give_up":
                return {"done": self.give_up(params["number"])}
            case "resume":
                return {"done": self.resume(params["tenant"])}
        raise ValueError(f"{step} is no step of a pause")

    def begin(self, tenant: str) -> int:
        number = next(self._numbers)
        self._begun[number] = tenant
        return number

    def hold(self, number: int) -> bool:
        """Its tenant has come to rest; False: it was resumed meanwhile."""
        tenant = self._begun.pop(number, None)
        if tenant is not None:
            self._held.add(tenant)
        return tenant is not None

    def give_up(self, number: int) -> bool:
        """False: another's pause of the tenant, or of all, is in force."""
        tenant = self._begun.pop(number, None)
        return not {tenant, ALL}.intersection(self.names)

    def resume(self, tenant: str) -> bool:
        """False: it was not paused by its name."""
        if tenant == ALL:
            self._held.clear()
            self._begun.clear()
            return True
        found = tenant in self.names
        self._held.discard(tenant)
        for number in [n for n, name in self._begun.items() if name == tenant]:
            del self._begun[number]
        return found
