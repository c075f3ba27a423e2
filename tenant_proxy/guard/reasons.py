"""What the reasons of refusals mean, for people: `Verdict.reason`, the label of the metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REASONS: Final[Mapping[str, str]] = {
    "catalog": "a system catalog that holds secrets or other tenants' values",
    "catalogs_missing": "what would show other tenants, where the database lacks the views that hide them",
    "channel": "a channel's name that leaves no room for the tenant's prefix",
    "cross_schema": "an object of a schema that the tenant may not name",
    "discard_all": "DISCARD ALL where it could lose the tenant's role",
    "dynamic_query": "SQL in an argument that is not a constant",
    "encoding": "text that is not valid in its encoding",
    "folding": "a name without quotes that the server's locale may turn to another",
    "function": "a function that reaches outside the tenant, or is not known",
    "internal": "a mistake of the guard itself",
    "invalid_name": "a literal that is no valid name where one belongs",
    "language": "code in a language that can't be read",
    "locked_settings": "SQL made at run time where settings are locked",
    "named_arguments": "arguments by name where their positions decide",
    "parameter_type": "a parameter whose type could make another text of its value",
    "read_only_schema": "a change in a schema that the tenant may only read",
    "rewriting": "a name that must be changed and can't be told in the text",
    "role": "a role that is not the tenant's",
    "schema_exists": "CREATE SCHEMA of the tenant's own",
    "search_path": "a search_path that leaves the tenant",
    "server_file": "a file or program of the server",
    "setting_dynamic": "a setting that can't be told from the text",
    "setting_name": "a word that is no name of a setting",
    "setting_refused": "a setting that is kept from clients",
    "setting_value": "a value of a setting that can't be read safely",
    "shared_object": "an object that all of the database or server share",
    "statement_name": "a name of a prepared statement that the proxy keeps for its own",
    "statement": "a kind of statement that is the platform's",
    "syntax": "text that the parser can't read",
    "too_complex": "text that is too deeply nested or too costly to check",
    "too_large": "text that is too large to check",
    "two_phase": "a two-phase transaction, which outlives its session",
    "unknown_syntax": "syntax that the guard does not know",
    "whole_database": "upkeep of the whole database",
}
