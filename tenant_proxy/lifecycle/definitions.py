"""What objects of a schema are, in PostgreSQL's own words, so that two schemas can be compared.

Definitions are read with the schema as search_path: PostgreSQL then writes names in it without it, and those
of two schemas that are the same read the same.  But the query itself is planned before that is set: else the
schema's own functions and operators would be the better match for many of its calls.  Text that is stored as
it was written (bodies of functions) is left out: a name in it is somebody else's to compare (`rename`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.lifecycle.rename import quote_name

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_DEFINITIONS: Final = """
WITH n AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $1),
r AS (SELECT c.* FROM pg_catalog.pg_class c WHERE c.relnamespace = (SELECT oid FROM n))
SELECT 'relation' AS kind, r.relname::text AS name,
       concat_ws(' ', r.relkind, r.relpersistence, r.relreplident, r.relrowsecurity, r.relforcerowsecurity,
                 r.reloptions, r.relispartition, pg_catalog.pg_get_expr(r.relpartbound, r.oid),
                 CASE WHEN r.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(r.oid) END,
                 CASE WHEN r.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(r.oid) END,
                 CASE WHEN r.reloftype <> 0 THEN r.reloftype::regtype::text END) AS text FROM r
UNION ALL
SELECT 'column', r.relname || '.' || a.attname,
       concat_ws(' ', a.attnum, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                 a.attgenerated, a.attstorage, a.attcompression, a.attstattarget, a.attfdwoptions,
                 a.attislocal, a.attinhcount, a.attcollation::regcollation,
                 pg_catalog.pg_get_expr(d.adbin, d.adrelid))
  FROM r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
UNION ALL
SELECT 'constraint', coalesce(k.conrelid::regclass::text, k.contypid::regtype::text) || ' ' || k.conname,
       concat_ws(' ', k.contype, k.condeferrable, k.condeferred, k.convalidated, k.conislocal,
                 pg_catalog.pg_get_constraintdef(k.oid))
  FROM pg_catalog.pg_constraint k WHERE k.connamespace = (SELECT oid FROM n)
UNION ALL
SELECT 'index', i.indexrelid::regclass::text,
       concat_ws(' ', i.indisclustered, i.indisreplident, i.indisvalid,
                 pg_catalog.pg_get_indexdef(i.indexrelid, 0, true))
  FROM r JOIN pg_catalog.pg_index i ON i.indrelid = r.oid
UNION ALL
SELECT 'sequence', r.relname::text,
       concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache,
                 s.seqcycle, pg_catalog.pg_sequence_last_value(r.oid))
  FROM r JOIN pg_catalog.pg_sequence s ON s.seqrelid = r.oid
UNION ALL
SELECT 'trigger', r.relname || ' ' || t.tgname,
       concat_ws(' ', t.tgenabled, pg_catalog.pg_get_triggerdef(t.oid, true))
  FROM r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'rule', r.relname || ' ' || w.rulename,
       concat_ws(' ', w.ev_enabled, pg_catalog.pg_get_ruledef(w.oid, true))
  FROM r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid WHERE w.rulename <> '_RETURN'
UNION ALL
SELECT 'policy', r.relname || ' ' || p.polname,
       concat_ws(' ', p.polcmd, p.polpermissive, cardinality(p.polroles),
                 pg_catalog.pg_get_expr(p.polqual, p.polrelid),
                 pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
  FROM r JOIN pg_catalog.pg_policy p ON p.polrelid = r.oid
UNION ALL
SELECT 'statistics', x.stxname::text,
       concat_ws(' ', x.stxrelid::regclass, x.stxkind, pg_catalog.pg_get_statisticsobjdef_columns(x.oid))
  FROM pg_catalog.pg_statistic_ext x WHERE x.stxnamespace = (SELECT oid FROM n)
UNION ALL
SELECT 'parent', h.inhrelid::regclass::text, h.inhparent::regclass || ' ' || h.inhseqno
  FROM r JOIN pg_catalog.pg_inherits h ON h.inhrelid = r.oid
UNION ALL
SELECT 'function', p.oid::regprocedure::text,
       concat_ws(' ', p.prokind, p.provolatile, p.proparallel, p.prosecdef, p.proleakproof, p.proisstrict,
                 p.procost, p.prorows, l.lanname, pg_catalog.pg_get_function_result(p.oid),
                 pg_catalog.pg_get_function_arguments(p.oid), cardinality(p.proconfig),
                 pg_catalog.pg_get_function_sqlbody(p.oid))
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.pronamespace = (SELECT oid FROM n)
UNION ALL
SELECT 'type', t.oid::regtype::text,
       concat_ws(' ', t.typtype, t.typnotnull, t.typdefault,
                 pg_catalog.format_type(t.typbasetype, t.typtypmod),
                 (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                    FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid))
  FROM pg_catalog.pg_type t WHERE t.typnamespace = (SELECT oid FROM n)
"""


_ROWS: Final = 1000


async def read(connection: Connection, schema: str) -> Counter[tuple[str, str, str]]:
    """Kind, name and words of each object; in a transaction, whose search_path stays changed."""
    await connection.execute("SET LOCAL search_path = ''")
    cursor = await connection.cursor(_DEFINITIONS, schema)
    await connection.execute(f"SET LOCAL search_path = {quote_name(schema)}")
    found: Counter[tuple[str, str, str]] = Counter()
    while rows := await cursor.fetch(_ROWS):
        found.update((row["kind"], row["name"], row["text"]) for row in rows)
    await connection.execute("SET LOCAL search_path = ''")
    return found
