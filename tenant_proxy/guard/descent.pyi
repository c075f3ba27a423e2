from collections.abc import Iterable

from tenant_proxy.guard.nodes import Fields
from tenant_proxy.guard.walk import Body, Rule, Walk

class ColumnRule:
    def __init__(self, functions: Iterable[str], rest: Rule) -> None: ...

def descend(
    w: Walk, table: dict[str, tuple[Fields, Rule | ColumnRule | None]], tag: str, body: Body
) -> None: ...
