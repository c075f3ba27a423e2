"""Names on the server that say nothing of whose they are."""

from __future__ import annotations

import re

from tests.unit.config.files import config, only_problem

TENANTS = """
opaque_names: true
secret: {value: s3cret}
tenants: [{name: acme}, {name: beta, schema: b}]
users:
  - {name: acme_app, tenant: acme, password: {value: p}}
  - {name: beta_app, tenant: beta, server_user: b_app, password: {value: p}}
  - {name: root, admin: true, password: {value: p}}
"""


def test_what_is_not_given_is_made_up_and_says_nothing():
    found = config(TENANTS)
    schemas = [tenant.schema_ for tenant in found.tenants]
    logins = [user.server_user for user in found.users]
    assert re.fullmatch("s_[a-z2-7]{13}", schemas[0] or "")
    assert re.fullmatch("r_[a-z2-7]{13}", logins[0] or "")


def test_what_is_given_stays_and_admins_have_no_login_there():
    found = config(TENANTS)
    assert found.tenants[1].schema_ == "b"
    assert [user.server_user for user in found.users[1:]] == ["b_app", None]


def test_names_are_the_same_each_time_and_others_under_another_secret():
    first, again = config(TENANTS), config(TENANTS)
    other = config(TENANTS.replace("s3cret", "another"))
    assert first.tenants[0].schema_ == again.tenants[0].schema_ != other.tenants[0].schema_


def test_without_it_the_tenants_name_is_the_schemas():
    found = config(TENANTS.replace("opaque_names: true", ""))
    assert (found.tenants[0].schema_, found.users[0].server_user) == ("acme", None)


def test_it_needs_a_secret():
    found = only_problem("opaque_names: true")
    assert (found.key, found.hint) == (
        "opaque_names",
        "set secret: {env: NAME}, {file: PATH} or {value: TEXT}",
    )
