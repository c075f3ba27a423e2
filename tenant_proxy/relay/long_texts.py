"""Verdicts on texts that took a judge process, for what asks of them again: Bind, above all.

To judge such a text once more would hold up everybody, each time.  Kept is what a verdict says
beside its edits, by a digest of the text.  What has no place is forgotten, first of the tenant that has most.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from typing import Final

from tenant_proxy.model import Verdict

#: of all verdicts together, and of one without anything in it
MAX_BYTES: Final = 32 * 1024 * 1024
_BYTES: Final = 1024
#: of a parameter, name or setting in one
_BYTES_OF_ONE: Final = 128


def digest(sql: bytes) -> bytes:
    return hashlib.blake2b(sql, digest_size=20).digest()


class LongTexts:
    """Of one worker."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        #: tenant -> scope and digest -> verdict and what it takes, the longest unused first
        self._kept: dict[str, dict[tuple[int, bytes], tuple[Verdict, int]]] = defaultdict(dict)
        self._taken: dict[str, int] = defaultdict(int)

    def keep(self, tenant: str, scope: int, text: bytes, verdict: Verdict) -> None:
        """`text`: its digest."""
        self._drop(tenant, (scope, text))
        lists = (verdict.bound, verdict.settings, verdict.executes, verdict.deallocates, verdict.listens)
        size = _BYTES + _BYTES_OF_ONE * sum(map(len, lists))
        self._kept[tenant][scope, text] = dataclasses.replace(verdict, edits=()), size
        self._taken[tenant] += size
        self._bytes += size
        while self._bytes > self._max_bytes:
            most = max(self._taken, key=self._taken.__getitem__)
            self._drop(most, next(iter(self._kept[most])))

    def of(self, tenant: str, scope: int, sql: bytes) -> Verdict | None:
        """The verdict on a text, without its edits; None if there is none, or it was forgotten."""
        if tenant not in self._kept:
            return None
        key = scope, digest(sql)
        found = self._kept[tenant].pop(key, None)
        if found is None:
            return None
        self._kept[tenant][key] = found
        return found[0]

    def _drop(self, tenant: str, key: tuple[int, bytes]) -> None:
        _, size = self._kept[tenant].pop(key, (None, 0))
        self._taken[tenant] -= size
        self._bytes -= size
        if not self._kept[tenant]:
            del self._kept[tenant], self._taken[tenant]
