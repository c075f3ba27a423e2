-- Two schemas with the same things in them, and a role that may do everything in both: what keeps it out of
-- beta is the guard alone.  Functions are in PL/pgSQL so that calls are counted.
CREATE ROLE beta_app;
CREATE ROLE acme_app LOGIN PASSWORD 'secret';
DO $$
DECLARE
    s text;
BEGIN
    FOREACH s IN ARRAY ARRAY['acme', 'beta'] LOOP
        EXECUTE format('CREATE SCHEMA %I', s);
        EXECUTE format('SET search_path = %I', s);
        CREATE TYPE mood AS ENUM ('x', 'sad', 'happy');
        CREATE TYPE comp AS (a int, b text);
        CREATE DOMAIN d AS int;
        CREATE COLLATION german FROM "C";
        CREATE TABLE orders (
            id int PRIMARY KEY, total numeric, name text, customer_id int, data jsonb, tags text[],
            created timestamptz DEFAULT now(), secret text, a int, b int, address comp, r regclass);
        CREATE TABLE customers (id int PRIMARY KEY, name text);
        CREATE TABLE t (a int, b int, id int, name text);
        INSERT INTO orders (id, total, name, secret) VALUES (1, 1, 'n', 's');
        CREATE VIEW v AS SELECT * FROM orders;
        CREATE MATERIALIZED VIEW mv AS SELECT * FROM orders;
        CREATE SEQUENCE seq;
        CREATE SEQUENCE orders_id_seq;
        CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
        CREATE FUNCTION f(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
        CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
        CREATE FUNCTION total_of(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
        CREATE PROCEDURE p(int) LANGUAGE plpgsql AS 'BEGIN NULL; END';
        CREATE TABLE part (id int, d date) PARTITION BY RANGE (d);
        EXECUTE format('GRANT ALL ON SCHEMA %I TO acme_app', s);
        EXECUTE format('GRANT ALL ON ALL TABLES IN SCHEMA %I TO acme_app', s);
        EXECUTE format('GRANT ALL ON ALL SEQUENCES IN SCHEMA %I TO acme_app', s);
    END LOOP;
END $$;
