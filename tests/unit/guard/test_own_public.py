"""`public` where it is the tenant's schema: definitions as dumps and migrations send them.

In each line of own_public.sql `public` stands where a schema's name does: all are turned, nothing else is.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.guard.scope import rewritten, scope

OWN = scope(public_is_own=True)

STATEMENTS = (Path(__file__).parent / "own_public.sql").read_text().splitlines()


@pytest.mark.parametrize("sql", STATEMENTS)
def test_public_is_turned_wherever_it_stands(sql):
    turned = rewritten(sql, OWN)
    # what is told apart by its place: comments' and triggers' texts
    kept = re.sub(r"(IS|g\()\s*'public[^']*'", lambda match: match[0].replace("public", "kept"), sql)
    assert turned == kept.replace("public", '"acme"').replace("kept", "public")
