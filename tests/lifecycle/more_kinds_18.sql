-- What came with PostgreSQL 17 and 18.
SET ROLE {owner};
SET search_path = {schema};
CREATE TABLE shades (id int, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL,
    CONSTRAINT named NOT NULL id NO INHERIT, CONSTRAINT not_held CHECK (id > 0) NOT ENFORCED);
COMMENT ON CONSTRAINT named ON shades IS 'a name';
CREATE TABLE unsure (id int);
INSERT INTO unsure VALUES (NULL);
ALTER TABLE unsure ADD CONSTRAINT some_day NOT NULL id NOT VALID;
CREATE TABLE loosely (id int REFERENCES hen NOT ENFORCED);
GRANT MAINTAIN ON shades TO {rw};
RESET ROLE;
RESET search_path;
