"""Parameters whose values name something: the kinds in `Verdict.bound`.

Where a statement hands a parameter to a place in which a literal would be judged (`$1::regclass`,
`set_config($1, $2, false)`), the value is judged when it is bound.
"""

from __future__ import annotations

from typing import Final

#: the kinds of names in literals (`functions.Name.kind`), a text with one name of an object
NAME_KINDS: Final = frozenset({"relation", "object", "routine", "type", "schema", "schema_name"})

#: behind a kind of name: other overloads take plain text there, so what is no name is let through
UNSURE: Final = "?"

#: the name of a setting whose value is not known
SETTING: Final = "setting"

#: "value:search_path": the value of that setting
VALUE: Final = "value:"

#: text that is run as SQL
QUERY: Final = "query"
