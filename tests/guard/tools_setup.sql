-- A tenant's schema with one of everything that introspection looks at, and a neighbour.
CREATE SCHEMA acme;
CREATE SCHEMA beta;
CREATE ROLE acme_app LOGIN PASSWORD 'secret';
CREATE TABLE beta.orders (id int, secret text);
GRANT USAGE, CREATE ON SCHEMA acme TO acme_app;
ALTER ROLE acme_app SET search_path = acme, public;
SET ROLE acme_app;
SET search_path = acme;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN posint AS int CHECK (value > 0);
CREATE TYPE comp AS (a int, b text);
CREATE COLLATION coll FROM "C";
CREATE SEQUENCE seq;
CREATE TABLE customers (
    id serial PRIMARY KEY, name text NOT NULL COLLATE coll, email varchar(100) UNIQUE, m mood,
    created timestamptz DEFAULT now());
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id int REFERENCES customers ON DELETE CASCADE, total numeric(10,2) CHECK (total > 0),
    data jsonb, tags text[], twice numeric GENERATED ALWAYS AS (total * 2) STORED);
CREATE INDEX ON orders USING gin (data);
CREATE INDEX ON orders (lower(total::text)) WHERE total > 10;
CREATE VIEW v AS SELECT * FROM orders;
CREATE MATERIALIZED VIEW mv AS SELECT 1 AS a;
CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a + 1';
CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION trg();
CREATE AGGREGATE agg (int) (SFUNC = int4pl, STYPE = int);
CREATE OPERATOR === (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int);
CREATE TABLE part (id int, d date) PARTITION BY RANGE (d);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE STATISTICS st ON customer_id, total FROM orders;
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY pol ON customers USING (true);
CREATE RULE r AS ON DELETE TO customers DO ALSO NOTIFY gone;
CREATE TEXT SEARCH CONFIGURATION cfg (COPY = english);
COMMENT ON TABLE orders IS 'what was ordered';
INSERT INTO customers (name) VALUES ('x');
INSERT INTO orders (customer_id, total) VALUES (1, 5);
