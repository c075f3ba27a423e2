"""What of a dump runs no code: a list of what is harmless, and all else is not."""

from __future__ import annotations

import pytest

from tenant_proxy.lifecycle.harmless import is_plain, late_last, runs_code

HARMLESS = """
ALTER TABLE s.t OWNER TO o
ALTER FUNCTION s.f(s.pair) OWNER TO o
ALTER TABLE s.t ENABLE ROW LEVEL SECURITY
ALTER TABLE ONLY s.t ADD CONSTRAINT k PRIMARY KEY (id)
ALTER TABLE ONLY s.t ADD CONSTRAINT x EXCLUDE USING gist (r WITH &&) DEFERRABLE INITIALLY DEFERRED
ALTER SEQUENCE s.q OWNED BY s.t.id
COMMENT ON TABLE s.t IS '(3,x)'
CREATE SCHEMA s
CREATE TYPE s.pair AS (a s.checked, b text)
CREATE TYPE s.mood AS ENUM ('good')
CREATE FUNCTION s.f(p s.pair) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'
CREATE FUNCTION s.f(p text DEFAULT 'x') RETURNS int LANGUAGE c AS '$libdir/x'
CREATE INDEX i ON s.t USING btree (id)
CREATE STATISTICS s.x ON a, b FROM s.t
CREATE FOREIGN TABLE s.far (id int NOT NULL) SERVER x
GRANT SELECT ON TABLE s.t TO r
SELECT pg_catalog.setval('s.q', 7, true)
SELECT pg_catalog.lo_put(7, 0, '\\x00')
""".strip().splitlines()

NOT = """
ALTER TABLE ONLY s.t ADD CONSTRAINT "x OWNER TO o" CHECK (s.f(1) = 1)
ALTER TABLE s."t OWNER TO o" ADD COLUMN d s.checked DEFAULT '1'
ALTER TABLE ONLY s.t ADD CONSTRAINT k FOREIGN KEY (r) REFERENCES s.u(id)
ALTER TABLE ONLY s.t ADD CONSTRAINT x EXCLUDE USING btree (s.f(id) WITH =)
ALTER TABLE ONLY s.t ADD CONSTRAINT x EXCLUDE USING btree (id WITH =) WHERE ((p = '(3,x)'))
ALTER TABLE ONLY s.t ATTACH PARTITION s.p FOR VALUES FROM ('1') TO ('2')
ALTER INDEX s.i ATTACH PARTITION s.j
ALTER TABLE ONLY s.v ALTER COLUMN p SET DEFAULT '(3,x)'
CREATE TABLE s.t (id int)
CREATE DOMAIN s.checked AS int CHECK (s.f(VALUE))
CREATE AGGREGATE s.a(int) (sfunc = s.f, stype = s.checked, initcond = '1')
CREATE VIEW s.v AS SELECT 1
CREATE MATERIALIZED VIEW s.v AS SELECT 1 WITH NO DATA
CREATE FUNCTION s.f(p s.pair DEFAULT '(3,x)') RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'
CREATE FUNCTION s."x LANGUAGE c"(p s.pair DEFAULT '(3,x)') RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE FUNCTION s.f() RETURNS s.pair LANGUAGE sql BEGIN ATOMIC SELECT '(3,x)'::s.pair; END
CREATE INDEX i ON s.t (id) WHERE p = '(3,x)'
CREATE INDEX i ON s.t ((p = '(3,x)'))
CREATE POLICY y ON s.t USING (true)
CREATE RULE r AS ON DELETE TO s.t DO INSTEAD NOTHING
ALTER TABLE ONLY s.t REPLICA IDENTITY USING INDEX i
ALTER TABLE s.t DISABLE TRIGGER w
CREATE TRIGGER w AFTER UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.fire()
CREATE TRIGGER w AFTER UPDATE ON s.t FOR EACH ROW WHEN (NEW.p = '(3,x)') EXECUTE FUNCTION s.fire()
CREATE STATISTICS s.x ON (p = '(3,x)'), id FROM s.t
CREATE FOREIGN TABLE s.far (id s.checked DEFAULT '1') SERVER x
CREATE SCHEMA s CREATE VIEW v AS SELECT 1
SELECT pg_catalog.setval('s.q', s.f(7), true)
SELECT pg_catalog.setval('s.q', 7, true) FROM s.t
SELECT pg_catalog.query_to_xml('SELECT 1', true, true, '')
DO 'BEGIN END'
ALTER ROLE o SUPERUSER
GRANT pg_execute_server_program TO o
CREATE ROLE o SUPERUSER
COMMENT ON TABLE s.t IS 'x'; CREATE TABLE s.u (id int)
ALTER TABLE s.t ADD SOMETHING THAT IS NEWER THAN THE PARSER
""".strip().splitlines()


PLAIN = """
CREATE TABLE s.t ()
CREATE TABLE s.t (id bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME s.q START WITH 1) NOT NULL)
CREATE TABLE s.t (id int DEFAULT nextval('s.q'::regclass), at timestamp(3) with time zone DEFAULT now())
CREATE TABLE s.t (a numeric(10,2)[] DEFAULT '{}'::numeric[], b text COLLATE pg_catalog."C" DEFAULT 'x'::text)
CREATE TABLE s.t (a text, CONSTRAINT c CHECK (((a = ANY (ARRAY['x'::text])) AND (length(a) > 0))))
CREATE TABLE s.t (a text, CONSTRAINT k PRIMARY KEY (a), CONSTRAINT f FOREIGN KEY (a) REFERENCES s.u(a))
CREATE TABLE s.t (a interval DEFAULT '01:00:00'::interval, b date DEFAULT CURRENT_DATE) WITH (fillfactor='70')
ALTER TABLE ONLY s.t ALTER COLUMN id SET DEFAULT nextval('s.q'::regclass)
""".strip().splitlines()

NOT_PLAIN = """
CREATE TABLE s.t (a s.checked)
CREATE TABLE s.t (a public.citext)
CREATE TABLE s.t (a int DEFAULT s.f())
CREATE TABLE s.t (a text DEFAULT ('(3,x)'::s.pair)::text)
CREATE TABLE s.t (a text DEFAULT CAST('1' AS s.checked))
CREATE TABLE s.t (a int, CONSTRAINT c CHECK ((a OPERATOR(s.=) 3)))
CREATE TABLE s.t (a int, CONSTRAINT c CHECK (CASE WHEN (a = 1) THEN s.f(a) ELSE true END))
CREATE TABLE s.t (a int, CONSTRAINT c CHECK ((a IN (SELECT 1))))
CREATE TABLE s.t (a int, b int GENERATED ALWAYS AS (a * 2) STORED)
CREATE TABLE s.t (a text COLLATE s.c)
CREATE TABLE s.t (a int, CONSTRAINT x EXCLUDE USING btree (a WITH =))
CREATE TABLE s.t (a int) PARTITION BY RANGE (a)
CREATE TABLE s.t PARTITION OF s.u FOR VALUES FROM ('1') TO ('2')
CREATE TABLE s.t (a int) INHERITS (s.u)
CREATE TABLE s.t OF s.pair
CREATE TABLE s.t (LIKE s.u INCLUDING ALL)
CREATE TABLE s.t USING heap AS SELECT 1
INSERT INTO s.t VALUES (1)
ALTER TABLE ONLY s.t ALTER COLUMN id SET DEFAULT s.nextval('s.q'::regclass)
ALTER TABLE ONLY s.t ALTER COLUMN id SET DEFAULT nextval('s.q'::s.checked)
ALTER TABLE ONLY s.t ALTER COLUMN id SET DEFAULT '(3,x)'
ALTER TABLE ONLY s.t ALTER COLUMN id DROP DEFAULT
""".strip().splitlines()


@pytest.mark.parametrize("sql", [*HARMLESS, *PLAIN])
def test_plain(sql):
    assert is_plain(sql)


@pytest.mark.parametrize("sql", [*(one for one in NOT if one != "CREATE TABLE s.t (id int)"), *NOT_PLAIN])
def test_not_plain(sql):
    assert not is_plain(sql)


@pytest.mark.parametrize("sql", HARMLESS)
def test_no_code(sql):
    assert not runs_code(sql)


@pytest.mark.parametrize("sql", NOT)
def test_code(sql):
    assert runs_code(sql)


def test_what_puts_off_comes_last_with_what_is_said_of_it():
    late = [
        "ALTER TABLE ONLY s.t ADD CONSTRAINT x EXCLUDE USING gist (a WITH &&) DEFERRABLE",
        "COMMENT ON CONSTRAINT x ON s.t IS 'x'",
        "CREATE CONSTRAINT TRIGGER w AFTER UPDATE ON s.t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION s.fire()",
        "ALTER TABLE s.t DISABLE TRIGGER w",
    ]
    rest = [
        "ALTER TABLE ONLY s.t ADD CONSTRAINT k PRIMARY KEY (id) DEFERRABLE",
        "COMMENT ON CONSTRAINT k ON s.t IS 'k'",
        "CREATE TRIGGER z AFTER UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.fire()",
    ]
    assert late_last([*late[:2], rest[0], rest[1], *late[2:], rest[2]]) == (rest, late)
