"""Writes docs/api.md: what is said there by hand, and the reference from the API's OpenAPI document.

The examples are those of tenant_proxy/api/examples.py, which a test runs in their order.
"""

import json
import re
from pathlib import Path
from typing import Any

from tenant_proxy.api.app import bare_document
from tenant_proxy.api.examples import STORY, Example
from tenant_proxy.api.permissions import MATRIX, Role

DOCS = Path(__file__).parent.parent / "docs" / "api.md"
TITLES = {
    "tenants": "Tenants",
    "access": "Access",
    "estates": "Archives and migrations",
    "plans": "Plans",
    "work": "Jobs, log, usage and tokens",
    "webhooks": "Webhooks",
}


def reference() -> str:
    document = bare_document()
    lines: list[str] = []
    for tag, title in TITLES.items():
        lines += [f"### {title}", ""]
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if operation["tags"] == [tag]:
                    lines += _operation(method.upper(), path, operation)
    return "\n".join(lines)


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    name = operation["operationId"]
    roles = ", ".join(f"`{role}`" for role in Role if role in MATRIX[name])
    said = [
        f"#### {method} {path}",
        "",
        f"{operation['summary']}.  {operation.get('description', '')}".strip(),
    ]
    said += ["", f"Operation `{name}`; for {roles}.", ""]
    for one in operation.get("parameters", []):
        if one["in"] == "path":
            continue
        text = one.get("description", "")
        said.append(
            f"- {one['in']} `{one['name']}`{'' if one['required'] else ', optional'}: {text}".rstrip(": ")
        )
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        refs = re.findall(r"#/components/schemas/(\w+)", json.dumps(content))
        media = "JSON" if "application/json" in content else next(iter(content))
        said.append(f"- body: `{refs[0]}`" if refs else f"- body: {media}")
    answers = []
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            refs = re.findall(r"#/components/schemas/(\w+)", json.dumps(response))
            answers.append(f"{status} {' or '.join(f'`{ref}`' for ref in dict.fromkeys(refs))}".strip())
    said += [f"- answers: {', '.join(answers)}", ""]
    for example in STORY:
        if example.operation == name:
            said += _example(example)
    return said


def _example(example: Example) -> list[str]:
    options = "" if example.method == "GET" else f" -X {example.method}"
    lines = [f'curl{options} -H "Authorization: Bearer $TOKEN" \\']
    lines += [f'  -H "{key}: {value}" \\' for key, value in example.headers.items()]
    if example.body is not None:
        lines += ["  -H 'Content-Type: application/json' \\", f"  -d '{json.dumps(example.body)}' \\"]
    if example.raw is not None:
        lines.append(f"  --data-binary @{example.path.rsplit('/', 1)[1]} \\")
    lines.append(f'  "$URL{example.path}"')
    return ["```sh", *lines, f"# {example.status}", "```", ""]


def generated() -> str:
    text = DOCS.read_text()
    middle = f"<!-- reference -->\n\n{reference()}\n<!-- /reference -->"
    return re.sub(r"<!-- reference -->.*<!-- /reference -->", lambda _: middle, text, flags=re.DOTALL)


if __name__ == "__main__":
    DOCS.write_text(generated())
