"""A Config on its way from the supervisor to its children, over the hub and nowhere else.

Secrets are in clear text in it: it is never logged, printed or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic_core import PydanticSerializationError

from tenant_proxy.config.schema import REVEALED, Config


def to_transport(config: Config) -> dict[str, Any]:
    """JSON-able, secrets revealed, defaults left out; `from_transport` gives an equal Config."""
    return config.model_dump(mode="json", by_alias=True, exclude_defaults=True, context=REVEALED)


def packed(config: Config) -> Any:
    """The same as a part of the hub's frames that is made once for all of them."""
    try:
        text = config.model_dump_json(by_alias=True, exclude_defaults=True, context=REVEALED)
    except PydanticSerializationError:
        # a password that is no UTF-8: half of a surrogate pair stands for a byte
        return to_transport(config)
    return orjson.Fragment(text)


def from_transport(data: Mapping[str, Any]) -> Config:
    return Config.model_validate(data)
