"""The first rule that fits decides, as in pg_hba.conf."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.auth.rules import compile_rules, match_rule
from tenant_proxy.config.schema import Auth, AuthRule


def decide(
    *rules: dict, kind="tcp", tls=False, address="10.1.2.3", user="alice", database="shop", local_address=""
) -> str | None:
    """Method of the rule that fits."""
    ready = compile_rules([AuthRule(**rule) for rule in rules])
    rule = match_rule(
        ready, kind=kind, tls=tls, address=address, user=user, database=database, local_address=local_address
    )
    return rule.method if rule else None


def rule(method: str = "trust", **more) -> dict:
    return {"method": method} | more


def fits(address_of_rule: str, address: str, local_address: str = "") -> bool:
    return decide(rule(address=address_of_rule), address=address, local_address=local_address) is not None


def test_first_that_fits():
    rules = [rule("reject", user=["mallory"]), rule("md5", database=["shop"]), rule("scram-sha-256")]
    assert decide(*rules) == "md5"
    assert decide(*rules, user="mallory") == "reject"
    assert decide(*rules, database="other") == "scram-sha-256"


def test_none_fits():
    assert decide() is None
    assert decide(rule(user=["bob"]), rule(database=["other"]), rule(address="11.0.0.0/8")) is None


def test_the_rule_itself_is_returned_and_plain_lists_will_do():
    rules = [AuthRule(method="md5"), AuthRule(method="trust")]
    assert match_rule(rules, kind="tcp", tls=False, address="::1", user="a", database="b") is rules[0]


def test_default_rules_ask_everybody_for_scram():
    rules = compile_rules(Auth().rules)
    for kind, address in (("local", ""), ("tcp", "10.0.0.1"), ("tcp", "fd00::1")):
        found = match_rule(rules, kind=kind, tls=False, address=address, user="u", database="d")
        assert found is not None
        assert found.method == "scram-sha-256"


@pytest.mark.parametrize(
    ("type_", "local", "tls", "plain"),
    [
        ("local", True, False, False),
        ("host", False, True, True),
        ("hostssl", False, True, False),
        ("hostnossl", False, False, True),
    ],
)
def test_type(type_, local, tls, plain):
    one = rule(type=type_)
    assert (decide(one, kind="local", address="") is not None) == local
    assert (decide(one, tls=True) is not None) == tls
    assert (decide(one, tls=False) is not None) == plain


class TestNames:
    def test_lists(self):
        assert decide(rule(user=["bob", "alice"], database=["x", "shop"]))
        assert not decide(rule(user=["bob", "carol"]))
        assert not decide(rule(database=["x", "y"]))

    def test_all_among_others(self):
        assert decide(rule(user=["bob", "all"], database=["x", "all"]))

    def test_case_matters(self):
        assert not decide(rule(user=["Alice"]))
        assert not decide(rule(user=["ALL"]))

    def test_sameuser(self):
        one = rule(database=["sameuser", "shop"])
        assert decide(one, database="alice")
        assert decide(one, database="shop")
        assert not decide(one, database="bob")
        assert not decide(one, database="sameuser")

    def test_sameuser_as_a_user_is_a_name(self):
        assert not decide(rule(user=["sameuser"]), database="alice")
        assert decide(rule(user=["sameuser"]), user="sameuser")

    def test_nobody(self):
        assert not decide(rule(user=[]))
        assert not decide(rule(database=[]))


class TestAddress:
    @pytest.mark.parametrize(
        ("network", "inside", "outside"),
        [
            ("10.1.0.0/16", ["10.1.0.0", "10.1.255.255"], ["10.0.255.255", "10.2.0.0", "::ffff", "fd00::1"]),
            ("10.1.2.3/16", ["10.1.9.9"], ["10.2.2.3"]),
            ("10.1.2.3/32", ["10.1.2.3"], ["10.1.2.2"]),
            ("10.1.2.3", ["10.1.2.3"], ["10.1.2.4"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::1", "::"]),
            ("10.1.2.128/25", ["10.1.2.128", "10.1.2.255"], ["10.1.2.127"]),
            ("::/0", ["::1", "fd00::1"], ["10.1.2.3", "::ffff:10.1.2.3"]),
            ("fd00::/8", ["fd12::1", "fdff:ffff::"], ["fe00::", "10.1.2.3"]),
            ("fe80::1", ["fe80::1", "fe80::1%eth0"], ["fe80::2%eth0"]),
            ("2001:db8::/33", ["2001:db8:7fff::"], ["2001:db8:8000::"]),
        ],
    )
    def test_networks(self, network, inside, outside):
        assert all(fits(network, address) for address in inside)
        assert not any(fits(network, address) for address in outside)

    def test_ipv4_client_of_a_dual_stack_socket(self):
        assert fits("10.1.0.0/16", "::ffff:10.1.2.3")
        assert not fits("10.1.0.0/16", "::ffff:10.2.2.3")
        assert not fits("10.1.0.0/16", "::10.1.2.3")

    @pytest.mark.parametrize(
        "address", ["", "nonsense", "10.1.2", "10.1.2.3.4", "10.1.2.3 ", "[::1]", "a\0b", ":", "::1/128", "ä"]
    )
    def test_unreadable_fits_only_all(self, address):
        for network in ("0.0.0.0/0", "::/0", "samehost"):
            assert not fits(network, address, local_address=address)
        assert fits("all", address)

    @pytest.mark.parametrize(
        ("address", "local_address", "expected"),
        [
            ("127.0.0.1", "127.0.0.1", True),
            ("127.8.8.8", "127.0.0.1", True),
            ("::1", "::1", True),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
            ("10.1.2.3", "10.1.2.3", True),
            ("10.1.2.3", "::ffff:10.1.2.3", True),
            ("fe80::1%eth0", "fe80::1%eth0", True),
            ("10.1.2.3", "10.1.2.4", False),
            ("10.1.2.3", "", False),
            ("::2", "::1", False),
        ],
    )
    def test_samehost(self, address, local_address, expected):
        assert fits("samehost", address, local_address) == expected

    def test_a_unix_socket_has_none(self):
        assert decide(rule(type="local", address="10.0.0.0/8"), kind="local", address="")

    @pytest.mark.parametrize("address", ["", "localhost", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "all "])
    def test_malformed(self, address):
        with pytest.raises(ValueError, match=r"auth.rules\[1\]: address"):
            compile_rules([AuthRule(method="trust"), AuthRule(method="trust", address=address)])


@pytest.mark.parametrize("type_", ["local", "hostnossl"])
def test_certificates_need_tls(type_):
    with pytest.raises(ValueError, match=r"auth.rules\[0\]: method cert needs TLS"):
        compile_rules([AuthRule(type=type_, method="cert")])


# --- what does not depend on who asks -------------------------------------------------------


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed if address else b""


@given(
    st.lists(
        st.builds(
            rule,
            st.sampled_from(("scram-sha-256", "md5", "reject")),
            type=st.sampled_from(("local", "host", "hostssl", "hostnossl")),
            user=st.sampled_from((["all"], ["alice"])),
            database=st.sampled_from((["all"], ["shop"], ["sameuser"])),
            address=st.sampled_from(("all", "samehost", "10.0.0.0/8", "10.1.2.3", "fd00::/8", "0.0.0.0/0")),
        ),
        max_size=5,
    ),
    st.sampled_from((("local", False, ""), ("tcp", True, "10.1.2.3"), ("tcp", False, "10.9.9.9"))),
    st.sampled_from(("", "fd00::1", "127.0.0.1")),
)
def test_where_all_are_asked_for_the_same(rules, where, other):
    """The first origin that fits holds only where the rules ask anybody for this method."""
    kind, tls, address = where
    address = other if other and kind == "tcp" else address
    connection = 1 if kind == "local" else 2 if tls else 4
    raw = packed(address)
    first = next(
        (
            one
            for one in compile_rules([AuthRule(**rule) for rule in rules]).origins("scram-sha-256")
            if one.connections & connection
            and (
                not one.network
                or (
                    len(raw) == len(one.network)
                    and all(a & m == n for a, m, n in zip(raw, one.mask, one.network, strict=True))
                )
            )
        ),
        None,
    )
    if first is not None and first.holds:
        for user in ("alice", "bob", "shop"):
            for database in ("shop", "other"):
                found = decide(*rules, kind=kind, tls=tls, address=address, user=user, database=database)
                assert found == "scram-sha-256"
