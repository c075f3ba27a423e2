"""The configuration described: JSON schema, and one row per key for docs and tests."""

from __future__ import annotations

from typing import Any

from tenant_proxy.config.schema import Config


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the configuration file."""
    schema = Config.model_json_schema(by_alias=True)
    tenant = schema["$defs"]["Tenant"]["properties"]
    for key, model in (("pool", "Pool"), ("policy", "Policy")):
        tenant[key] = {"$ref": f"#/$defs/{model}", "default": {}}
    return schema
