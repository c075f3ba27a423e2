"""YAML itself: syntax errors with their place, duplicate keys, and what is not taken."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.config import yaml_nodes
from tenant_proxy.config.load import load, load_text
from tenant_proxy.config.problems import ConfigError, Problem
from tests.unit.config.files import only_problem, problems


def test_a_key_given_twice():
    found = only_problem("""
        pool:
          max: 3
          min: 1
          max: 4
        """)
    assert (found.line, found.column, found.key) == (4, 3, "pool.max")
    assert "given twice (first in line" in found.message


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: [1\nc: 2\n", 3, "expected ',' or ']'"),
        ("a: 'x\n", 2, "unexpected end of stream"),
        ("a: 1\n\tb: 2\n", 2, "spaces, not tabs"),
        ("a: x: y\n", 1, "mapping values are not allowed"),
        ("a: 1\n---\nb: 2\n", 2, "more than one document"),
        ("a: 1\nb: *c\n", 2, "an alias (*name) without its anchor"),
        ("a: 1\nb: \x07\n", 2, "the character U+0007 is not allowed"),
        ("a: " + "[" * 100_000, 1, "nested deeper than"),
    ],
)
def test_a_syntax_error_has_its_line(text, line, says):
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f.yaml")
    found = caught.value.problems[0]
    assert found.line == line
    assert says in str(found)


def test_no_value_of_the_file_is_quoted_in_a_syntax_error():
    for text in (
        "a: {value: hunter2\n",
        "a: *hunter2",
        "a: !hunter2 x",
        "a: @hunter2",
        "a: 'hunter2",
        "%hunter2",
    ):
        with pytest.raises(ConfigError) as caught:
            load_text(text)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("policy: &p {mode: off}\npool:\n  <<: *p\n", "merge keys (<<) are not supported"),
        ("workers: !!python/none x\n", "tags (!…) are not supported"),
        ("? [1, 2]\n: 3\n", "a key must be a plain word"),
    ],
)
def test_what_is_not_supported(text, says):
    assert any(says in problem.message for problem in problems(text))


def test_aliases_are_followed():
    document = yaml_nodes.parse("a: &x {b: [1, 2]}\nc: *x\n", "f.yaml")
    assert document.data == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}
    assert not document.problems


def test_an_alias_inside_itself_ends():
    assert "too deep" in yaml_nodes.parse("a: &x [*x]\n", "f.yaml").problems[0].message


def test_aliases_that_grow_exponentially_end(monkeypatch):
    monkeypatch.setattr(yaml_nodes, "MAX_VALUES", 10_000)
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 25)]
    assert "too large" in yaml_nodes.parse("\n".join(lines), "f.yaml").problems[0].message


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "[1]", "text", "null"])
def test_a_file_without_keys(text):
    with pytest.raises(ConfigError, match=r"the file (is empty|must be a mapping)"):
        load_text(text)


def test_a_byte_order_mark_and_what_is_not_utf_8(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_bytes("\ufeffclusters: [{name: a, host: h, database: ä}]".encode())
    assert load(file).config.clusters[0].database == "ä"
    file.write_bytes(b"clusters:\n  - {name: \xff}")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert (caught.value.problems[0].line, caught.value.problems[0].message) == (
        2,
        "the file is not UTF-8 text",
    )


# --- whatever stands in a file, the answer is a configuration or problems ----------

_WORDS = st.sampled_from(
    [
        "name",
        "host",
        "database",
        "acme",
        "off",
        "session",
        "value",
        "env",
        "~",
        "1",
        "-1",
        "0.5",
        "x y",
        "é",
        "cert",
    ]
)
_KEYS = st.sampled_from(
    [
        "workers",
        "listen",
        "tls",
        "mode",
        "clusters",
        "name",
        "host",
        "port",
        "database",
        "tenants",
        "schema",
        "cluster",
        "pool",
        "policy",
        "users",
        "tenant",
        "password",
        "verifier",
        "value",
        "env",
        "file",
        "auth",
        "rules",
        "method",
        "type",
        "address",
        "mapping",
        "settings",
        "sni",
        "isolation",
        "min",
        "max",
    ]
)
_VALUES = st.recursive(
    _WORDS | st.none() | st.booleans() | st.integers(-2, 70_000) | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=25,
)


def problems_of(text: str) -> list[Problem]:
    try:
        return list(load_text(text, environ={"acme": "secret"}).warnings)
    except ConfigError as error:
        return error.problems or pytest.fail("refused without a problem")


@given(st.dictionaries(_KEYS, _VALUES, max_size=8))
def test_any_structure_is_loaded_or_refused(data):
    text = yaml.safe_dump(data, allow_unicode=True)
    assert all(problem.line >= 1 for problem in problems_of(text))


@given(st.text(alphabet=st.sampled_from("abc:-[]{}*&!|>'\"#%@`,?<~ \n\t1\\é\x00"), max_size=60))
def test_any_text_is_loaded_or_refused(text):
    with pytest.raises(ConfigError):
        load_text(text)


def test_where_things_stand():
    document = yaml_nodes.parse("a: &x\n  - {b: 1, c: '2'}\n  - 03\nd: *x\na: again\n", "f")
    assert document.place(("a", 0, "c")) == (2, 15)
    assert document.place(("a", 0, "c"), key=True) == (2, 12)
    # of what is not there, the nearest thing around it
    assert document.place(("a", 0, "z", "y")) == (2, 5)
    assert document.place(("d", 0, "c"), key=True) == (2, 12), "an alias stands where its anchor is"
    assert document.has(("d", 1))
    assert not document.has(("a", 2))
    assert not document.has(("a", 0, "b", "c"))
    assert document.text(("a", 1)) == "03", "as it is written"
    assert document.text(("a", 0, "c")) is None, "in quotes it is text anyway"
    assert yaml_nodes.parse("", "f").place(("a",)) == (1, 1)
