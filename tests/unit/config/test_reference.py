"""The reference file, the JSON schema and the docs have every key, and are current."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenant_proxy.config import yaml_nodes
from tenant_proxy.config.load import load
from tenant_proxy.config.reference import Key, json_schema, keys, section_text
from tenant_proxy.config.schema import Config

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "config" / "tenant_proxy.yaml"
ENVIRON = {"ACME_APP_PASSWORD": "a", "ADMIN_PASSWORD": "b"}


def test_generated_files_are_current():
    script = ROOT / "scripts" / "generate_reference.py"
    spec = importlib.util.spec_from_file_location("generate_reference", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stale = [str(path) for path, text in module.generated().items() if path.read_text() != text]
    assert not stale, f"run python scripts/generate_reference.py: {stale}"


@pytest.mark.parametrize("name", ["tenant_proxy.yaml", "minimal.yaml"])
def test_samples_can_be_loaded(name):
    loaded = load(ROOT / "config" / name, ENVIRON)
    assert not loaded.warnings
    assert [tenant.name for tenant in loaded.config.tenants] == ["acme"]


def test_the_reference_means_the_defaults():
    """Whoever starts from it gets what whoever leaves everything out gets."""
    full = load(REFERENCE, ENVIRON).config
    least = load(ROOT / "config" / "minimal.yaml", ENVIRON).config
    assert full.model_copy(update={"users": full.users[:1]}) == least


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.name)
def test_the_reference_has_every_key_with_its_default_and_a_comment(key: Key):
    text = REFERENCE.read_text()
    document = yaml_nodes.parse(text, str(REFERENCE))
    path = tuple(part for word in key.name.split(".") for part in _steps(word))
    assert document.has(path), "the key is missing"
    line = document.place(path, key=True)[0]
    lines = text.splitlines()
    assert lines[line - 2].lstrip(" -").startswith("# "), "no comment above it"
    value: Any = document.data
    for part in path:
        value = value[part]
    if key.required or (isinstance(value, list) and value and isinstance(value[0], dict)):
        return
    default = yaml.safe_load(key.default)
    assert value == default or lines[line - 1].endswith(f"# default: {key.default}")


def _steps(word: str) -> tuple[str | int, ...]:
    return (word.removesuffix("[]"), 0) if word.endswith("[]") else (word,)


def test_keys_are_those_of_the_schema():
    """Walks the JSON schema by itself, so that a key that `keys` forgets is noticed."""
    schema = json_schema()
    assert {key.name for key in keys()} == set(_walk(schema, schema, ""))


def _walk(schema: dict[str, Any], node: dict[str, Any], prefix: str):
    for name, value in node["properties"].items():
        target = value
        for ref in (value, value.get("items", {}), *value.get("anyOf", [])):
            if "$ref" in ref:
                target = schema["$defs"][ref["$ref"].rpartition("/")[2]]
        is_section = "properties" in target and target["title"] != "SecretRef"
        override = prefix == "tenants[]." and name in ("pool", "policy")
        if not is_section or override or value.get("type") == "array":
            yield f"{prefix}{name}"
        if is_section and not override:
            yield from _walk(
                schema, target, f"{prefix}{name}" + ("[]." if value.get("type") == "array" else ".")
            )


def test_every_key_says_what_it_is():
    assert not [key.name for key in keys() if not key.text.endswith(".")]


def test_every_section_says_what_it_is():
    sections = {key.name.rpartition(".")[0] for key in keys()} - {""}
    assert not [section for section in sections if not section_text(section)]


def test_the_docs_have_one_row_per_key():
    rows = re.findall(
        r"^\| `([^`]+)` \| (?:`(.+?)`|\*required\*) \|",
        (ROOT / "docs/configuration.md").read_text(),
        re.MULTILINE,
    )
    documented = {name: default for name, default in rows if name in {key.name for key in keys()}}
    assert documented == {key.name: key.default for key in keys()}


def test_the_json_schema_describes_a_tenants_overrides():
    tenant = json_schema()["$defs"]["Tenant"]["properties"]
    assert tenant["pool"]["$ref"] == "#/$defs/Pool"
    assert tenant["policy"]["$ref"] == "#/$defs/Policy"
    assert json.loads(json.dumps(json_schema())) == json_schema()
    assert json_schema()["required"] == ["clusters"]


def test_units_are_in_the_names():
    for key in keys():
        assert (key.unit == "s") == key.name.endswith("_s")
        assert (key.unit == "bytes") == key.name.endswith("_bytes")


def test_config_is_what_the_file_is():
    assert list(Config.model_fields) == list(dict.fromkeys(re.split(r"[.\[]", key.name)[0] for key in keys()))
