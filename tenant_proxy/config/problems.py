"""What can be wrong with a configuration file, and how it is said.

A `Problem` names the file, line and column, the key, what is wrong and what would be right.  Values of
secrets never get into one: nothing below a `SecretRef` is quoted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, Literal

#: a place in the file: keys of mappings and indexes of lists, from the top
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    file: str
    #: 1-based; 0 when the file as a whole is meant
    line: int
    column: int
    #: e.g. tenants[0].pool.mode; empty for the file as a whole
    key: str
    message: str
    #: values or keys that would be right, or a range such as "1 to 65535"
    allowed: tuple[str, ...] = ()
    hint: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = f"{place}: {self.severity}: " + (f"{self.key}: " if self.key else "") + self.message
        if self.allowed:
            text += f" (allowed: {', '.join(self.allowed)})"
        if self.hint:
            text += f"; {self.hint}"
        return text

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"allowed": list(self.allowed)}


class ConfigError(Exception):
    """The file can't be used; `problems` are all of them (errors and warnings), in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)


def dotted(path: Path) -> str:
    """tenants[0].pool.mode"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A hint for a misspelt word, or an empty text."""
    lowered = {candidate.lower(): candidate for candidate in candidates}
    match = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f'did you mean "{lowered[match[0]]}"?' if match else ""
