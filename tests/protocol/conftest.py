from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.protocol.rig import Rig
from tests.protocol.stage import Stage


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


@pytest.fixture(params=["epoll", "loop"])
def stage(request, monkeypatch):
    """An engine with a pool in transaction mode; once with its own epoll, once with the loop's readers."""
    monkeypatch.setenv("TP_NO_EPOLL", "1" if request.param == "loop" else "0")
    stage = Stage()
    yield stage
    stage.close()
