"""Seeds changed at random: what finds the places that nobody thought of in a parser of one's own.

A run is told by the number that it prints when it fails: `FUZZ_SEED=… FUZZ_SECONDS=…` does the same again.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence

#: bytes and lengths at which code that counts goes wrong
_EDGES = [
    b"\0",
    b"\1",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\4",
]


def mutated(
    seeds: Sequence[bytes], words: Sequence[bytes], chance: random.Random, limit: int = 4000
) -> bytes:
    """One of the seeds, or two of them, with a few changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 5, 9))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 1, 2, 4, 8, 30)))
        match chance.randrange(8):
            case 0:
                data[at:end] = b""
            case 1:
                data[at:at] = chance.choice(words)
            case 2:
                data[at:end] = chance.choice(words)
            case 3:
                data[at:end] = chance.choice(_EDGES)
            case 4 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 5:
                data[at:at] = data[at:end] * chance.choice((1, 2, 20))
            case 6:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                data[at:end] = other[start : start + chance.randrange(1, 60)]
            case _:
                data[at:at] = bytes([chance.randrange(256)])
    return bytes(data[:limit])


def seconds(of_a_short_run: float) -> float:
    """How long each parser is fuzzed: FUZZ_SECONDS says it for long runs (make fuzz SECONDS=…)."""
    return float(os.environ.get("FUZZ_SECONDS", of_a_short_run))


def run(
    act: Callable[[bytes, random.Random], None],
    seeds: Sequence[bytes],
    words: Sequence[bytes],
    for_s: float,
) -> int:
    """Acts on mutations for a while; returns on how many.  A failure tells the input and the run's number."""
    number = int(os.environ.get("FUZZ_SEED", random.randrange(1 << 32)))
    chance = random.Random(number)
    until = time.monotonic() + for_s
    for seed in seeds:
        act(seed, chance)
    count = len(seeds)
    while time.monotonic() < until:
        data = mutated(seeds, words, chance)
        try:
            act(data, chance)
        except BaseException as error:
            error.add_note(f"FUZZ_SEED={number}, input {count}: {data!r}")
            raise
        count += 1
    return count
