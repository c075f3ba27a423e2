"""What stands in a database in place of its catalogs, so that a tenant sees its own (decisions 10, 11).

`names` is what the judge turns to what; `generate` writes the SQL for one server; `data/` holds the
judgements: which relation is filtered how.
"""

from __future__ import annotations

from typing import Final

#: of the SQL as a whole; `tp_catalog.version()` answers with it
VERSION: Final = "8"
