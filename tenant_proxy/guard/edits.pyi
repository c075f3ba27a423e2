from collections.abc import Sequence

def applied(
    sql: bytes, edits: Sequence[tuple[int, int, bytes]], *, by_shape: bool = False
) -> bytes | None: ...
