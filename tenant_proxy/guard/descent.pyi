from collections.abc import Callable, Iterable

from tenant_proxy.guard.nodes import Fields
from tenant_proxy.guard.walk import Body, Rule, Walk

class ColumnRule:
    def __init__(self, functions: Iterable[str], rest: Callable[[Walk, Body], bool]) -> None: ...
    def __call__(self, w: Walk, body: Body) -> bool: ...

def descend(w: Walk, table: dict[str, tuple[Fields, Rule | None]], tag: str, body: Body) -> None: ...
