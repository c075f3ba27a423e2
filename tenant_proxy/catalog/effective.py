"""What a tenant has in the end: the plan's, its own over it, the defaults under both; and where each is from.

The view `served_tenants` of the catalog computes the same for proxies; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from tenant_proxy.catalog.records import Plan, Spec

Source = Literal["default", "plan", "tenant"]

#: merged key by key; all others are replaced
MERGED: Final = ("pool", "policy", "settings")

DEFAULTS: Final[dict[str, Any]] = {
    "own_database": False,
    "locked_settings": [],
    "max_clients": 0,
    "connection_limit": 0,
    "storage_bytes": 0,
    "grace_s": 30.0,
    "delete_grace_s": 7 * 86400.0,
    "extensions": [],
    "services": [],
}


@dataclass(frozen=True, slots=True)
class Value:
    value: Any
    source: Source


def values(plan: Plan | None, own: Spec) -> dict[str, Value]:
    """Dotted key -> value, those of pool, policy and settings one by one."""
    found = {key: Value(value, "default") for key, value in DEFAULTS.items()}
    layers: list[tuple[Source, Spec]] = [("tenant", own)]
    if plan is not None:
        layers.insert(0, ("plan", plan.spec))
    for source, spec in layers:
        for key, value in spec.given().items():
            if key in MERGED:
                found.update({f"{key}.{inner}": Value(one, source) for inner, one in value.items()})
            else:
                found[key] = Value(value, source)
    return dict(sorted(found.items()))


def spec(plan: Plan | None, own: Spec) -> Spec:
    """The same as one Spec, with the defaults in it."""
    result: dict[str, Any] = dict(DEFAULTS)
    for layer in (plan.spec if plan is not None else Spec(), own):
        for key, value in layer.given().items():
            result[key] = {**result.get(key, {}), **value} if key in MERGED else value
    return Spec.model_validate(result)
