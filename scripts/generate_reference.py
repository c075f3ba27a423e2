"""Writes what is generated from the configuration's schema: config/* and the tables of its docs."""

import json
import re
from pathlib import Path

from tenant_proxy.config.reference import json_schema, policy_schema
from tenant_proxy.config.sample import markdown, minimal_yaml, policy_yaml, sample_yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "configuration.md"


def generated() -> dict[Path, str]:
    """What belongs into which file."""
    tables = f"\\1\n\n{markdown()}\\2".replace("\\|", "\\\\|")
    return {
        ROOT / "config" / "tenant_proxy.yaml": sample_yaml(),
        ROOT / "config" / "minimal.yaml": minimal_yaml(),
        ROOT / "config" / "policy.yaml": policy_yaml(),
        ROOT / "config" / "policy.schema.json": json.dumps(policy_schema(), indent=2) + "\n",
        ROOT / "config" / "tenant_proxy.schema.json": json.dumps(json_schema(), indent=2) + "\n",
        DOCS: re.sub(r"(<!-- keys: .*? -->)\n.*?(<!-- /keys -->)", tables, DOCS.read_text(), flags=re.DOTALL),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
