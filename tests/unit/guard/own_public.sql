CREATE TABLE public.t (id integer NOT NULL, m public.mood DEFAULT 'x'::public.mood, CHECK (public.f(id) > 0))
CREATE TABLE public.t (a int REFERENCES public.u (id), EXCLUDE USING gist (a WITH OPERATOR(public.=)))
CREATE TABLE public.t PARTITION OF public.p FOR VALUES IN (1) PARTITION BY LIST (a COLLATE public.c public.ops)
CREATE TABLE public.t (LIKE public.u INCLUDING ALL) INHERITS (public.v, public.w)
CREATE TABLE public.t OF public.ty
CREATE TABLE public.t AS SELECT public.f(a) FROM public.u
CREATE UNLOGGED TABLE IF NOT EXISTS public.t (a int GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME public.s))
ALTER TABLE public.t OWNER TO acme_app
ALTER TABLE ONLY public.t ADD CONSTRAINT c PRIMARY KEY (id)
ALTER TABLE ONLY public.t ALTER COLUMN id SET DEFAULT nextval('public.s'::regclass)
ALTER TABLE public.t ALTER COLUMN m TYPE public.mood USING public.f(m)
ALTER TABLE public.t ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME public.t_id_seq START WITH 1)
ALTER TABLE public.t ATTACH PARTITION public.p FOR VALUES FROM (1) TO (2)
ALTER TABLE public.t DETACH PARTITION public.p
ALTER TABLE public.t INHERIT public.u
ALTER TABLE public.t RENAME COLUMN a TO b
ALTER TABLE public.t ENABLE ROW LEVEL SECURITY
ALTER TABLE ONLY public.t REPLICA IDENTITY USING INDEX i
ALTER TABLE public.t CLUSTER ON i
ALTER TABLE public.t SET SCHEMA public
ALTER INDEX public.p ATTACH PARTITION public.i
CREATE SEQUENCE public.s AS integer START WITH 1 OWNED BY public.t.id
ALTER SEQUENCE public.s OWNED BY public.t.id
ALTER SEQUENCE public.s OWNER TO acme_app
CREATE VIEW public.v AS SELECT t.id FROM public.t WHERE (t.m = 'x'::public.mood)
CREATE OR REPLACE VIEW public.v WITH (security_barrier = true) AS SELECT public.t.* FROM public.t
CREATE MATERIALIZED VIEW public.m AS SELECT 1 FROM public.t WITH NO DATA
REFRESH MATERIALIZED VIEW public.m
CREATE UNIQUE INDEX i ON public.t USING btree (a public.ops, public.f(b) COLLATE public.c DESC) WHERE public.g(a)
CREATE INDEX i ON ONLY public.t (lower(a))
CREATE STATISTICS public.s (ndistinct) ON a, b FROM public.t
ALTER STATISTICS public.s SET STATISTICS 100
CREATE TYPE public.mood AS ENUM ('a', 'b')
CREATE TYPE public.pair AS (a public.mood, b text COLLATE public.c)
CREATE TYPE public.r AS RANGE (subtype = public.mood, subtype_diff = public.f, multirange_type_name = public.mr)
ALTER TYPE public.mood ADD VALUE 'c'
ALTER TYPE public.pair ADD ATTRIBUTE c public.mood
ALTER TYPE public.pair RENAME ATTRIBUTE a TO b
ALTER TYPE public.mood OWNER TO acme_app
ALTER TYPE public.mood SET SCHEMA public
CREATE DOMAIN public.d AS public.mood COLLATE public.c DEFAULT public.f() CHECK (public.g(VALUE))
ALTER DOMAIN public.d ADD CONSTRAINT c CHECK (public.g(VALUE))
ALTER DOMAIN public.d RENAME CONSTRAINT c TO e
COMMENT ON CONSTRAINT c ON DOMAIN public.d IS 'x'
CREATE FUNCTION public.f(a public.mood, OUT b public.pair) RETURNS public.pair LANGUAGE sql AS 'SELECT public.g()'
CREATE FUNCTION public.f() RETURNS TABLE (a public.mood) LANGUAGE sql BEGIN ATOMIC SELECT public.g(); END
CREATE FUNCTION public.f(a public.mood DEFAULT public.g()) RETURNS SETOF public.t LANGUAGE sql RETURN public.h(a)
CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.t VALUES (1); END$$
CREATE PROCEDURE public.p(a public.mood) LANGUAGE sql AS $$INSERT INTO public.t VALUES (a)$$
ALTER FUNCTION public.f(a public.mood) OWNER TO acme_app
ALTER FUNCTION public.f(public.mood) SET search_path TO public
ALTER FUNCTION public.f(public.mood, int) STABLE
ALTER FUNCTION public.f() RENAME TO g
ALTER FUNCTION public.f(public.mood) SET SCHEMA public
DROP FUNCTION IF EXISTS public.f(public.mood), public.g(), public.f(public.mood)
DROP FUNCTION public.f
CREATE AGGREGATE public.a(public.mood) (SFUNC = public.f, STYPE = public.mood, SORTOP = OPERATOR(public.<))
CREATE AGGREGATE public.a(ORDER BY public.mood) (SFUNC = public.f, STYPE = internal, FINALFUNC = public.g)
COMMENT ON AGGREGATE public.a(public.mood) IS 'x'
CREATE OPERATOR public.=== (FUNCTION = public.f, LEFTARG = public.mood, COMMUTATOR = OPERATOR(public.===))
CREATE OPERATOR public.@@ (PROCEDURE = public.f, RIGHTARG = public.mood, NEGATOR = OPERATOR(public.!@), JOIN = eqjoinsel)
ALTER OPERATOR public.=== (public.mood, public.mood) SET (RESTRICT = public.f)
ALTER OPERATOR public.=== (public.mood, public.mood) OWNER TO acme_app
DROP OPERATOR public.=== (public.mood, NONE)
COMMENT ON OPERATOR public.=== (public.mood, public.mood) IS 'x'
CREATE CAST (public.mood AS public.d) WITH FUNCTION public.f(public.mood)
CREATE CAST (public.mood AS public.d) WITHOUT FUNCTION
DROP CAST (public.mood AS public.d)
COMMENT ON CAST (public.mood AS public.d) IS 'x'
CREATE COLLATION public.c (provider = icu, locale = 'de')
CREATE COLLATION public.c FROM public.d
CREATE TEXT SEARCH CONFIGURATION public.x (PARSER = pg_catalog."default")
CREATE TEXT SEARCH CONFIGURATION public.x (COPY = public.y)
ALTER TEXT SEARCH CONFIGURATION public.x ADD MAPPING FOR word WITH public.d, simple
CREATE TEXT SEARCH DICTIONARY public.d (TEMPLATE = pg_catalog.simple)
ALTER TEXT SEARCH DICTIONARY public.d (stopwords)
CREATE TRIGGER g BEFORE INSERT OR UPDATE OF a ON public.t FOR EACH ROW WHEN (public.f(new.a)) EXECUTE FUNCTION public.g()
CREATE CONSTRAINT TRIGGER g AFTER INSERT ON public.t FROM public.u FOR EACH ROW EXECUTE PROCEDURE public.g('public.t')
ALTER TABLE public.t DISABLE TRIGGER g
DROP TRIGGER g ON public.t
ALTER TRIGGER g ON public.t RENAME TO h
CREATE RULE r AS ON INSERT TO public.t DO INSTEAD INSERT INTO public.u VALUES (new.a)
CREATE POLICY p ON public.t FOR SELECT TO acme_app USING (public.f(a)) WITH CHECK (public.g(a))
ALTER POLICY p ON public.t USING (public.f(a))
DROP POLICY p ON public.t
DROP RULE r ON public.t
COMMENT ON POLICY p ON public.t IS 'x'
COMMENT ON RULE r ON public.t IS 'x'
COMMENT ON TRIGGER g ON public.t IS 'x'
COMMENT ON CONSTRAINT c ON public.t IS 'x'
COMMENT ON COLUMN public.t.a IS 'public'
COMMENT ON TABLE public.t IS 'x'
COMMENT ON VIEW public.v IS 'x'
COMMENT ON INDEX public.i IS 'x'
COMMENT ON SEQUENCE public.s IS 'x'
COMMENT ON FUNCTION public.f(public.mood) IS 'x'
COMMENT ON TYPE public.mood IS 'x'
COMMENT ON DOMAIN public.d IS 'x'
COMMENT ON SCHEMA public IS 'x'
COMMENT ON STATISTICS public.s IS 'x'
COMMENT ON COLLATION public.c IS 'x'
COMMENT ON TEXT SEARCH CONFIGURATION public.x IS 'x'
GRANT SELECT, INSERT ON TABLE public.t, public.u TO acme_app
GRANT SELECT (a, b), UPDATE (a) ON public.t TO acme_app
GRANT USAGE ON SEQUENCE public.s TO acme_app
GRANT ALL ON FUNCTION public.f(public.mood) TO acme_app
GRANT USAGE ON TYPE public.mood TO acme_app
GRANT ALL ON ALL TABLES IN SCHEMA public TO acme_app
REVOKE ALL ON TABLE public.t FROM acme_app
ALTER DEFAULT PRIVILEGES FOR ROLE acme_app IN SCHEMA public GRANT SELECT ON TABLES TO acme_app
DROP TABLE IF EXISTS public.t, public.u CASCADE
DROP VIEW public.v
DROP INDEX CONCURRENTLY public.i
DROP SEQUENCE public.s
DROP TYPE public.mood, public.pair
DROP DOMAIN public.d
DROP AGGREGATE public.a(public.mood)
DROP COLLATION public.c
DROP STATISTICS public.s
DROP TEXT SEARCH DICTIONARY public.d
TRUNCATE public.t, public.u RESTART IDENTITY
LOCK TABLE public.t IN ACCESS SHARE MODE
VACUUM ANALYZE public.t (a), public.u
ANALYZE public.t
CLUSTER public.t USING i
REINDEX TABLE public.t
REINDEX SCHEMA public
COPY public.t (a, b) FROM STDIN
COPY public.t TO STDOUT
COPY (SELECT * FROM public.t) TO STDOUT
SET CONSTRAINTS public.c, public.d DEFERRED
CALL public.p(1, public.f())
SELECT pg_catalog.setval('public.s', 5, true)
SELECT pg_get_serial_sequence('public.t', 'id')
SELECT count(*) FROM public.t TABLESAMPLE public.m(1)
SELECT t.a FROM public.t JOIN public.u USING (id) WHERE public.t.a = ANY (ARRAY[1]::public.ints)
SELECT DISTINCT ON (a) public.t.a FROM public.t ORDER BY a USING OPERATOR(public.<), b COLLATE public.c
SELECT a OPERATOR(public.+) ALL (SELECT 1 FROM public.t), a OPERATOR(public.*) ANY (ARRAY[1])
SELECT (a, b) OPERATOR(public.=) (1, 2), OPERATOR(public.-) a, a COLLATE public.c
SELECT * FROM public.f() AS x (a public.mood), ROWS FROM (public.g(1), public.h()) y
SELECT XMLSERIALIZE(CONTENT a AS public.d), JSON_VALUE(a, '$' RETURNING public.d), CAST(a AS public.mood[])
SELECT public.mood 'x', 'public.t'::regclass::oid
SELECT public.f(VARIADIC ARRAY[1]), public.a(DISTINCT b ORDER BY c) FILTER (WHERE public.g(b)) OVER (w) FROM public.t
INSERT INTO public.t AS x (a) SELECT 1 FROM public.u ON CONFLICT (a COLLATE public.c public.ops) DO UPDATE SET a = public.f(x.a) RETURNING public.g(a)
UPDATE ONLY public.t SET a = public.f(public.t.a) FROM public.u WHERE public.t.id = public.u.id
DELETE FROM public.t USING public.u WHERE public.t.id = public.u.id RETURNING public.t.*
MERGE INTO public.t USING public.u ON public.t.id = public.u.id WHEN MATCHED THEN UPDATE SET a = public.f(1)
WITH x AS (INSERT INTO public.t VALUES (1) RETURNING *) SELECT * FROM x, public.u
PREPARE p (public.mood) AS SELECT * FROM public.t WHERE m = $1
DECLARE c CURSOR FOR SELECT * FROM public.t
EXPLAIN (ANALYZE, COSTS off) SELECT a OPERATOR(public.+) b FROM public.t ORDER BY a COLLATE public.c
DO $$ DECLARE a public.t.a%TYPE := public.f(); r public.t%ROWTYPE; c CURSOR (x public.mood) FOR TABLE public.t; BEGIN END $$
DO $$ DECLARE s public.mood COLLATE public.c; BEGIN FOR r IN SELECT * FROM public.t LOOP EXECUTE 'TABLE public.t'; END LOOP; END $$
DO $$ BEGIN IF public.f() THEN RAISE NOTICE '%', public.g(); ELSE RETURN; END IF; x.y[public.f()] := public.h(); END $$
ALTER TABLE public.t ADD COLUMN m public.mood[] DEFAULT ARRAY['x'::public.mood]
ALTER TABLE public.t ADD CONSTRAINT c EXCLUDE USING gist (a public.ops WITH OPERATOR(public.&&), b WITH =)
