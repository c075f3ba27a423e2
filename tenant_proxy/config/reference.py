"""The configuration described, from the schema alone: JSON schema, and a row per key for docs and tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tenant_proxy.config.reload import When, when_of
from tenant_proxy.config.schema import Config, Policy, SecretRef, Section
from tenant_proxy.config.validate import Shape
from tenant_proxy.texts import describe, texts_of


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file, e.g. clusters[].tls.mode."""

    name: str
    #: in words: "text", "whole number", "list of text" …
    kind: str
    #: as YAML would write it; empty when the key is required
    default: str
    #: values or a range
    allowed: tuple[str, ...]
    #: "s", "bytes" or empty
    unit: str
    when: When
    text: str
    #: of a secret: where it may be
    secret: bool = False

    @property
    def required(self) -> bool:
        return not self.default


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the configuration file."""
    schema = _schema_of(Config)
    tenant = schema["$defs"]["Tenant"]["properties"]
    for key, model in (("pool", "Pool"), ("policy", "Policy")):
        tenant[key] |= {"$ref": f"#/$defs/{model}"}
        for rest in ("additionalProperties", "type"):
            tenant[key].pop(rest, None)
    only_one: dict[str, Any] = {"minProperties": 1, "maxProperties": 1}
    schema["$defs"]["SecretRef"] |= only_one
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tenant_proxy"}
    return head | schema | head


def policy_schema() -> dict[str, Any]:
    """The same of a policy file."""
    schema = _schema_of(Policy)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tenant_proxy policy"}
    return head | schema | head


def _schema_of(model: type[Section]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True)
    describe(schema.get("$defs", {}) | {model.__name__: schema}, Section)
    return schema


def keys() -> list[Key]:
    """Every key that holds a value, in the order of the schema."""
    return list(_keys(Config, ""))


def section_text(name: str) -> str:
    """What a section is for, e.g. of listen.tls or clusters[]."""
    path = [part.removesuffix("[]") for part in name.split(".")]
    shape: Shape | None = Shape(Config)
    for part in path:
        shape = shape.child(part) if shape is not None else None
        if shape is not None and get_origin(shape.type) is list:
            shape = shape.child(0)
    model = shape.model if shape is not None else None
    return " ".join((model.__doc__ or "").split()) if model is not None else ""


def _keys(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    texts = texts_of(model)
    for name, field in model.model_fields.items():
        shape = Shape.of(field.annotation, tuple(field.metadata))
        key = f"{prefix}{field.alias or name}"
        inner = _entry_model(shape)
        if shape.model is not None and shape.model is not SecretRef:
            yield from _keys(shape.model, f"{key}.")
            continue
        yield Key(
            name=key,
            kind=_kind(shape),
            default="" if field.is_required() else _yaml(_default(field)),
            allowed=_allowed(shape),
            unit=next((u for u in ("s", "bytes") if name.endswith(f"_{u}")), ""),
            when=when_of(key),
            text=" ".join(texts.get(name, "").split()),
            secret=shape.model is SecretRef,
        )
        if inner is not None:
            yield from _keys(inner, f"{key}[].")


def _entry_model(shape: Shape) -> type[BaseModel] | None:
    """The section that a list's entries are."""
    args = get_args(shape.type)
    return Shape.of(args[0]).model if get_origin(shape.type) is list and args else None


def _kind(shape: Shape) -> str:
    if shape.model is SecretRef:
        return "secret"
    if shape.model is not None:
        return "section"
    origin, args = get_origin(shape.type), get_args(shape.type)
    if origin is list:
        inner = _kind(Shape.of(args[0]))
        return f"list of {'sections' if inner == 'section' else inner}"
    if origin is dict:
        return "keys and values"
    words = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return words.get(shape.type, "word")


def _allowed(shape: Shape) -> tuple[str, ...]:
    if shape.model is not None:
        return ()
    if get_origin(shape.type) is list:
        return _allowed(Shape.of(get_args(shape.type)[0]))
    return () if shape.type is bool else shape.allowed()


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _yaml(value: Any) -> str:
    """A default on one line; JSON is YAML."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, BaseModel):
        return json.dumps(value.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    if isinstance(value, str):
        return value if re.fullmatch(r"[A-Za-z][\w.-]*", value) else json.dumps(value)
    return json.dumps(value)
