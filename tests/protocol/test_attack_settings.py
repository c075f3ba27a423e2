"""A client's settings of unknown extensions (app.user_id) come along, and stay its own."""

from __future__ import annotations

import pytest

from tenant_proxy.config.load import load_text
from tenant_proxy.model import Effect
from tenant_proxy.relay.judging import MAX_CUSTOM_SETTINGS, Judging
from tenant_proxy.tenancy.registry import Registry

CONFIG = """
clusters: [{name: main, host: h, database: d}]
tenants: [{name: acme}]
"""


@pytest.fixture
def judging() -> tuple[Judging, int]:
    tenant = Registry.build(load_text(CONFIG).config).tenants["acme"]
    judging = Judging(1000, lambda client: None)
    return judging, judging.scope_of(tenant, tenant.policy, "acme_app", frozenset())


def test_names_are_known_for_all_clients_of_a_tenant(judging):
    """The second client's SET is answered by the cache, which tells no names."""
    judge, scope = judging
    effects = judge.judge(None, scope, b"SET app.user_id = '1'", 1)
    assert effects & Effect.SETTINGS
    assert not effects & Effect.PINS
    assert judge.custom_settings("acme") == {"app.user_id"}


def test_more_than_can_be_asked_for_pin(judging):
    judge, scope = judging
    for i in range(MAX_CUSTOM_SETTINGS):
        assert not judge.judge(None, scope, f"SET app.x{i} = '1'".encode(), 1) & Effect.PINS
    assert judge.judge(None, scope, b"SET app.more = '1'", 1) & Effect.PINS
    assert not judge.judge(None, scope, b"SET app.x1 = '2'", 1) & Effect.PINS
