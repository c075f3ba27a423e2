"""A Config on its way from the supervisor to its children, over the hub and nowhere else.

Secrets are in clear text in it: it is never logged, printed or written.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from tenant_proxy.config.schema import Config


def to_transport(config: Config) -> dict[str, Any]:
    """JSON-able, secrets revealed, defaults left out; `from_transport` gives an equal Config."""
    revealed: dict[str, Any] = _reveal(config.model_dump(by_alias=True, exclude_defaults=True))
    return revealed


def from_transport(data: Mapping[str, Any]) -> Config:
    return Config.model_validate(data)


def _reveal(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _reveal(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_reveal(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.datetime) else value
