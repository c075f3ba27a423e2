"""The startup packet: `options` as PostgreSQL reads it, and the settings a backend is opened with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.config.load import load_text
from tenant_proxy.errors import ProxyError
from tenant_proxy.model import StartupRequest
from tenant_proxy.tenancy.registry import Registry, TenantInfo
from tenant_proxy.tenancy.space import space_of
from tenant_proxy.tenancy.startup import parse_options, request_settings, split_options, startup_settings

# --- options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("", []),
        ("  \t\n ", []),
        ("-c a=b", ["-c", "a=b"]),
        (r"-c a=b\ c", ["-c", "a=b c"]),
        (r"a\\b", [r"a\b"]),
        (r"\-c\  x", ["-c ", "x"]),
        ("x\\", ["x"]),
        ("a\v\f\rb", ["a", "b"]),
        ("'a b'", ["'a", "b'"]),
    ],
)
def test_arguments(options, arguments):
    assert split_options(options) == arguments


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)))
def test_escaped_arguments_come_back(arguments):
    escaped = " ".join("".join(f"\\{char}" for char in argument) for argument in arguments)
    assert split_options(escaped) == arguments


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", {}),
        ("-c geqo=off", {"geqo": "off"}),
        ("-cgeqo=off", {"geqo": "off"}),
        ("-c  geqo=off", {"geqo": "off"}),
        ("--geqo=off", {"geqo": "off"}),
        ("--statement-timeout=5s -c lock-timeout=1", {"statement_timeout": "5s", "lock_timeout": "1"}),
        ("-c DateStyle=ISO -c datestyle=German", {"datestyle": "German"}),
        ("-c my.setting=a=b", {"my.setting": "a=b"}),
        ("-c a=", {"a": ""}),
        (r"-c search_path=acme,\ public", {"search_path": "acme, public"}),
        ("-e", {"datestyle": "euro"}),
        ("-fs -fh", {"enable_seqscan": "off", "enable_hashjoin": "off"}),
        ("-fsh", {"enable_seqscan": "off"}),
        ("-S 1024", {"work_mem": "1024"}),
        ("-eS1024", {"datestyle": "euro", "work_mem": "1024"}),
        ("-c a=b --", {"a": "b"}),
        ("-c sort_mem=1", {"work_mem": "1"}),
    ],
)
def test_switches_that_are_settings(options, settings):
    assert parse_options(options) == settings


@pytest.mark.parametrize(
    "options", ["-d 5", "-E", "-F", "-O", "-P", "-s", "-tpa", "-W 10", "-B 1", "-D /x", "-eO", "-r f"]
)
def test_switches_that_are_refused(options):
    with pytest.raises(ProxyError) as caught:
        parse_options(options)
    assert (caught.value.sqlstate, caught.value.severity) == ("42501", "FATAL")
    assert caught.value.hint is not None
    assert "-c name=value" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-c a", "-c a requires a value"),
        ("--a", "--a requires a value"),
        ("--a-b", "--a-b requires a value"),
        ("-c", "invalid command-line argument for server process: -c"),
        ("x", "invalid command-line argument for server process: x"),
        ("-", "invalid command-line argument for server process: -"),
        ("-- x", "invalid command-line argument for server process: x"),
        ("-z", "invalid command-line argument for server process: -z"),
        ("-fx", "invalid command-line argument for server process: -f x"),
        ("\\", "invalid command-line argument for server process: "),
    ],
)
def test_what_the_server_would_not_understand(options, message):
    with pytest.raises(ProxyError) as caught:
        parse_options(options)
    assert (caught.value.sqlstate, caught.value.severity) == ("42601", "FATAL")
    assert caught.value.message == message


@given(st.text(st.sampled_from("-ceEfSsx= \\a.'\"\t"), max_size=30))
def test_any_options_are_read_or_refused(options):
    try:
        settings = parse_options(options)
    except ProxyError as error:
        assert error.sqlstate in {"42501", "42601"}  # noqa: PT017
    else:
        assert all(name == name.lower() for name in settings)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}(\.[a-z]{1,5})?", fullmatch=True), st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4))  # fmt: skip
def test_settings_written_as_drivers_do_come_back(settings):
    def escape(text: str) -> str:
        return "".join(f"\\{char}" if char in "\\ \t\n\v\f\r" else char for char in text)

    old = {"sort_mem", "vacuum_mem"}
    options = " ".join(f"-c {name}={escape(value)}" for name, value in settings.items() if name not in old)
    assert parse_options(options) == {name: value for name, value in settings.items() if name not in old}


# --- the packet ------------------------------------------------------------------------


def test_settings_of_a_packet():
    assert request_settings(
        {
            "user": "app",
            "database": "x",
            "options": "-c TimeZone=UTC -c geqo=off -c tenant=acme",
            "application_name": "psql",
            "TimeZone": "Europe/Berlin",  # wins over the same in options
            "replication": "false",
            "_pq_.command": "x",
        }
    ) == {"timezone": "Europe/Berlin", "geqo": "off", "tenant": "acme", "application_name": "psql"}


# --- settings of a backend ----------------------------------------------------------------


@pytest.fixture
def acme() -> TenantInfo:
    return tenant("")


def tenant(more: str) -> TenantInfo:
    text = f"clusters: [{{name: m, host: h, database: d}}]\ntenants: [{{name: acme, {more}}}]"
    return Registry.build(load_text(text).config).tenants["acme"]


def settings_of(info: TenantInfo, /, **settings: str) -> dict[str, str]:
    return startup_settings(StartupRequest("app", "x", settings), info)


def refusal(info: TenantInfo, /, **settings: str) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        settings_of(info, **settings)
    assert caught.value.severity == "FATAL"
    return caught.value


def test_the_tenants_schema_is_the_default_and_text_is_read_as_the_guard_does(acme):
    assert settings_of(acme) == {
        "search_path": "acme, public",
        "standard_conforming_strings": "on",
        "backslash_quote": "safe_encoding",
        "tenant_proxy.schema": "acme",
        "tenant_proxy.space": acme.space,
        "tenant_proxy.public": "off",
        "tenant_proxy.readable": '{"public"}',
    }


def test_what_hides_other_tenants_knows_this_one_by_settings_that_clients_cant_change():
    info = tenant(r"""policy: {public_is_own: true, allowed_schemas: [public, 'a "b\']}""")
    got = settings_of(info)
    assert got["tenant_proxy.public"] == "on"
    assert got["tenant_proxy.readable"] == r"""{"public","a \"b\\"}"""
    for name in ("schema", "space", "public", "readable", "anything"):
        assert refusal(info, **{f"tenant_proxy.{name}": "x"}).sqlstate == "42501"
        assert refusal(info, **{f"Tenant_Proxy.{name.upper()}": "x"}).sqlstate == "42501"


def test_a_space_is_the_tenant_s_and_the_secret_s():
    spaces = {space_of(name, secret) for name in ("acme", "beta") for secret in (None, "s", "t")}
    assert len(spaces) == 6
    assert all(re.fullmatch("[a-z2-7]{13}", space) for space in spaces)
    assert space_of("acme", "s") == space_of("acme", "s")


def test_names_are_quoted_where_they_need_it():
    assert (
        settings_of(tenant("schema: A b, policy: {allowed_schemas: [x, Y]}"))["search_path"]
        == '"A b", x, "Y"'
    )


def test_a_clients_settings_win_over_the_tenants():
    info = tenant("settings: {jit: off, Statement_Timeout: 5s, search_path: public}")
    got = settings_of(info, statement_timeout="1s", application_name="a")
    assert (got["jit"], got["statement_timeout"], got["application_name"]) == ("off", "1s", "a")
    assert got["search_path"] == "public"


def test_a_clients_search_path_inside_the_tenant(acme):
    assert settings_of(acme, search_path="pg_temp, Acme")["search_path"] == "pg_temp, Acme"


def test_a_clients_search_path_where_public_is_its_own():
    own = tenant("schema: A b, policy: {public_is_own: true}")
    assert settings_of(own, search_path="public")["search_path"] == '"A b"'
    assert settings_of(own, search_path='pg_catalog, "public"')["search_path"] == 'pg_catalog, "A b"'


def test_a_clients_search_path_outside_the_tenant(acme):
    error = refusal(acme, search_path="acme, beta")
    assert (error.sqlstate, error.schema) == ("42501", "beta")


def test_the_name_of_the_tenant_is_not_for_the_server(acme):
    assert "tenant" not in settings_of(acme, tenant="acme")


def test_the_tenants_role():
    assert settings_of(tenant("role: acme_rw"))["role"] == "acme_rw"


@pytest.mark.parametrize("name", ["role", "ROLE", "session_authorization", "is_superuser", "exit_on_error",
                                  "local_preload_libraries", "session_replication_role"])  # fmt: skip
def test_settings_that_no_client_may_bring(acme, name):
    error = refusal(acme, **{name: "x"})
    assert error.sqlstate == "42501"
    assert error.hint


def test_settings_that_the_operator_denies():
    info = tenant("policy: {denied_settings: [work_mem]}, settings: {work_mem: 8MB}")
    assert settings_of(info)["work_mem"] == "8MB"
    assert refusal(info, work_mem="1GB").sqlstate == "42501"


def test_names_that_are_none(acme):
    assert refusal(acme, **{"a b": "x"}).sqlstate == "42602"


@pytest.mark.parametrize(
    "parameters",
    [
        *({"options": f"-c {name}=x"} for name in ("user", "database", "options", "replication", "USER")),
        *({name: "x"} for name in ("User", "DATABASE", "Options", "Replication")),
        {"options": "-c _pq_.x=1"},
    ],
)
def test_who_and_where_are_no_settings(acme, parameters):
    """They would stand beside, and so replace, the proxy's own in its StartupMessage."""
    request = StartupRequest("app", "x", request_settings(parameters))
    with pytest.raises(ProxyError) as caught:
        startup_settings(request, acme)
    assert (caught.value.sqlstate, caught.value.severity) == ("42704", "FATAL")
