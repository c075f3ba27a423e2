-- What the views and functions are made of.  SQL functions with a RETURN are inlined by the planner, and their
-- names are resolved here, whatever the caller's search_path is.  In PL/pgSQL they are when it runs, and a tenant's
-- types and operators may come first, even by pg_temp: there all are written with their schemas, and CASE, whose
-- comparisons are operators without one, is not used.

-- Compared with tenant_proxy.shims.VERSION by the proxy.
CREATE OR REPLACE FUNCTION tp_catalog.version() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '{version}';

-- The tenant's schema; null where the settings are not given, and then nobody's is shown.
CREATE OR REPLACE FUNCTION tp_catalog.own_schema() RETURNS name LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.current_setting('tenant_proxy.schema', true)::name;

-- Whether the tenant sees it as `public`.
CREATE OR REPLACE FUNCTION tp_catalog.own_is_public() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN COALESCE(pg_catalog.current_setting('tenant_proxy.public', true) = 'on', false);

-- Schemas that the tenant may read beside its own and the system's.
CREATE OR REPLACE FUNCTION tp_catalog.readable() RETURNS name[] LANGUAGE sql STABLE PARALLEL SAFE
RETURN NULLIF(pg_catalog.current_setting('tenant_proxy.readable', true), '')::name[];

-- Schemas whose objects are shown.  What is really `public` has no relations for whom its own goes by that name.
CREATE OR REPLACE FUNCTION tp_catalog.schema_names() RETURNS name[] LANGUAGE sql STABLE PARALLEL SAFE
RETURN ARRAY['pg_catalog', 'information_schema', tp_catalog.own_schema()]::name[]
    || CASE WHEN tp_catalog.own_is_public() THEN pg_catalog.array_remove(tp_catalog.readable(), 'public'::name)
       ELSE tp_catalog.readable() END;

-- A schema's name as the tenant sees it.  What is really `public` gets a name that pg_dump and psql take for the
-- system's.
CREATE OR REPLACE FUNCTION tp_catalog.schema_name(name) RETURNS name LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN NOT tp_catalog.own_is_public() THEN $1
            WHEN $1 = tp_catalog.own_schema() THEN 'public'::name
            WHEN $1 = 'public' THEN 'pg_public'::name
            ELSE $1 END;

-- A definition without the names that the proxy has put into it.  What stands around dynamic SQL goes by marks, so
-- that what was there before comes back exactly.
CREATE OR REPLACE FUNCTION tp_catalog.written(text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.replace(
    pg_catalog.regexp_replace(
        pg_catalog.replace(pg_catalog.replace($1, ' tp_catalog.dynamic(', ''), '/*tp_catalog*/)', ''),
        '\mtp_catalog(_sys|_list)?\.', '', 'g'),
    'tp_information_schema.', 'information_schema.');

-- A definition as the tenant sees it: it names the catalogs, and its schema, as the tenant does.
CREATE OR REPLACE FUNCTION tp_catalog.shown(text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN tp_catalog.own_is_public() THEN
    pg_catalog.regexp_replace(
        tp_catalog.written($1),
        '(?<![\w.$"])(?:'
            || pg_catalog.regexp_replace(pg_catalog.quote_ident(tp_catalog.own_schema()), '([^\w"])', '\\\1', 'g')
            || '|"' || pg_catalog.regexp_replace(
                pg_catalog.replace(tp_catalog.own_schema()::text, '"', '""'), '([^\w"])', '\\\1', 'g')
            || '")\.',
        'public.', 'g')
    WHEN $1 ~ 'tp_' THEN tp_catalog.written($1)
    ELSE $1 END;

-- The OIDs of these schemas, and of the session's own for temporary objects.
CREATE OR REPLACE FUNCTION tp_catalog.schemas() RETURNS oid[] LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
BEGIN
    RETURN pg_catalog.array_append(
        ARRAY(SELECT n.oid FROM pg_catalog.pg_namespace n
              WHERE n.nspname OPERATOR(pg_catalog.=) ANY (tp_catalog.schema_names())),
        pg_catalog.pg_my_temp_schema());
END $$;

-- The OIDs of the schemas whose types, functions and operators are shown: that which is really `public` too, as
-- extensions are installed there, and drivers look for their types.
CREATE OR REPLACE FUNCTION tp_catalog.with_extensions() RETURNS oid[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
BEGIN
    IF NOT tp_catalog.own_is_public() THEN
        RETURN tp_catalog.schemas();
    END IF;
    RETURN pg_catalog.array_cat(
        tp_catalog.schemas(),
        ARRAY(SELECT n.oid FROM pg_catalog.pg_namespace n
              WHERE n.nspname OPERATOR(pg_catalog.=) 'public'::pg_catalog.name
                AND n.nspname OPERATOR(pg_catalog.=) ANY (tp_catalog.readable())));
END $$;

-- The OIDs of the relations in the tenant's, but for those that initdb made, whose dependencies are not kept.
CREATE OR REPLACE FUNCTION tp_catalog.own_relations() RETURNS oid[] LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
BEGIN
    RETURN ARRAY(
        SELECT d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid
          AND d.refobjid OPERATOR(pg_catalog.=) ANY (tp_catalog.schemas())
          AND d.classid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid);
END $$;

-- The OIDs of all relations in them, of their indexes, and, if asked for, of their TOAST tables.
CREATE OR REPLACE FUNCTION tp_catalog.relations(toast boolean) RETURNS oid[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
DECLARE
    found pg_catalog.oid[] := tp_catalog.own_relations();
BEGIN
    RETURN ARRAY(
        SELECT c.oid FROM pg_catalog.pg_class c
        WHERE c.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid
          AND c.relnamespace OPERATOR(pg_catalog.<>) 99::pg_catalog.oid
        UNION ALL SELECT pg_catalog.unnest(found)
        -- composite types: these depend on the schema, and their relation on them
        UNION ALL SELECT y.typrelid FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) d.objid
        WHERE d.refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid
          AND d.refobjid OPERATOR(pg_catalog.=) ANY (tp_catalog.schemas())
          AND d.classid OPERATOR(pg_catalog.=) 1247::pg_catalog.oid
          AND y.typrelid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
        UNION ALL SELECT i.indexrelid FROM pg_catalog.pg_index i
        WHERE i.indrelid OPERATOR(pg_catalog.=) ANY (found)
        UNION ALL SELECT c.reltoastrelid FROM pg_catalog.pg_class c
        WHERE toast AND c.oid OPERATOR(pg_catalog.=) ANY (found)
          AND c.reltoastrelid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid);
END $$;

-- The OIDs of roles: the system's, one's own, their members, and the owners of what is in the schemas.
CREATE OR REPLACE FUNCTION tp_catalog.roles() RETURNS oid[] LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
BEGIN
    RETURN ARRAY(
        SELECT r.oid FROM pg_catalog.pg_roles r
        WHERE r.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid OR pg_catalog.pg_has_role(r.oid, 'MEMBER')
        UNION
        SELECT m.member FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) m.roleid
        WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER
        UNION
        SELECT n.nspowner FROM pg_catalog.pg_namespace n
        WHERE n.oid OPERATOR(pg_catalog.=) ANY (tp_catalog.schemas())
        UNION
        SELECT s.refobjid FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_shdepend s
            ON s.classid OPERATOR(pg_catalog.=) d.classid AND s.objid OPERATOR(pg_catalog.=) d.objid
        WHERE d.refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid
          AND d.refobjid OPERATOR(pg_catalog.=) ANY (tp_catalog.schemas())
          AND s.refclassid OPERATOR(pg_catalog.=) 1260::pg_catalog.oid
          AND s.deptype OPERATOR(pg_catalog.=) 'o'
          AND s.dbid OPERATOR(pg_catalog.=) (
              SELECT b.oid FROM pg_catalog.pg_database b
              WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()));
END $$;

-- What the tenant's lock keys are mixed with: an error, not null, where the setting is not given.
CREATE OR REPLACE FUNCTION tp_catalog.lock_mask() RETURNS bigint LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN pg_catalog.hashtextextended(pg_catalog.current_setting('tenant_proxy.space'), 0);

CREATE OR REPLACE FUNCTION tp_catalog.lock_mask_high() RETURNS integer LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN pg_catalog.hashtext(pg_catalog.current_setting('tenant_proxy.space'));

CREATE OR REPLACE FUNCTION tp_catalog.lock_mask_low() RETURNS integer LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN pg_catalog.hashtext(pg_catalog.current_setting('tenant_proxy.space') || '.');

-- Whether an object is one that is shown.  Objects that initdb made are.
CREATE OR REPLACE FUNCTION tp_catalog.sees(class oid, object oid) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED COST 50 AS $$
DECLARE
    names pg_catalog.name[];
    own pg_catalog.oid;
BEGIN
    IF object OPERATOR(pg_catalog.<) 16384::pg_catalog.oid THEN
        RETURN true;
    END IF;
    names := tp_catalog.schema_names();
    own := pg_catalog.pg_my_temp_schema();
    IF class OPERATOR(pg_catalog.=) 1259::pg_catalog.oid THEN
        RETURN EXISTS (
            SELECT FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n
                ON n.oid OPERATOR(pg_catalog.=) o.relnamespace
            WHERE o.oid OPERATOR(pg_catalog.=) object
              AND (n.nspname OPERATOR(pg_catalog.=) ANY (names) OR n.oid OPERATOR(pg_catalog.=) own));
    ELSIF class OPERATOR(pg_catalog.=) 1255::pg_catalog.oid THEN
        RETURN EXISTS (
            SELECT FROM pg_catalog.pg_proc o JOIN pg_catalog.pg_namespace n
                ON n.oid OPERATOR(pg_catalog.=) o.pronamespace
            WHERE o.oid OPERATOR(pg_catalog.=) object
              AND (n.nspname OPERATOR(pg_catalog.=) ANY (names) OR n.oid OPERATOR(pg_catalog.=) own));
    ELSIF class OPERATOR(pg_catalog.=) 1247::pg_catalog.oid THEN
        RETURN EXISTS (
            SELECT FROM pg_catalog.pg_type o JOIN pg_catalog.pg_namespace n
                ON n.oid OPERATOR(pg_catalog.=) o.typnamespace
            WHERE o.oid OPERATOR(pg_catalog.=) object
              AND (n.nspname OPERATOR(pg_catalog.=) ANY (names) OR n.oid OPERATOR(pg_catalog.=) own));
    ELSIF class OPERATOR(pg_catalog.=) 2606::pg_catalog.oid THEN
        RETURN EXISTS (
            SELECT FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_namespace n
                ON n.oid OPERATOR(pg_catalog.=) o.connamespace
            WHERE o.oid OPERATOR(pg_catalog.=) object
              AND (n.nspname OPERATOR(pg_catalog.=) ANY (names) OR n.oid OPERATOR(pg_catalog.=) own));
    ELSIF class OPERATOR(pg_catalog.=) 2615::pg_catalog.oid THEN
        RETURN object OPERATOR(pg_catalog.=) own OR EXISTS (
            SELECT FROM pg_catalog.pg_namespace n
            WHERE n.oid OPERATOR(pg_catalog.=) object AND n.nspname OPERATOR(pg_catalog.=) ANY (names));
    ELSIF class OPERATOR(pg_catalog.=) 1260::pg_catalog.oid THEN
        RETURN tp_catalog.sees_role(object);
    ELSIF class OPERATOR(pg_catalog.=) 1262::pg_catalog.oid THEN
        RETURN EXISTS (
            SELECT FROM pg_catalog.pg_database d WHERE d.oid OPERATOR(pg_catalog.=) object
               AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());
    ELSIF class OPERATOR(pg_catalog.=) 2613::pg_catalog.oid THEN  -- large objects
        RETURN EXISTS (
            SELECT FROM pg_catalog.pg_largeobject_metadata l
            WHERE l.oid OPERATOR(pg_catalog.=) object AND pg_catalog.pg_has_role(l.lomowner, 'MEMBER'));
    ELSIF class OPERATOR(pg_catalog.=) 3079::pg_catalog.oid THEN  -- extensions
        RETURN true;
    ELSE
        -- the others are known by what they depend on: a schema, or something in one
        RETURN EXISTS (
            SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid OPERATOR(pg_catalog.=) class AND d.objid OPERATOR(pg_catalog.=) object
              AND d.refclassid OPERATOR(pg_catalog.=) ANY (ARRAY[2615, 1259, 1247, 1255]::pg_catalog.oid[])
              AND d.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
              AND tp_catalog.sees(d.refclassid, d.refobjid));
    END IF;
END $$;

-- Whether = means PostgreSQL's where it runs SQL of its own that writes no schema: what finds a view's rule, and
-- the tables of schema_to_xml.  Else a tenant's operator would decide what these find.
CREATE OR REPLACE FUNCTION tp_catalog.equality_is_plain() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN NOT EXISTS (
    SELECT FROM pg_catalog.pg_operator o
    WHERE o.oprname = '=' AND o.oprleft IN (18, 19, 26) AND o.oprnamespace <> 11
      AND pg_catalog.pg_operator_is_visible(o.oid));

-- Whether a role is the tenant's, without looking at whose objects are in its schema.
CREATE OR REPLACE FUNCTION tp_catalog.sees_role(role oid) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 50 AS $$
BEGIN
    RETURN role OPERATOR(pg_catalog.<) 16384::pg_catalog.oid OR pg_catalog.pg_has_role(role, 'MEMBER')
        OR EXISTS (
            SELECT FROM pg_catalog.pg_auth_members m
            JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) m.roleid
            WHERE m.member OPERATOR(pg_catalog.=) role AND r.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
        OR EXISTS (
            SELECT FROM pg_catalog.pg_namespace n
            WHERE n.nspname OPERATOR(pg_catalog.=) tp_catalog.own_schema()
              AND n.nspowner OPERATOR(pg_catalog.=) role);
END $$;

-- A list of rights without those of roles that are not shown.
CREATE OR REPLACE FUNCTION tp_catalog.rights(acl aclitem[]) RETURNS aclitem[]
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 50 AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.aclexplode(acl) x
        WHERE x.grantee OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
          AND NOT pg_catalog.pg_has_role(x.grantee, 'MEMBER'))
    THEN
        RETURN acl;
    END IF;
    RETURN ARRAY(
        SELECT i.item FROM pg_catalog.unnest(acl) WITH ORDINALITY AS i (item, at)
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.aclexplode(ARRAY[i.item]) x
            WHERE x.grantee OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND NOT tp_catalog.sees_role(x.grantee))
        ORDER BY i.at);
END $$;
