from collections.abc import Sequence
from typing import Final

HIT_BIT: Final[int]
MAX_TEXT: Final[int]

class VerdictCache:
    max_bytes: Final[int]
    count: Final[int]
    hits: Final[int]
    misses: Final[int]
    evictions: Final[int]
    conflicts: Final[int]
    def __init__(self, max_entries: int, max_bytes: int = ...) -> None: ...
    def store(
        self,
        scope_id: int,
        sql: bytes,
        effects: int,
        exact: bool,
        verdict: object = None,
        edits: Sequence[tuple[int, int, bytes]] = (),
    ) -> bool: ...
    def rewritten(self, scope_id: int, sql: bytes) -> bytes | None: ...
    def find(self, scope_id: int, sql: bytes) -> int: ...
    def verdict(self, scope_id: int, sql: bytes) -> object: ...
    def forget_scope(self, scope_id: int) -> int: ...
    def clear(self) -> None: ...
    def stats(self) -> dict[str, int]: ...
