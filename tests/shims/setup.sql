-- A tenant with one of everything that has a name, a value or a comment: all of them are called {mark}….
-- Much is granted to PUBLIC, so that PostgreSQL itself hides as little as it can.
CREATE ROLE {mark}_app LOGIN PASSWORD 'secret';
CREATE ROLE {mark}_group;
GRANT {mark}_group TO {mark}_app;
COMMENT ON ROLE {mark}_app IS '{mark} comment on a role';
ALTER ROLE {mark}_app SET application_name = '{mark} of a role';
ALTER ROLE {mark}_app IN DATABASE {database} SET application_name = '{mark} of a role here';
CREATE SCHEMA {mark} AUTHORIZATION {mark}_app;
COMMENT ON SCHEMA {mark} IS '{mark} comment on a schema';
GRANT USAGE ON SCHEMA {mark} TO PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO {mark}_app;
GRANT SELECT ON public.{shared} TO {mark}_app;
GRANT SELECT (code) ON public.{shared} TO {mark}_app;
CREATE DATABASE {mark}_db;
COMMENT ON DATABASE {mark}_db IS '{mark} comment on a database';
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE {mark}_space LOCATION '';
GRANT SET ON PARAMETER log_duration TO {mark}_app;
CREATE FOREIGN DATA WRAPPER {mark}_wrapper;
CREATE SERVER {mark}_server FOREIGN DATA WRAPPER {mark}_wrapper OPTIONS (host '{mark} host');
CREATE USER MAPPING FOR {mark}_app SERVER {mark}_server OPTIONS (user '{mark} user');
GRANT USAGE ON FOREIGN SERVER {mark}_server TO {mark}_app;
ALTER DEFAULT PRIVILEGES FOR ROLE {mark}_app GRANT SELECT ON TABLES TO {mark}_group;
ALTER DEFAULT PRIVILEGES FOR ROLE {mark}_app IN SCHEMA {mark} GRANT SELECT ON TABLES TO PUBLIC;
SELECT lo_from_bytea(0, 'x') AS {mark}_large \gset
ALTER LARGE OBJECT :{mark}_large OWNER TO {mark}_app;
COMMENT ON LARGE OBJECT :{mark}_large IS '{mark} comment on a large object';
SELECT pg_replication_origin_create('{mark}_origin') AS ignored \gset
CREATE SUBSCRIPTION {mark}_subscription CONNECTION 'dbname={mark}' PUBLICATION {mark}_p
    WITH (connect = false, slot_name = NONE, enabled = false);

SET ROLE {mark}_app;
SET search_path = {mark};
CREATE TYPE {mark}_mood AS ENUM ('{mark}_sad', '{mark}_happy');
CREATE DOMAIN {mark}_domain AS text DEFAULT '{mark} default' CHECK (value <> '{mark} forbidden');
CREATE TYPE {mark}_pair AS ({mark}_first int, {mark}_second text);
CREATE TYPE {mark}_range AS RANGE (subtype = int4, multirange_type_name = {mark}_ranges);
CREATE COLLATION {mark}_collation FROM "C";
CREATE CONVERSION {mark}_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE SEQUENCE {mark}_sequence MAXVALUE 4711;
CREATE TABLE {mark}_things (
    {mark}_id int GENERATED ALWAYS AS IDENTITY CONSTRAINT {mark}_key PRIMARY KEY,
    {mark}_word text DEFAULT '{mark} default' CONSTRAINT {mark}_check CHECK ({mark}_word <> '{mark} forbidden'),
    {mark}_feeling {mark}_mood, {mark}_other {mark}_domain, {mark}_both {mark}_pair,
    {mark}_twice text GENERATED ALWAYS AS ({mark}_word || '{mark} twice') STORED);
ALTER TABLE {mark}_things ADD COLUMN {mark}_late text DEFAULT '{mark} missing';
ALTER TABLE {mark}_things ALTER COLUMN {mark}_word SET STATISTICS 10;
INSERT INTO {mark}_things ({mark}_word) SELECT '{mark} value ' || n % 3 FROM generate_series(1, 50) n;
CREATE TABLE {mark}_parts ({mark}_id int REFERENCES {mark}_things, {mark}_on text)
    PARTITION BY LIST ({mark}_on);
CREATE TABLE {mark}_part PARTITION OF {mark}_parts FOR VALUES IN ('{mark} bound');
CREATE TABLE {mark}_child () INHERITS ({mark}_things);
CREATE INDEX {mark}_index ON {mark}_things (({mark}_word || '{mark} expression')) WHERE {mark}_word <> '{mark} where';
CREATE STATISTICS {mark}_statistics ON ({mark}_word || '{mark} statistics'), {mark}_id FROM {mark}_things;
CREATE VIEW {mark}_view AS SELECT {mark}_id, '{mark} in a view' AS {mark}_text FROM {mark}_things;
CREATE MATERIALIZED VIEW {mark}_stored AS SELECT '{mark} in a view' AS {mark}_text;
CREATE FUNCTION {mark}_function({mark}_argument text DEFAULT '{mark} default') RETURNS text LANGUAGE sql
    SET application_name = '{mark} in a function' AS $$ SELECT '{mark} in a body' $$;
CREATE FUNCTION {mark}_atomic({mark}_argument text) RETURNS text LANGUAGE sql
BEGIN ATOMIC SELECT {mark}_argument || '{mark} in a body'; END;
CREATE PROCEDURE {mark}_procedure() LANGUAGE plpgsql AS $$ BEGIN PERFORM '{mark} in a body'; END $$;
CREATE FUNCTION {mark}_trigger_function() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER {mark}_trigger BEFORE INSERT ON {mark}_things FOR EACH ROW
    WHEN (NEW.{mark}_word = '{mark} when') EXECUTE FUNCTION {mark}_trigger_function('{mark} argument');
CREATE AGGREGATE {mark}_aggregate (text) (SFUNC = textcat, STYPE = text, INITCOND = '{mark} initial');
CREATE OPERATOR === (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int);
COMMENT ON OPERATOR === (int, int) IS '{mark} comment on an operator';
CREATE RULE {mark}_rule AS ON DELETE TO {mark}_view DO INSTEAD NOTIFY {mark}_channel;
ALTER TABLE {mark}_things ENABLE ROW LEVEL SECURITY;
CREATE POLICY {mark}_policy ON {mark}_things TO {mark}_app USING ({mark}_word <> '{mark} policy');
CREATE TEXT SEARCH CONFIGURATION {mark}_config (COPY = english);
CREATE TEXT SEARCH DICTIONARY {mark}_dictionary (TEMPLATE = simple, STOPWORDS = english);
ALTER TABLE {mark}_things SET (autovacuum_enabled = off, toast.autovacuum_enabled = off);
GRANT ALL ON ALL TABLES IN SCHEMA {mark} TO PUBLIC;
GRANT SELECT ({mark}_id) ON {mark}_things TO {mark}_group;
GRANT ALL ON ALL SEQUENCES IN SCHEMA {mark} TO PUBLIC;
COMMENT ON TABLE {mark}_things IS '{mark} comment on a table';
COMMENT ON COLUMN {mark}_things.{mark}_word IS '{mark} comment on a column';
COMMENT ON INDEX {mark}_index IS '{mark} comment on an index';
COMMENT ON INDEX {mark}_key IS '{mark} comment on a key';
COMMENT ON SEQUENCE {mark}_sequence IS '{mark} comment on a sequence';
COMMENT ON VIEW {mark}_view IS '{mark} comment on a view';
COMMENT ON CONSTRAINT {mark}_check ON {mark}_things IS '{mark} comment on a constraint';
COMMENT ON TRIGGER {mark}_trigger ON {mark}_things IS '{mark} comment on a trigger';
COMMENT ON RULE {mark}_rule ON {mark}_view IS '{mark} comment on a rule';
COMMENT ON POLICY {mark}_policy ON {mark}_things IS '{mark} comment on a policy';
COMMENT ON FUNCTION {mark}_function IS '{mark} comment on a function';
COMMENT ON AGGREGATE {mark}_aggregate (text) IS '{mark} comment on an aggregate';
COMMENT ON TYPE {mark}_mood IS '{mark} comment on a type';
COMMENT ON DOMAIN {mark}_domain IS '{mark} comment on a domain';
COMMENT ON COLLATION {mark}_collation IS '{mark} comment on a collation';
COMMENT ON CONVERSION {mark}_conversion IS '{mark} comment on a conversion';
COMMENT ON STATISTICS {mark}_statistics IS '{mark} comment on statistics';
COMMENT ON TEXT SEARCH CONFIGURATION {mark}_config IS '{mark} comment on a configuration';
COMMENT ON TEXT SEARCH DICTIONARY {mark}_dictionary IS '{mark} comment on a dictionary';
RESET ROLE;

SET search_path = {mark};
CREATE OPERATOR FAMILY {mark}_family USING btree;
CREATE OPERATOR CLASS {mark}_class FOR TYPE int USING btree FAMILY {mark}_family AS OPERATOR 1 <, FUNCTION 1 btint4cmp(int, int);
CREATE TEXT SEARCH PARSER {mark}_parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE {mark}_template (LEXIZE = dsimple_lexize);
CREATE FUNCTION {mark}_pair_of(text) RETURNS {mark}_pair LANGUAGE sql AS $$ SELECT ROW(1, $1)::{mark}.{mark}_pair $$;
CREATE CAST (text AS {mark}_pair) WITH FUNCTION {mark}_pair_of(text);
COMMENT ON CAST (text AS {mark}_pair) IS '{mark} comment on a cast';
CREATE FOREIGN TABLE {mark}_foreign ({mark}_id int OPTIONS (x '{mark} column')) SERVER {mark}_server OPTIONS (x '{mark} option');
CREATE PUBLICATION {mark}_publication FOR TABLE {mark}_things WHERE ({mark}_id > 4711);
CREATE PUBLICATION {mark}_publication_of_all FOR TABLES IN SCHEMA {mark};
CREATE FUNCTION {mark}_event_function() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER {mark}_event ON ddl_command_end EXECUTE FUNCTION {mark}_event_function();
ALTER EVENT TRIGGER {mark}_event DISABLE;
ANALYZE {mark}_things;
BEGIN;
SET LOCAL ROLE {mark}_app;
INSERT INTO {mark}_parts VALUES (NULL, '{mark} bound');
PREPARE TRANSACTION '{mark} prepared';
RESET search_path;
