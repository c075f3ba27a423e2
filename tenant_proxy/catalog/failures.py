"""What the catalog and the tenants' life answer when they can't: one exception, a stable word, a hint."""

from __future__ import annotations

from typing import Final, NoReturn

#: stable words, and what each means; the API turns them to HTTP's numbers
CODES: Final = {
    "invalid": "what was asked for is not possible in itself",
    "not_found": "there is no such thing",
    "exists": "there is one already, and it differs",
    "conflict": "the state that it is in does not allow it",
    "stale": "it was changed meanwhile",
    "busy": "another job is at work on it",
    "forbidden": "who asks may not",
    "unavailable": "a server can't be reached; trying again may help",
    "refused": "a server refused it",
    "outdated": "the catalog's tables are those of another version",
}


class Failure(Exception):
    """Shown to people as it is, so it holds no secrets."""

    def __init__(self, code: str, message: str, *, detail: str = "", hint: str = "", job: int | None = None):
        assert code in CODES, code
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail
        self.hint = hint
        #: the job that is in the way, or that failed
        self.job = job

    def to_json(self) -> dict[str, object]:
        said = {"code": self.code, "message": self.message, "detail": self.detail, "hint": self.hint}
        return {key: value for key, value in said.items() if value} | (
            {} if self.job is None else {"job": self.job}
        )


def not_found(kind: str, name: str | int, hint: str = "") -> NoReturn:
    raise Failure("not_found", f'there is no {kind} "{name}"', hint=hint)
