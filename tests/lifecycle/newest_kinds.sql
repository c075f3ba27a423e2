-- Kinds, shapes and properties of objects that neither every_kind.sql nor more_kinds.sql has.  Filled in as they
-- are.  A line "-- from N" begins what PostgreSQL has from version N on, "-- with icu" what needs ICU; run by the
-- owner but where only a superuser may do it.
SET ROLE {owner};
SET search_path = {schema}, public;

-- types
CREATE TYPE steps AS ENUM ('first', 'last');
ALTER TYPE steps ADD VALUE 'between' BEFORE 'last';
ALTER TYPE steps ADD VALUE 'start' BEFORE 'first';
ALTER TYPE steps RENAME VALUE 'last' TO 'end';
CREATE DOMAIN name_text AS text COLLATE "C" CHECK (VALUE <> '');
CREATE DOMAIN long_name AS name_text CONSTRAINT fits CHECK (length(VALUE) < 99) NOT NULL;
CREATE DOMAIN long_names AS long_name[] DEFAULT '{}';
CREATE TYPE sized AS (width numeric(5, 2), gone int, names long_names, what steps);
ALTER TYPE sized DROP ATTRIBUTE gone;
ALTER TYPE sized ADD ATTRIBUTE more text COLLATE "C";
CREATE DOMAIN checked_size AS sized CHECK ((VALUE).width > 0);
ALTER DOMAIN checked_size ADD CONSTRAINT later CHECK ((VALUE).width < 100) NOT VALID;
CREATE TYPE words_between AS RANGE (subtype = text, collation = "C", multirange_type_name = sets_of_words);
CREATE TYPE lengths AS RANGE (subtype = numeric, subtype_opclass = numeric_ops);
COMMENT ON TYPE steps IS 'steps of {schema}';
COMMENT ON TYPE words_between IS 'words';
COMMENT ON DOMAIN long_names IS 'names';
COMMENT ON COLUMN sized.width IS 'how wide';

-- code
CREATE FUNCTION settings_of() RETURNS text LANGUAGE sql STABLE PARALLEL RESTRICTED COST 3
    SET search_path = {schema}, pg_temp SET work_mem = '5MB' SET "DateStyle" = 'ISO, DMY'
    AS $$ SELECT current_setting('work_mem') $$;
CREATE PROCEDURE gives(IN a int, OUT b int, INOUT c text DEFAULT 'x') LANGUAGE plpgsql AS $$
BEGIN b := a; COMMIT; END $$;
CREATE FUNCTION defaults(a int DEFAULT 1, b text DEFAULT 'x'::text, VARIADIC c int[] DEFAULT '{1,2}') RETURNS int
    LANGUAGE sql IMMUTABLE RETURN a;
CREATE FUNCTION atomic_two(a int) RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT a; END;
CREATE FUNCTION collected(internal_state numeric[], a numeric) RETURNS numeric[] LANGUAGE sql IMMUTABLE
    RETURN array_append(internal_state, a);
CREATE FUNCTION finished(numeric[], numeric) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN $1[1] + $2;
CREATE FUNCTION hypothetical(numeric[], numeric) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN cardinality($1);
CREATE AGGREGATE near (numeric ORDER BY numeric) (SFUNC = collected, STYPE = numeric[], SSPACE = 64,
    FINALFUNC = finished, FINALFUNC_MODIFY = read_only, INITCOND = '{}');
CREATE AGGREGATE would_rank (numeric ORDER BY numeric) (SFUNC = collected, STYPE = numeric[], FINALFUNC = hypothetical,
    INITCOND = '{}', HYPOTHETICAL);
CREATE AGGREGATE smallest (int) (SFUNC = int4smaller, STYPE = int, COMBINEFUNC = int4smaller, SORTOP = <, PARALLEL = safe);
CREATE AGGREGATE all_of (VARIADIC int[]) (SFUNC = array_cat, STYPE = int[]);
CREATE AGGREGATE running (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int,
    MINITCOND = '7', MFINALFUNC_MODIFY = shareable);
COMMENT ON AGGREGATE near (numeric ORDER BY numeric) IS 'near';
COMMENT ON PROCEDURE gives(int, text) IS 'gives';

-- tables and what hangs on them
CREATE SEQUENCE counted AS bigint INCREMENT 5 MINVALUE -7 MAXVALUE 1000 START 5 CACHE 9;
CREATE TABLE base (
    id int GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME base_ids START 10 INCREMENT 2 MINVALUE 4 MAXVALUE 999 CACHE 2 CYCLE),
    owned int NOT NULL DEFAULT nextval('counted'),
    a int, b int, c text, d sized, e checked_size, f words_between, g sets_of_words, h long_name,
    i steps[] DEFAULT '{first,end}', j text COLLATE "C",
    k int GENERATED ALWAYS AS (a + b) STORED,
    l int DEFAULT defaults(2, 'y', VARIADIC '{3}'),
    CONSTRAINT base_key PRIMARY KEY (id),
    CONSTRAINT put_off UNIQUE (h) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT both_once UNIQUE (a, b) INCLUDE (c) WITH (fillfactor = 60),
    CONSTRAINT apart EXCLUDE USING gist (f WITH &&) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT by_hash EXCLUDE USING hash (j WITH =),
    CONSTRAINT only_here CHECK (a <> 13) NO INHERIT
) WITH (fillfactor = 77, autovacuum_vacuum_threshold = 7, toast_tuple_target = 256, user_catalog_table = off,
        toast.autovacuum_vacuum_threshold = 9, vacuum_index_cleanup = off, log_autovacuum_min_duration = 5);
ALTER SEQUENCE counted OWNED BY base.owned;
ALTER TABLE base ALTER COLUMN j SET COMPRESSION pglz, ALTER COLUMN j SET STORAGE MAIN, ALTER COLUMN a SET STATISTICS 0;
ALTER TABLE base ALTER COLUMN b SET (n_distinct = -0.5, n_distinct_inherited = 3);
ALTER TABLE base ADD late int NOT NULL DEFAULT 42, ADD gone int;
ALTER TABLE base DROP COLUMN gone;
CREATE UNIQUE INDEX base_hen ON base (a) NULLS NOT DISTINCT;
CREATE INDEX base_gin ON base USING gin (to_tsvector('english', coalesce(c, ''))) WITH (fastupdate = off);
CREATE INDEX base_siglen ON base USING gist (to_tsvector('english'::regconfig, c) tsvector_ops (siglen = 32));
CREATE INDEX base_brin ON base USING brin (a int4_minmax_multi_ops (values_per_range = 16)) WITH (autosummarize = on);
CREATE INDEX base_order ON base (a DESC NULLS FIRST, lower(c) COLLATE "C" text_pattern_ops) WHERE a IS NOT NULL;
CREATE STATISTICS base_stats (ndistinct, dependencies, mcv) ON a, b, (a % 3) FROM base;
ALTER STATISTICS base_stats SET STATISTICS 0;
ALTER TABLE base CLUSTER ON base_hen;
COMMENT ON TABLE base IS 'base of {schema}';
COMMENT ON SEQUENCE base_ids IS 'ids';
COMMENT ON CONSTRAINT apart ON base IS 'apart';
COMMENT ON STATISTICS base_stats IS 'stats';
CREATE TABLE points_at (
    id int REFERENCES base (id) ON UPDATE CASCADE ON DELETE RESTRICT DEFERRABLE,
    a int, b int,
    CONSTRAINT two FOREIGN KEY (a, b) REFERENCES base (a, b) MATCH FULL ON DELETE SET DEFAULT
);
ALTER TABLE points_at ADD CONSTRAINT unchecked FOREIGN KEY (id) REFERENCES base NOT VALID;
ALTER TABLE points_at REPLICA IDENTITY NOTHING;
CREATE TABLE of_type OF sized (
    PRIMARY KEY (width),
    names WITH OPTIONS DEFAULT '{a}',
    what WITH OPTIONS NOT NULL,
    CONSTRAINT wide CHECK (width > 0)
) WITH (fillfactor = 50);
CREATE TABLE parent_one (a int NOT NULL DEFAULT 1, b text DEFAULT 'p', CONSTRAINT pos CHECK (a > 0), CONSTRAINT own CHECK (b <> '') NO INHERIT);
CREATE TABLE parent_two (a int NOT NULL, z int);
CREATE TABLE heir (b text DEFAULT 'h', a int DEFAULT 2, more int) INHERITS (parent_one, parent_two);
CREATE TABLE adopted (a int NOT NULL, b text, z int DEFAULT 9, CONSTRAINT pos CHECK (a > 0));
ALTER TABLE adopted INHERIT parent_one;
ALTER TABLE ONLY parent_one ALTER COLUMN b SET DEFAULT 'later';
CREATE TABLE rows_of (one base, many parent_two[]);
CREATE UNLOGGED TABLE fast (id serial PRIMARY KEY, t text);

-- partitions
CREATE TABLE ranged (a int, b int, c text DEFAULT 'r', at timestamptz) PARTITION BY RANGE (a, (b + 1));
CREATE TABLE ranged_low PARTITION OF ranged FOR VALUES FROM (MINVALUE, MINVALUE) TO (10, MINVALUE);
CREATE TABLE ranged_mid PARTITION OF ranged (c DEFAULT 'm' NOT NULL, CONSTRAINT mid CHECK (a < 50))
    FOR VALUES FROM (10, MINVALUE) TO (50, 7) PARTITION BY LIST (lower(c));
CREATE TABLE ranged_mid_x PARTITION OF ranged_mid FOR VALUES IN ('x', 'y') WITH (fillfactor = 70);
CREATE TABLE ranged_mid_rest PARTITION OF ranged_mid DEFAULT;
CREATE TABLE ranged_high (at timestamptz, c text, gone int, b int, a int, CHECK (a >= 60));
ALTER TABLE ranged_high DROP COLUMN gone;
ALTER TABLE ranged ATTACH PARTITION ranged_high FOR VALUES FROM (60, MINVALUE) TO (MAXVALUE, MAXVALUE);
CREATE UNLOGGED TABLE ranged_apart PARTITION OF ranged FOR VALUES FROM (50, 7) TO (60, MINVALUE);
ALTER TABLE ranged DETACH PARTITION ranged_apart;
CREATE INDEX ranged_c ON ranged (c);
CREATE INDEX ranged_only ON ONLY ranged (b);
CREATE INDEX ranged_low_b ON ranged_low (b);
ALTER INDEX ranged_only ATTACH PARTITION ranged_low_b;
CREATE INDEX ranged_high_own ON ranged_high (at) WHERE a > 70;
CREATE STATISTICS ranged_stats ON a, b FROM ranged;
ALTER TABLE ranged_low REPLICA IDENTITY FULL;
CREATE TABLE hashed (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), t text) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE listed (b boolean, i int, CHECK (i > 0)) PARTITION BY LIST (b);
CREATE TABLE listed_yes PARTITION OF listed FOR VALUES IN (true);
CREATE TABLE listed_no PARTITION OF listed FOR VALUES IN (false, NULL);
CREATE TABLE to_ranged (a int);

-- views
CREATE TABLE with_key (id int PRIMARY KEY, a int);
CREATE VIEW grouped AS SELECT p.id, p.a, count(*) FROM with_key p GROUP BY p.id;
CREATE VIEW over_grouped AS SELECT id FROM grouped;
CREATE MATERIALIZED VIEW stored_grouped AS SELECT * FROM grouped WITH NO DATA;
CREATE VIEW renamed (x, "Y z") WITH (security_barrier = true, security_invoker = true) AS SELECT a, b FROM base WHERE a > 0
    WITH LOCAL CHECK OPTION;
ALTER VIEW renamed RENAME COLUMN x TO w;
ALTER VIEW renamed ALTER COLUMN w SET DEFAULT 3;
CREATE VIEW whole_row AS SELECT w, (w).d.width, ROW(w.*)::base IS NULL AS none, w.i[1] FROM base w;
CREATE VIEW many_ways AS
    WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 5) SEARCH DEPTH FIRST BY n SET ordered
    SELECT n, sum(n) OVER w, count(*) FILTER (WHERE n > 1) OVER (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES),
           CASE WHEN n > 2 THEN 'big'::name_text ELSE 'small' END AS size
      FROM t WINDOW w AS (PARTITION BY n % 2 ORDER BY n);
CREATE VIEW sampled AS SELECT a, near(0.5) WITHIN GROUP (ORDER BY b) FROM base TABLESAMPLE bernoulli (50) REPEATABLE (7), LATERAL generate_series(1, a) WITH ORDINALITY AS g(n, o)
    GROUP BY GROUPING SETS ((a), ()) HAVING count(*) > 0 LIMIT ALL;
CREATE MATERIALIZED VIEW kept USING heap WITH (fillfactor = 90, autovacuum_enabled = off) AS SELECT a, b FROM base;
CREATE UNIQUE INDEX kept_once ON kept (a, b);
ALTER MATERIALIZED VIEW kept CLUSTER ON kept_once;
ALTER MATERIALIZED VIEW kept ALTER COLUMN a SET STATISTICS 5;
COMMENT ON MATERIALIZED VIEW kept IS 'kept';
COMMENT ON COLUMN kept.a IS 'a of kept';
COMMENT ON COLUMN renamed.w IS 'w';

-- triggers, rules, policies
CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER after_both AFTER INSERT OR UPDATE OF a, b ON points_at FROM base DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION fired('x', '{schema}');
CREATE TRIGGER on_parts BEFORE UPDATE ON ranged FOR EACH ROW EXECUTE FUNCTION fired();
CREATE TRIGGER on_truncate BEFORE TRUNCATE ON base EXECUTE FUNCTION fired();
ALTER TABLE ranged_high ENABLE REPLICA TRIGGER on_parts;
ALTER TABLE base ENABLE ALWAYS TRIGGER on_truncate;
COMMENT ON TRIGGER after_both ON points_at IS 'both';
CREATE RULE two_things AS ON INSERT TO parent_two WHERE NEW.z > 5 DO ALSO (DELETE FROM parent_one WHERE a = NEW.a; UPDATE parent_one SET a = 1 WHERE a = NEW.z);
CREATE RULE instead AS ON UPDATE TO renamed DO INSTEAD UPDATE base SET b = NEW."Y z" WHERE a = OLD.w RETURNING a, b;
ALTER TABLE parent_two ENABLE REPLICA RULE two_things;
COMMENT ON RULE two_things ON parent_two IS 'two';
CREATE POLICY reading ON base FOR SELECT TO {rw} USING (a IN (SELECT a FROM parent_two));
CREATE POLICY writing ON base AS RESTRICTIVE FOR INSERT TO CURRENT_USER WITH CHECK (h IS NOT NULL);
CREATE POLICY deleting ON base FOR DELETE USING (CURRENT_USER <> '{rw}'::name);
ALTER TABLE base ENABLE ROW LEVEL SECURITY;
COMMENT ON POLICY reading ON base IS 'reading';
-- an owner that keeps itself from making triggers, and has made one that waits for the end of transactions
CREATE TABLE closed (id int);
CREATE CONSTRAINT TRIGGER late_and_closed AFTER INSERT ON closed DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION fired();
CREATE FUNCTION own_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late_and_closed_too AFTER INSERT ON to_ranged DEFERRABLE FOR EACH ROW EXECUTE FUNCTION own_trigger();
REVOKE TRIGGER, REFERENCES ON closed FROM {owner};
REVOKE ALL ON FUNCTION own_trigger() FROM PUBLIC, {owner};

-- operators, casts, text search
CREATE FUNCTION sized_lt(sized, sized) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN $1.width < $2.width;
CREATE FUNCTION sized_cmp(sized, sized) RETURNS int LANGUAGE sql IMMUTABLE RETURN 0;
CREATE OPERATOR <<< (LEFTARG = sized, RIGHTARG = sized, FUNCTION = sized_lt, RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE FUNCTION to_size(numeric) RETURNS sized LANGUAGE sql IMMUTABLE RETURN ROW($1, NULL, NULL, NULL)::sized;
CREATE CAST (numeric AS sized) WITH FUNCTION to_size(numeric) AS ASSIGNMENT;
COMMENT ON CAST (numeric AS sized) IS 'as a size';
COMMENT ON OPERATOR <<< (sized, sized) IS 'less';
CREATE TEXT SEARCH DICTIONARY swapped (TEMPLATE = pg_catalog.synonym, SYNONYMS = synonym_sample, CASESENSITIVE = 1);
CREATE TEXT SEARCH CONFIGURATION hunted (COPY = pg_catalog.simple);
ALTER TEXT SEARCH CONFIGURATION hunted ALTER MAPPING FOR word, asciiword WITH swapped, simple;
ALTER TEXT SEARCH CONFIGURATION hunted DROP MAPPING FOR email;
CREATE FUNCTION found(t text) RETURNS tsvector LANGUAGE sql IMMUTABLE RETURN to_tsvector('hunted'::regconfig, t);
RESET ROLE;
CREATE OPERATOR FAMILY {schema}.sizes USING btree;
CREATE OPERATOR CLASS {schema}.by_width DEFAULT FOR TYPE {schema}.sized USING btree FAMILY {schema}.sizes AS
    OPERATOR 1 {schema}.<<<, FUNCTION 1 {schema}.sized_cmp({schema}.sized, {schema}.sized);
ALTER OPERATOR FAMILY {schema}.sizes USING btree OWNER TO {owner};
ALTER OPERATOR CLASS {schema}.by_width USING btree OWNER TO {owner};
COMMENT ON OPERATOR CLASS {schema}.by_width USING btree IS 'by width';
COMMENT ON OPERATOR FAMILY {schema}.sizes USING btree IS 'sizes';
ALTER FUNCTION {schema}.sized_cmp({schema}.sized, {schema}.sized) LEAKPROOF;
CREATE TEXT SEARCH TEMPLATE {schema}.plain (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH PARSER {schema}.parts (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
COMMENT ON TEXT SEARCH TEMPLATE {schema}.plain IS 'plain';
COMMENT ON TEXT SEARCH PARSER {schema}.parts IS 'parts';
SET ROLE {owner};
CREATE FOREIGN TABLE away (id int OPTIONS (column_name 'no') NOT NULL, twice int GENERATED ALWAYS AS (id * 2) STORED,
    CONSTRAINT there CHECK (id > 0)) SERVER nowhere OPTIONS (schema_name 's', table_name 't');
CREATE FOREIGN TABLE ranged_away PARTITION OF ranged FOR VALUES FROM (50, 7) TO (55, 1) SERVER nowhere OPTIONS (table_name 'h');
ALTER FOREIGN TABLE away ALTER COLUMN id SET STATISTICS 7;
ALTER FOREIGN TABLE away ALTER COLUMN id OPTIONS (SET column_name 'it''s');
COMMENT ON FOREIGN TABLE away IS 'away';

-- what has an expression, and waits for the end of the transaction
ALTER TABLE base ADD CONSTRAINT apart_where EXCLUDE USING gist (f WITH &&) WHERE (a > 0) DEFERRABLE;
GRANT TRIGGER ON closed TO {owner};
CREATE CONSTRAINT TRIGGER late_when AFTER INSERT ON closed DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION fired();
REVOKE TRIGGER ON closed FROM {owner};

-- from 16
CREATE TABLE stored_so (a text STORAGE MAIN COMPRESSION pglz, b text STORAGE DEFAULT, who text DEFAULT SYSTEM_USER);
CREATE VIEW json_made AS SELECT json_object('a': a, 'b': b ABSENT ON NULL RETURNING jsonb) AS o, json_arrayagg(a ORDER BY b RETURNING jsonb) AS l,
    min(c) IS JSON OBJECT WITH UNIQUE KEYS AS is_one, any_value(b) AS some FROM base GROUP BY 1;

-- with icu
CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION german (provider = icu, locale = 'de-u-co-phonebk');
CREATE COLLATION numbers_in (provider = icu, locale = 'en-u-kn-true');
CREATE TABLE in_icu (a text COLLATE no_case PRIMARY KEY, b text COLLATE german, c text COLLATE numbers_in CHECK (c < 'z' COLLATE "de-x-icu"));
CREATE INDEX in_icu_b ON in_icu (b COLLATE numbers_in DESC);
CREATE DOMAIN caseless AS text COLLATE no_case CHECK (VALUE <> 'X');
COMMENT ON COLLATION no_case IS 'no case';
INSERT INTO in_icu VALUES ('Abc', 'Äpfel', 'a10'), ('abd', 'Zoo', 'a9');

-- from 17
CREATE COLLATION built_in (provider = builtin, locale = 'C.UTF-8');
CREATE TABLE in_built_in (a text COLLATE built_in CHECK (a < 'z'), b text COLLATE pg_c_utf8);
CREATE TABLE numbered (id int GENERATED BY DEFAULT AS IDENTITY (START 3), p int) PARTITION BY LIST (p);
CREATE TABLE numbered_1 PARTITION OF numbered FOR VALUES IN (1);
ALTER TABLE numbered_1 ALTER COLUMN p SET STATISTICS DEFAULT;
CREATE TABLE apart_parts (p int, r int4range, CONSTRAINT kept_apart EXCLUDE USING gist (p WITH =, r WITH &&)) PARTITION BY LIST (p);
CREATE TABLE apart_parts_1 PARTITION OF apart_parts FOR VALUES IN (1) PARTITION BY HASH (p);
CREATE TABLE apart_parts_1_all PARTITION OF apart_parts_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE apart_parts_2 (r int4range, p int, CONSTRAINT "its Own" EXCLUDE USING gist (p WITH =, r WITH &&) DEFERRABLE);
ALTER TABLE apart_parts ATTACH PARTITION apart_parts_2 FOR VALUES IN (2);
ALTER TABLE apart_parts_2 RENAME CONSTRAINT apart_parts_2_p_r_excl TO "in Two";
ALTER TABLE apart_parts_1 RENAME CONSTRAINT apart_parts_1_p_r_excl TO first;
COMMENT ON CONSTRAINT "in Two" ON apart_parts_2 IS 'in two';
COMMENT ON CONSTRAINT "its Own" ON apart_parts_2 IS 'its own';
INSERT INTO apart_parts VALUES (1, '[1,5)'), (2, '[3,5)');
CREATE VIEW json_read AS SELECT jt.*, json_value(x.d, '$.a' RETURNING int DEFAULT 7 ON EMPTY) AS v, json_exists(x.d, '$.b') AS e
    FROM (SELECT '{"a": [{"b": 1}]}'::jsonb AS d) x,
         json_table(x.d, '$.a[*]' AS rows COLUMNS (n FOR ORDINALITY, b int PATH '$.b' DEFAULT 0 ON ERROR, NESTED PATH '$.c[*]' COLUMNS (c text PATH '$'))) jt;
CREATE FUNCTION merged_in(n int) RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC
    MERGE INTO parent_two t USING (SELECT n AS n) s ON t.a = s.n WHEN MATCHED THEN UPDATE SET z = 1
        WHEN NOT MATCHED BY SOURCE THEN DO NOTHING WHEN NOT MATCHED THEN INSERT VALUES (s.n) RETURNING t.a; END;
GRANT MAINTAIN ON base TO {rw} WITH GRANT OPTION;
INSERT INTO in_built_in VALUES ('b', 'ß');
INSERT INTO numbered (p) VALUES (1), (1);

-- from 18
CREATE TABLE virtual (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL, c text GENERATED ALWAYS AS (CASE WHEN a > 1 THEN 'x' END) NOT NULL,
    d int GENERATED ALWAYS AS (a + 1) STORED, CONSTRAINT of_virtual CHECK (b > 0));
CREATE TABLE virtual_parts (a int, b int GENERATED ALWAYS AS (a + 1) VIRTUAL) PARTITION BY RANGE (a);
CREATE TABLE virtual_parts_1 PARTITION OF virtual_parts (b GENERATED ALWAYS AS (a + 2)) FOR VALUES FROM (0) TO (9);
CREATE TABLE rooms (id int, during tstzrange, kinds int4multirange, CONSTRAINT rooms_once PRIMARY KEY (id, during WITHOUT OVERLAPS),
    CONSTRAINT kinds_once UNIQUE (id, kinds WITHOUT OVERLAPS) DEFERRABLE);
CREATE TABLE bookings (room int, during tstzrange, FOREIGN KEY (room, PERIOD during) REFERENCES rooms (id, PERIOD during));
CREATE TABLE rooms_parts (p int, r daterange, PRIMARY KEY (p, r WITHOUT OVERLAPS)) PARTITION BY LIST (p);
CREATE TABLE rooms_parts_1 PARTITION OF rooms_parts FOR VALUES IN (1);
CREATE TABLE named_nulls (a int CONSTRAINT a_there NOT NULL, b int, c int, d int, CONSTRAINT b_there NOT NULL b NO INHERIT);
INSERT INTO named_nulls (a, b) VALUES (1, 2);
ALTER TABLE named_nulls ADD CONSTRAINT c_there NOT NULL c NOT VALID;
COMMENT ON CONSTRAINT a_there ON named_nulls IS 'there';
COMMENT ON CONSTRAINT c_there ON named_nulls IS 'some time';
CREATE TABLE heir_of_nulls (e int) INHERITS (named_nulls);
CREATE TABLE heir_of_named (a int CONSTRAINT its_own NOT NULL) INHERITS (named_nulls);
CREATE TABLE unenforced (a int, b int CHECK (b > 0) NOT ENFORCED, CONSTRAINT sum CHECK (a + b > 0) NOT ENFORCED,
    CONSTRAINT to_base FOREIGN KEY (a) REFERENCES with_key NOT ENFORCED);
CREATE COLLATION unicode_fast (provider = builtin, locale = 'PG_UNICODE_FAST');
CREATE FUNCTION was_and_is(n int) RETURNS TABLE (was int, now int) LANGUAGE sql BEGIN ATOMIC
    UPDATE parent_two SET z = n RETURNING old.z, new.z; END;
CREATE TABLE times (id uuid DEFAULT uuidv7(), at timestamp DEFAULT LOCALTIMESTAMP);
CREATE TABLE parts_keyed (a int, b int) PARTITION BY LIST (a);
CREATE TABLE parts_keyed_1 PARTITION OF parts_keyed FOR VALUES IN (1);
INSERT INTO parts_keyed VALUES (1, 10);
ALTER TABLE parts_keyed ADD CONSTRAINT not_yet FOREIGN KEY (b) REFERENCES with_key NOT VALID;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON LARGE OBJECTS TO {ro};
INSERT INTO virtual (a) VALUES (2), (5);
INSERT INTO virtual_parts VALUES (3);
INSERT INTO rooms VALUES (1, '[2025-01-01,2025-02-01)', '{[1,3)}'), (1, '[2025-02-01,2025-03-01)', '{[5,7)}');
INSERT INTO bookings VALUES (1, '[2025-01-15,2025-02-15)');
INSERT INTO unenforced VALUES (-5, -5);

-- from 0
INSERT INTO base (a, b, c, d, e, f, g, h, j) VALUES
    (1, 2, 'text', (1.5, '{a,b}', 'between', 'm'), (2, NULL, 'end', NULL), '[a,c)', '{[a,b),[x,y)}', 'n', repeat('j', 3000)),
    (-1, 3, NULL, NULL, NULL, '[m,n)', '{}', 'm', NULL);
INSERT INTO points_at VALUES (10, 1, 2), (NULL, NULL, NULL);
INSERT INTO of_type VALUES (3, '{x}', 'start');
INSERT INTO heir VALUES (5, 'x', 6, 7);
INSERT INTO adopted VALUES (1, 'z', 2);
INSERT INTO rows_of SELECT w, ARRAY[ROW(1, 2)::parent_two] FROM base w WHERE a = 1;
INSERT INTO ranged VALUES (1, 1, DEFAULT, NULL), (20, 1, 'X', NULL), (20, 2, 'q', NULL), (99, 9, 'z', '2025-01-01');
INSERT INTO ranged_apart VALUES (55, 1);
INSERT INTO listed VALUES (true, 1), (NULL, 2);
INSERT INTO fast (t) VALUES ('fast');
INSERT INTO closed VALUES (1);
INSERT INTO with_key VALUES (10, 1);
REFRESH MATERIALIZED VIEW kept;
GRANT SELECT ON base, kept, renamed TO {rw} WITH GRANT OPTION;
GRANT UPDATE (a, b), REFERENCES (id) ON base TO {ro} WITH GRANT OPTION;
GRANT SELECT ON TABLE listed TO PUBLIC;
GRANT ALL ON SEQUENCE counted TO {login};
GRANT USAGE ON SCHEMA {schema} TO {rw} WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT ON SEQUENCES TO {rw} WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE TRIGGER ON TABLES FROM {owner};
RESET ROLE;
ALTER DEFAULT PRIVILEGES FOR ROLE {login} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {owner};
-- rights that somebody else gave on
SET ROLE {rw};
GRANT SELECT ON {schema}.base TO {ro};
GRANT USAGE ON SCHEMA {schema} TO {login};
SET ROLE {ro};
GRANT UPDATE (a) ON {schema}.base TO {login};
RESET ROLE;
DO $$
DECLARE blob oid;
BEGIN
    SET LOCAL ROLE {owner};
    blob := lo_from_bytea(0, '\x00ff10'::bytea);
    EXECUTE format('GRANT SELECT, UPDATE ON LARGE OBJECT %s TO {rw} WITH GRANT OPTION', blob);
    EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', blob, 'with bytes');
END $$;
RESET search_path;
