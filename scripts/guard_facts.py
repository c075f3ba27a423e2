"""Writes tenant_proxy/guard/data/facts.json: what PostgreSQL's own catalogs say of its functions.

    python scripts/guard_facts.py postgresql://… postgresql://…

Each argument is the DSN of a fresh cluster (as initdb leaves it) of one major version; give all that
are supported.  The output is data to be reviewed like code: `guard/functions.py` turns it, with the
hand-written data/functions.yaml, into what the guard knows of each function.  A volatile function that
the YAML does not mention is refused until somebody classifies it, so a new major brings work here,
and no surprise.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncpg

OUTPUT = Path(__file__).parent.parent / "tenant_proxy" / "guard" / "data" / "facts.json"

#: one row per function of the system, overloads apart
FUNCTIONS = """
SELECT p.oid::int4 AS oid, n.nspname AS schema, p.proname AS name,
       p.provolatile::text AS volatility, p.prokind::text AS kind, l.lanname AS language,
       p.proacl IS NOT NULL AND NOT EXISTS (
           SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE'
       ) AS privileged,
       p.pronargs - p.pronargdefaults AS least, p.pronargs AS most, p.provariadic <> 0 AS variadic,
       'internal'::regtype = ANY (p.proargtypes) OR p.prorettype IN (
           'trigger'::regtype, 'event_trigger'::regtype, 'language_handler'::regtype,
           'fdw_handler'::regtype, 'index_am_handler'::regtype, 'tsm_handler'::regtype,
           'table_am_handler'::regtype
       ) AS uncallable,
       p.prorettype = 'trigger'::regtype AS trigger,
       ARRAY(SELECT t.typname::text FROM unnest(p.proargtypes) WITH ORDINALITY AS a (oid, at)
             JOIN pg_type AS t ON t.oid = a.oid ORDER BY a.at) AS arguments
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_language AS l ON l.oid = p.prolang
 WHERE n.nspname IN ('pg_catalog', 'information_schema')
 ORDER BY n.nspname, p.proname, p.oid
"""

#: types that a function call may name, as date('…') does; arrays and rows left out
TYPES = """
SELECT typname FROM pg_type
 WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm', 'd') AND typelem = 0
 ORDER BY typname
"""

RELATIONS = """
SELECT relname FROM pg_class
 WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') ORDER BY relname
"""


async def read(dsn: str) -> tuple[int, list[asyncpg.Record], list[str], list[str]]:
    connection = await asyncpg.connect(dsn)
    try:
        major = connection.get_server_version().major
        functions = await connection.fetch(FUNCTIONS)
        types = [row[0] for row in await connection.fetch(TYPES)]
        relations = [row[0] for row in await connection.fetch(RELATIONS)]
        return major, functions, types, relations
    finally:
        await connection.close()


def merge(facts: dict[str, Any], row: asyncpg.Record, major: int) -> None:
    """Overloads and versions of one name come to one entry, of each fact the more dangerous."""
    fact = facts.setdefault(
        row["name"],
        {"majors": [], "volatility": "i", "kinds": "", "calls": [], "oids": []},
    )
    if major not in fact["majors"]:
        fact["majors"].append(major)
    fact["volatility"] = max(fact["volatility"], row["volatility"])  # i < s < v
    fact["kinds"] = "".join(sorted({*fact["kinds"], row["kind"]}))
    for flag in ("privileged", "trigger"):
        if row[flag]:
            fact[flag] = True
    if row["oid"] not in fact["oids"]:
        fact["oids"].append(row["oid"])
    if row["uncallable"]:
        return
    fact["callable"] = True
    arguments = [name if name.startswith("reg") else "" for name in row["arguments"]]
    call = [row["least"], -1 if row["variadic"] else row["most"], ",".join(arguments).rstrip(",")]
    if call not in fact["calls"]:
        fact["calls"].append(call)


def compact(value: dict[str, Any]) -> str:
    """JSON with one entry a line, so that diffs can be read."""
    lines = []
    for section, content in value.items():
        if isinstance(content, dict):
            entries = ",\n".join(
                f"  {json.dumps(name)}: {json.dumps(content[name])}" for name in sorted(content)
            )
            lines.append(f"{json.dumps(section)}: {{\n{entries}\n}}")
        else:
            lines.append(f"{json.dumps(section)}: {json.dumps(content)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


async def main(dsns: list[str]) -> None:
    if not dsns:
        sys.exit(__doc__)
    result: dict[str, Any] = {"majors": [], "types": [], "relations": [], "pg_catalog": {}}
    result["information_schema"] = {}
    for dsn in dsns:
        major, functions, types, relations = await read(dsn)
        result["majors"] = sorted({*result["majors"], major})
        result["types"] = sorted({*result["types"], *types})
        result["relations"] = sorted({*result["relations"], *relations})
        for row in functions:
            merge(result[row["schema"]], row, major)
    for schema in ("pg_catalog", "information_schema"):
        for fact in result[schema].values():
            fact["majors"].sort()
            fact["calls"].sort()
            fact["oids"].sort()
    OUTPUT.write_text(compact(result))
    print(f"{OUTPUT.name}: {len(result['pg_catalog'])} functions of majors {result['majors']}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
