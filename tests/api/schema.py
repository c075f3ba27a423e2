"""As much of JSON Schema as the API's OpenAPI document uses."""

from __future__ import annotations

from typing import Any

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def problems(value: Any, schema: dict[str, Any], document: dict[str, Any], at: str = "$") -> list[str]:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return problems(value, document["components"]["schemas"][name], document, at)
    if "anyOf" in schema:
        found = [problems(value, one, document, at) for one in schema["anyOf"]]
        return [] if [] in found else [f"{at}: none of {found}"]
    if "const" in schema and value != schema["const"]:
        return [f"{at}: not {schema['const']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} is none of {schema['enum']}"]
    kind = schema.get("type")
    if kind is not None and (
        not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")
    ):
        return [f"{at}: {value!r} is no {kind}"]
    said = []
    if isinstance(value, dict):
        known = schema.get("properties", {})
        said += [f"{at}: no {name}" for name in schema.get("required", []) if name not in value]
        for name, one in value.items():
            inner = known.get(name, schema.get("additionalProperties", True))
            if inner is False:
                said.append(f"{at}: has {name}")
            elif isinstance(inner, dict):
                said += problems(one, inner, document, f"{at}.{name}")
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, one in enumerate(value):
            said += problems(one, schema["items"], document, f"{at}[{index}]")
    return said
