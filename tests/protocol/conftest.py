from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.protocol.rig import Rig


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    """Makes rigs, and closes them."""
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        rigs.append(Rig(**options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
