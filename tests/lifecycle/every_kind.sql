-- A schema with every kind of object that one can have.  {schema}, {owner}, {rw}, {ro}, {login} are filled in.
-- Run by a superuser, who is the owner but where only a superuser may do it.
SET ROLE {owner};
SET search_path = {schema}, shared;

CREATE TYPE mood AS ENUM ('good', 'bad', 'it''s "so-so"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE spans AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE COLLATION plain FROM "C";
CREATE SEQUENCE numbers INCREMENT 3 START 7;
COMMENT ON TYPE mood IS 'how things are in {schema}';

CREATE FUNCTION shout(word text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper(word) $$;
CREATE FUNCTION add_up(a int, b int DEFAULT 2) RETURNS int LANGUAGE sql IMMUTABLE STRICT RETURN a + b;
CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');

CREATE TABLE orders (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item text NOT NULL COLLATE plain,
    quantity positive NOT NULL DEFAULT 1,
    number int DEFAULT nextval('numbers'),
    how mood DEFAULT 'good',
    detail pair,
    doubled int GENERATED ALWAYS AS (quantity * 2) STORED,
    period int4range,
    EXCLUDE USING gist (period WITH &&),
    CHECK (item <> '')
);
CREATE TABLE "Odd ""names" ("the column" int PRIMARY KEY, "select" text, serial_id serial);
CREATE TABLE lines (
    id bigserial PRIMARY KEY,
    order_id int NOT NULL REFERENCES orders ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    note text,
    t tsvector -- as an alias in our statements
) WITH (fillfactor = 80);
ALTER TABLE lines ALTER COLUMN note SET STORAGE EXTERNAL;
ALTER TABLE lines ALTER COLUMN note SET STATISTICS 50;
CREATE INDEX lines_note ON lines (lower(note) text_pattern_ops) WHERE note IS NOT NULL;
CREATE UNIQUE INDEX lines_two ON lines (order_id, note) INCLUDE (id);
ALTER TABLE lines REPLICA IDENTITY USING INDEX lines_pkey;
CLUSTER lines USING lines_pkey;
CREATE STATISTICS lines_together (dependencies) ON order_id, note FROM lines;
CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_other PARTITION OF events DEFAULT;
CREATE INDEX events_at ON events (at);
CREATE TABLE parent (id int);
CREATE TABLE child (more text) INHERITS (parent);
CREATE UNLOGGED TABLE scratch (id int);
CREATE TABLE typed OF pair;
CREATE TABLE {schema}.{schema} ({schema} int, other int);
CREATE VIEW same_name AS SELECT {schema}.{schema}, {schema}.other FROM {schema}.{schema} WHERE {schema}.{schema} > 0;

CREATE VIEW big_orders WITH (security_barrier) AS
    SELECT o.id, o.item, shout(o.item) AS loud FROM orders o WHERE o.quantity > 2 WITH CHECK OPTION;
CREATE RECURSIVE VIEW counting (n) AS SELECT 1 UNION ALL SELECT n + 1 FROM counting WHERE n < 3;
CREATE MATERIALIZED VIEW per_item AS SELECT item, sum(quantity) AS n FROM orders GROUP BY item;
CREATE UNIQUE INDEX per_item_item ON per_item (item);
COMMENT ON VIEW big_orders IS 'orders that matter; it''s a view';
COMMENT ON COLUMN orders.item IS 'what was ordered';

CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM {schema}.orders o WHERE o.id = NEW.order_id AND o.quantity > 100) THEN
        NEW.note := coalesce(NEW.note, {schema}.shout('many'));
    END IF;
    RETURN NEW;
END
$$;
CREATE FUNCTION listed(how mood, VARIADIC ids int[]) RETURNS SETOF orders LANGUAGE sql STABLE
    SET search_path = {schema}, pg_temp
    AS $$ SELECT * FROM {schema}.orders WHERE orders.how = $1 OR id = ANY ($2) $$;
CREATE FUNCTION atomic(n int) RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = {schema}
    BEGIN ATOMIC SELECT count(*) FROM orders WHERE quantity > n; END;
CREATE PROCEDURE tidy() LANGUAGE plpgsql AS $$
DECLARE row {schema}.lines%ROWTYPE;
BEGIN
    DELETE FROM {schema}.lines WHERE note = 'old';
    FOR row IN SELECT * FROM {schema}.lines LOOP
        PERFORM {schema}.shout(row.note);
    END LOOP;
END
$$;
COMMENT ON FUNCTION shout(text) IS 'louder';
CREATE TRIGGER lines_stamp BEFORE INSERT OR UPDATE ON lines FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE CONSTRAINT TRIGGER lines_late AFTER INSERT ON lines DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION stamp();
ALTER TABLE lines DISABLE TRIGGER lines_late;
CREATE RULE no_scratch AS ON DELETE TO scratch DO INSTEAD NOTHING;
CREATE POLICY own ON orders TO {rw} USING (quantity > 0) WITH CHECK (item <> '{schema}');
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
COMMENT ON POLICY own ON orders IS 'whose';

CREATE FUNCTION same(pair, pair) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN ($1).a = ($2).a;
CREATE OPERATOR === (LEFTARG = pair, RIGHTARG = pair, FUNCTION = same, COMMUTATOR = ===);
CREATE FUNCTION mood_of(int) RETURNS mood LANGUAGE sql IMMUTABLE RETURN CASE WHEN $1 > 0 THEN 'good' ELSE 'bad' END::mood;
CREATE CAST (int AS mood) WITH FUNCTION mood_of(int);
CREATE CONVERSION latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;

CREATE TEXT SEARCH DICTIONARY plain_words (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH plain_words;
CREATE INDEX orders_words ON orders USING gin (to_tsvector('words', item));

RESET ROLE;
CREATE OPERATOR CLASS {schema}.backwards FOR TYPE int USING btree AS
    OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 shared.int_backwards(int, int);
ALTER OPERATOR CLASS {schema}.backwards USING btree OWNER TO {owner};
ALTER OPERATOR FAMILY {schema}.backwards USING btree OWNER TO {owner};
CREATE FOREIGN TABLE {schema}.far (id int, what text OPTIONS (column_name 'that')) SERVER nowhere OPTIONS (table_name 'x');
ALTER FOREIGN TABLE {schema}.far OWNER TO {owner};
SET ROLE {owner};
CREATE INDEX lines_backwards ON lines (order_id backwards);

INSERT INTO orders (item, quantity, how, detail, period) VALUES
    ('anvil', 1, 'good', (1, E'a\tb\\c'), '[1,5)'), ('rocket', 30, 'bad', NULL, '[5,9)'), (E'quo''ted\nline', 7, NULL, (2, '{schema}.x'), NULL);
INSERT INTO lines (order_id, note) SELECT 1 + n % 3, 'line ' || n FROM generate_series(1, 100) n;
INSERT INTO "Odd ""names" ("the column", "select") VALUES (1, '\N'), (2, NULL), (3, '\.');
INSERT INTO events VALUES ('2025-05-05', 'spring'), ('2031-01-01', 'later');
INSERT INTO child VALUES (1, 'x');
INSERT INTO typed VALUES (1, 'y');
INSERT INTO {schema}.{schema} VALUES (1, 2);
REFRESH MATERIALIZED VIEW per_item;
SELECT nextval('numbers'), nextval('numbers');
ANALYZE lines;

GRANT SELECT ON orders, lines TO {ro};
GRANT SELECT, INSERT, UPDATE, DELETE ON orders, lines TO {rw};
GRANT SELECT (item), UPDATE (quantity) ON orders TO {login};
GRANT USAGE ON SEQUENCE numbers TO {rw};
REVOKE EXECUTE ON FUNCTION shout(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shout(text) TO {rw} WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {ro};
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
SELECT lo_from_bytea(0, 'a large object of {schema}'::bytea) AS blob;
RESET ROLE;
RESET search_path;
