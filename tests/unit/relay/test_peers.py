"""Whether a worker owes another one of its shared backends: by tenants in need, and never by turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.relay.peers import is_due


@pytest.mark.parametrize(
    ("total", "wanting", "other_total", "other_wanting", "due"),
    [
        (0, 5, 0, 5, False),
        (1, 5, 0, 1, True),  # nobody is left without
        (4, 1, 3, 1, False),
        (5, 1, 3, 1, True),
        (3, 1, 3, 1, False),
        (3, 1, 3, 2, True),
        (10, 10, 2, 1, False),
    ],
)
def test_who_owes(total, wanting, other_total, other_wanting, due):
    assert is_due(total, wanting, other_total, other_wanting) is due


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 60), st.integers(1, 40))
def test_what_was_given_is_not_owed_back(total, wanting, other_total, other_wanting):
    if total > 1 and is_due(total, wanting, other_total, other_wanting):
        assert not is_due(other_total + 1, other_wanting, total - 1, wanting)
