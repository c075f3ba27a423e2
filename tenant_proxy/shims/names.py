"""Which names of pg_catalog and information_schema are turned to which, from data/catalogs.yaml.

The rule for the judge, where `GuardScope.hides`:

- A relation in `RELATIONS` is read from schema `CATALOG` under its own name, one in
  `INFORMATION_RELATIONS` (of information_schema) from `INFORMATION`.
- If the statement names one of `SYSTEM_COLUMNS` anywhere, relations in `SYSTEM_RELATIONS` are read from
  `SYSTEM` instead: the same rows with these columns besides.
- If it compares none of `POINTS` with a constant or parameter (`c.oid = '123'`, `relname ~ '^(a)$'`,
  `relname = ANY ($1)`), relations in `LISTED_RELATIONS` are read from `LISTING`: the same rows, found in
  another way.  To choose wrongly costs time and nothing else.
- A relation in neither set nor in `PLAIN_RELATIONS` is refused, as it may show what nobody has looked at.
- A function in `FUNCTIONS` called with such a number of arguments is that of schema `CATALOG` with the same
  name; with `public_is_own` those in `PUBLIC_FUNCTIONS` as well.
- One in `CHECKED_FUNCTIONS` is if its first argument is no constant, which the judge would have looked at.

All keep their names, so that columns' names and references like `pg_class.relname` stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import yaml

__all__ = [
    "CATALOG",
    "CHECKED_FUNCTIONS",
    "FUNCTIONS",
    "INFORMATION",
    "INFORMATION_PLAIN",
    "INFORMATION_RELATIONS",
    "LISTED_RELATIONS",
    "LISTING",
    "PLAIN_RELATIONS",
    "POINTS",
    "PUBLIC_FUNCTIONS",
    "RELATIONS",
    "SYSTEM",
    "SYSTEM_COLUMNS",
    "SYSTEM_RELATIONS",
    "load",
]

CATALOG: Final = "tp_catalog"
#: the base tables of pg_catalog once more, with their system columns
SYSTEM: Final = "tp_catalog_sys"
#: views for statements that list relations rather than look for some
LISTING: Final = "tp_catalog_list"
INFORMATION: Final = "tp_information_schema"

SYSTEM_COLUMNS: Final = frozenset({"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"})

#: columns by which one relation, or a few, are looked for
POINTS: Final = frozenset({"oid", "relname"})


def load() -> Any:
    text = resources.files(__package__).joinpath("data", "catalogs.yaml").read_text("utf-8")
    # libyaml's loader, where PyYAML was built with it, is 15 times faster
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def _functions(entries: Mapping[str, list[int]]) -> Mapping[str, frozenset[int]]:
    return {name: frozenset(counts) for name, counts in entries.items()}


_data = load()
_information = _data["information_schema"]

SYSTEM_RELATIONS: Final[frozenset[str]] = frozenset(_data["tables"])
RELATIONS: Final[frozenset[str]] = SYSTEM_RELATIONS | frozenset(_data["views"])
LISTED_RELATIONS: Final[frozenset[str]] = frozenset(
    name for name, rule in _data["tables"].items() if "listing" in rule
)
#: of pg_catalog, read as they are
PLAIN_RELATIONS: Final[frozenset[str]] = frozenset(_data["plain"])
INFORMATION_RELATIONS: Final[frozenset[str]] = frozenset(_information["by_schemas"]) | frozenset(
    _information["views"]
)
INFORMATION_PLAIN: Final[frozenset[str]] = frozenset(_information["plain"])
#: name -> numbers of arguments
FUNCTIONS: Final[Mapping[str, frozenset[int]]] = _functions(_data["functions"])
PUBLIC_FUNCTIONS: Final[Mapping[str, frozenset[int]]] = _functions(_data["public_functions"])
CHECKED_FUNCTIONS: Final[Mapping[str, frozenset[int]]] = _functions(
    {
        **_data["checked_functions"],
        **{name: [1] for kinds in _data["statistics"].values() for names in kinds.values() for name in names},
    }
)
