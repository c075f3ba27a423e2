"""Encrypted files: what was written comes back, and nothing else does."""

from __future__ import annotations

import io

import pytest

from tenant_proxy.lifecycle import sealing
from tenant_proxy.lifecycle.sealing import CHUNK, MAGIC, SealError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(sealing, "_LOG_N", 4)


def sealed(plain: bytes) -> bytes:
    out = io.BytesIO()
    sealing.seal(io.BytesIO(plain), out, "words")
    return out.getvalue()


def opened(data: bytes, words: str = "words") -> bytes:
    out = io.BytesIO()
    sealing.unseal(io.BytesIO(data), out, words)
    return out.getvalue()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_was_sealed_comes_back(size):
    plain = bytes(number % 251 for number in range(size))
    data = sealed(plain)
    assert opened(data) == plain
    assert data.startswith(MAGIC)
    assert sealed(plain) != data


def test_other_words_open_nothing():
    with pytest.raises(SealError, match="pass phrase"):
        opened(sealed(b"x"), "other")


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) - CHUNK - 16],  # the last chunk is gone
        lambda data: data[:32] + data[32 + CHUNK + 16 :],  # the first one is
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:],  # the salt
        lambda data: data + data[-16:],
        lambda data: b"",
        lambda data: b"TPSEAL01" + b"\xff" * 100,
    ],
)
def test_harm_is_noticed(harm):
    data = sealed(bytes(2 * CHUNK))
    with pytest.raises(SealError):
        opened(harm(data))
