"""Parameters whose values name something: the kinds in `Verdict.bound`.

Where a statement hands a parameter to a place in which a literal would be judged (`$1::regclass`,
`set_config($1, $2, false)`), the value is judged when it is bound.
"""

from __future__ import annotations

from typing import Final

#: the kinds of names in literals (`functions.Name.kind`), a text with one name of an object
NAME_KINDS: Final = frozenset(
    {"relation", "object", "routine", "type", "schema", "schema_name", "role", "role_name", "rights"}
)

#: behind a kind of name: other overloads take plain text there, so what is no name is let through
UNSURE: Final = "?"

#: behind a kind of name: an array of such
ARRAY: Final = "[]"

#: the name of a setting; its value is not known, unless there is a VALUE_OF as well
SETTING: Final = "setting"

#: "value:search_path": the value of that setting
VALUE: Final = "value:"

#: "value-of:1": the value of the setting that parameter 1 names
VALUE_OF: Final = "value-of:"

#: text that is run as SQL
QUERY: Final = "query"


def is_strict(kind: str) -> bool:
    """Whether the value must come exactly as it was bound: no name that PostgreSQL looks up."""
    return kind in (SETTING, QUERY) or kind.startswith((VALUE, VALUE_OF))
