-- Functions in place of those of pg_catalog.  Their names, arguments and results are the originals'.

-- --- channels and advisory locks ------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION tp_catalog.pg_notify(text, text) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL RESTRICTED
RETURN pg_catalog.pg_notify(pg_catalog.current_setting('tenant_proxy.space') || '.' || NULLIF($1, ''), $2);

CREATE OR REPLACE FUNCTION tp_catalog.pg_listening_channels() RETURNS SETOF text
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
    SELECT pg_catalog.substr(l.channel, pg_catalog.length(pg_catalog.current_setting('tenant_proxy.space')) + 2)
    FROM pg_catalog.pg_listening_channels() AS l (channel)
    WHERE pg_catalog.starts_with(l.channel, pg_catalog.current_setting('tenant_proxy.space') || '.');
END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_lock(bigint) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_lock($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_lock(integer, integer) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_lock($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_lock_shared(bigint) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_lock_shared($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_lock_shared(integer, integer) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_lock_shared($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_xact_lock(bigint) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_xact_lock($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_xact_lock(integer, integer) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_xact_lock($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_xact_lock_shared(bigint) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_xact_lock_shared($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_xact_lock_shared(integer, integer) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_xact_lock_shared($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

CREATE OR REPLACE FUNCTION tp_catalog.pg_try_advisory_lock(bigint) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_try_advisory_lock($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_try_advisory_lock(integer, integer) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_try_advisory_lock($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

CREATE OR REPLACE FUNCTION tp_catalog.pg_try_advisory_lock_shared(bigint) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_try_advisory_lock_shared($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_try_advisory_lock_shared(integer, integer) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_try_advisory_lock_shared($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

CREATE OR REPLACE FUNCTION tp_catalog.pg_try_advisory_xact_lock(bigint) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_try_advisory_xact_lock($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_try_advisory_xact_lock(integer, integer) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_try_advisory_xact_lock($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

CREATE OR REPLACE FUNCTION tp_catalog.pg_try_advisory_xact_lock_shared(bigint) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_try_advisory_xact_lock_shared($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_try_advisory_xact_lock_shared(integer, integer) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_try_advisory_xact_lock_shared($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_unlock(bigint) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_unlock($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_unlock(integer, integer) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_unlock($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_unlock_shared(bigint) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_unlock_shared($1 # tp_catalog.lock_mask());

CREATE OR REPLACE FUNCTION tp_catalog.pg_advisory_unlock_shared(integer, integer) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
RETURN pg_catalog.pg_advisory_unlock_shared($1 # tp_catalog.lock_mask_high(), $2 # tp_catalog.lock_mask_low());

-- --- sessions: through the proxy a session is a client (guard/own_session.py, relay/signals.py) ----------------

-- with the process id that the client was greeted with
CREATE OR REPLACE FUNCTION tp_catalog.pg_backend_pid(integer) RETURNS integer
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN $1;

-- One's own session is ended by the proxy as it reads this error; the error undoes what is under way.  Other clients are
-- ended by it as it reads a notice, which says whom.
CREATE OR REPLACE FUNCTION tp_catalog.pg_terminate_backend(own text, pid integer, timeout bigint DEFAULT 0)
    RETURNS boolean
LANGUAGE plpgsql VOLATILE STRICT PARALLEL SAFE AS $$
BEGIN
    IF timeout < 0 THEN
        RAISE EXCEPTION '"timeout" must not be negative' USING ERRCODE = '22003';
    ELSIF pid = own::integer OR pid = pg_catalog.pg_backend_pid() THEN
        RAISE EXCEPTION 'terminating connection due to administrator command'
            USING ERRCODE = '57P01', SCHEMA = 'tp_catalog', TABLE = 'pg_terminate_backend';
    END IF;
    RETURN tp_catalog.signalled(pid, 'pg_terminate_backend');
END $$;

CREATE OR REPLACE FUNCTION tp_catalog.pg_terminate_backend(pid integer, timeout bigint DEFAULT 0) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
RETURN tp_catalog.pg_terminate_backend('0'::text, pid, timeout);

CREATE OR REPLACE FUNCTION tp_catalog.pg_cancel_backend(own text, pid integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE STRICT PARALLEL SAFE AS $$
BEGIN
    IF pid = own::integer OR pid = pg_catalog.pg_backend_pid() THEN
        RAISE EXCEPTION 'canceling statement due to user request' USING ERRCODE = '57014';
    END IF;
    RETURN tp_catalog.signalled(pid, 'pg_cancel_backend');
END $$;

CREATE OR REPLACE FUNCTION tp_catalog.pg_cancel_backend(pid integer) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
RETURN tp_catalog.pg_cancel_backend('0'::text, pid);

-- numbers from 2^30 on are those of clients; of backends only those of one's own role are any of one's business
CREATE OR REPLACE FUNCTION tp_catalog.signalled(pid integer, function text) RETURNS boolean
LANGUAGE plpgsql VOLATILE STRICT PARALLEL SAFE AS $$
BEGIN
    IF pid < 1073741824 AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_stat_get_activity(pid) a
        JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid WHERE r.rolname = CURRENT_USER)
    THEN
        RAISE WARNING 'PID % is not a PostgreSQL backend process', pid;
        RETURN false;
    END IF;
    RAISE INFO '%', function USING SCHEMA = 'tp_catalog', TABLE = function, COLUMN = pid::pg_catalog.text;
    RETURN true;
END $$;

-- With the client's statements that it has made by Parse: what the server knows them by, the client's names, texts, and
-- how many microseconds ago that was.  Those of SQL's PREPARE are the server's own.
CREATE OR REPLACE FUNCTION tp_catalog.pg_prepared_statements(known text[], names text[], texts text[], ages bigint[])
    RETURNS SETOF pg_catalog.pg_prepared_statements
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
DECLARE
    one pg_catalog.pg_prepared_statements;
    asked pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    FOR i IN 1 .. COALESCE(pg_catalog.array_length(known, 1), 0) LOOP
        SELECT * INTO one FROM pg_catalog.pg_prepared_statements s WHERE s.name = known[i];
        one.name := names[i];
        one.statement := texts[i];
        one.prepare_time := asked - ages[i] * '1 microsecond'::pg_catalog.interval;
        one.parameter_types := COALESCE(one.parameter_types, '{}');
        one.from_sql := false;
        one.generic_plans := COALESCE(one.generic_plans, 0);
        one.custom_plans := COALESCE(one.custom_plans, 0);
        RETURN NEXT one;
    END LOOP;
    RETURN QUERY SELECT * FROM pg_catalog.pg_prepared_statements s WHERE s.from_sql;
END $$;

-- --- comments -------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION tp_catalog.obj_description(object_oid oid, catalog_name name) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN (SELECT d.description FROM tp_catalog.pg_description d
    WHERE d.objoid = object_oid AND d.objsubid = 0 AND d.classoid = (
        SELECT c.oid FROM pg_catalog.pg_class c
        WHERE c.relname = catalog_name AND c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace));

CREATE OR REPLACE FUNCTION tp_catalog.obj_description(object_oid oid) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN (SELECT d.description FROM tp_catalog.pg_description d
    WHERE d.objoid = object_oid AND d.objsubid = 0 LIMIT 1);

CREATE OR REPLACE FUNCTION tp_catalog.col_description(table_oid oid, column_number integer) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, table_oid) THEN pg_catalog.col_description(table_oid, column_number) END;

CREATE OR REPLACE FUNCTION tp_catalog.shobj_description(object_oid oid, catalog_name name) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN (SELECT d.description FROM tp_catalog.pg_shdescription d
    WHERE d.objoid = object_oid AND d.classoid = (
        SELECT c.oid FROM pg_catalog.pg_class c
        WHERE c.relname = catalog_name AND c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace));

-- --- names by OID ---------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION tp_catalog.other_user(oid) RETURNS name
    LANGUAGE sql STABLE STRICT PARALLEL SAFE COST 100
RETURN COALESCE((SELECT r.rolname FROM tp_catalog.pg_roles r WHERE r.oid = $1), ('unknown (OID=' || $1::text || ')')::name);

-- one's own role is most of what is asked for
CREATE OR REPLACE FUNCTION tp_catalog.pg_get_userbyid(oid) RETURNS name LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN $1 < 16384::oid OR pg_catalog.pg_has_role($1, 'MEMBER') THEN pg_catalog.pg_get_userbyid($1)
            ELSE tp_catalog.other_user($1) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_describe_object(oid, oid, integer) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees($1, $2) THEN tp_catalog.shown(pg_catalog.pg_describe_object($1, $2, $3)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_identify_object(
    classid oid, objid oid, objsubid integer, OUT type text, OUT schema text, OUT name text, OUT identity text)
LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT o.type, tp_catalog.schema_name(o.schema::name)::text, o.name, tp_catalog.shown(o.identity)
    FROM pg_catalog.pg_identify_object(classid, objid, objsubid) o WHERE tp_catalog.sees(classid, objid);
END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_identify_object_as_address(
    classid oid, objid oid, objsubid integer, OUT type text, OUT object_names text[], OUT object_args text[])
LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT o.type, ARRAY[tp_catalog.schema_name(o.object_names[1]::name)::text] || o.object_names[2:], o.object_args
    FROM pg_catalog.pg_identify_object_as_address(classid, objid, objsubid) o WHERE tp_catalog.sees(classid, objid);
END;

-- --- definitions ----------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_viewdef(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN CASE WHEN tp_catalog.sees(1259, $1) AND tp_catalog.equality_is_plain() THEN
    tp_catalog.shown(pg_catalog.pg_get_viewdef($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_viewdef(oid, boolean) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN CASE WHEN tp_catalog.sees(1259, $1) AND tp_catalog.equality_is_plain() THEN
    tp_catalog.shown(pg_catalog.pg_get_viewdef($1, $2)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_viewdef(oid, integer) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN CASE WHEN tp_catalog.sees(1259, $1) AND tp_catalog.equality_is_plain() THEN
    tp_catalog.shown(pg_catalog.pg_get_viewdef($1, $2)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_ruledef(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(2618, $1) AND tp_catalog.equality_is_plain() THEN
    tp_catalog.shown(pg_catalog.pg_get_ruledef($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_ruledef(oid, boolean) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(2618, $1) AND tp_catalog.equality_is_plain() THEN
    tp_catalog.shown(pg_catalog.pg_get_ruledef($1, $2)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_indexdef(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1) THEN tp_catalog.shown(pg_catalog.pg_get_indexdef($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_indexdef(oid, integer, boolean) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1) THEN tp_catalog.shown(pg_catalog.pg_get_indexdef($1, $2, $3)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_constraintdef(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(2606, $1) THEN tp_catalog.shown(pg_catalog.pg_get_constraintdef($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_constraintdef(oid, boolean) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(2606, $1) THEN tp_catalog.shown(pg_catalog.pg_get_constraintdef($1, $2)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_triggerdef(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(2620, $1) THEN tp_catalog.shown(pg_catalog.pg_get_triggerdef($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_triggerdef(oid, boolean) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(2620, $1) THEN tp_catalog.shown(pg_catalog.pg_get_triggerdef($1, $2)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_functiondef(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1255, $1) THEN tp_catalog.shown(pg_catalog.pg_get_functiondef($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_function_arguments(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1255, $1) THEN tp_catalog.shown(pg_catalog.pg_get_function_arguments($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_function_identity_arguments(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1255, $1) THEN tp_catalog.shown(pg_catalog.pg_get_function_identity_arguments($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_function_result(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1255, $1) THEN tp_catalog.shown(pg_catalog.pg_get_function_result($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_function_arg_default(oid, integer) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1255, $1) THEN tp_catalog.shown(pg_catalog.pg_get_function_arg_default($1, $2)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_function_sqlbody(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1255, $1) THEN tp_catalog.shown(pg_catalog.pg_get_function_sqlbody($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_partkeydef(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1) THEN tp_catalog.shown(pg_catalog.pg_get_partkeydef($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_partition_constraintdef(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1) THEN tp_catalog.shown(pg_catalog.pg_get_partition_constraintdef($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_statisticsobjdef(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(3381, $1) THEN tp_catalog.shown(pg_catalog.pg_get_statisticsobjdef($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_statisticsobjdef_columns(oid) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(3381, $1) THEN tp_catalog.shown(pg_catalog.pg_get_statisticsobjdef_columns($1)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_statisticsobjdef_expressions(oid) RETURNS text[]
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(3381, $1) THEN pg_catalog.pg_get_statisticsobjdef_expressions($1) END;

-- since 18
CREATE OR REPLACE FUNCTION tp_catalog.pg_get_acl(classid oid, objid oid, objsubid integer) RETURNS aclitem[]
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(classid, objid) THEN tp_catalog.rights(pg_catalog.pg_get_acl(classid, objid, objsubid)) END;

-- these two are given the name of a view, which the guard has judged
CREATE OR REPLACE FUNCTION tp_catalog.pg_get_viewdef(text) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN tp_catalog.pg_get_viewdef($1::pg_catalog.regclass::oid);

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_viewdef(text, boolean) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN tp_catalog.pg_get_viewdef($1::pg_catalog.regclass::oid, $2);

-- whoever has an expression has read it where it is shown; the names of columns are those of the relation that is given
CREATE OR REPLACE FUNCTION tp_catalog.pg_get_expr(pg_node_tree, oid) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN $2 < 16384 OR tp_catalog.sees(1259, $2) THEN tp_catalog.shown(pg_catalog.pg_get_expr($1, $2)) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_get_expr(pg_node_tree, oid, boolean) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN $2 < 16384 OR tp_catalog.sees(1259, $2) THEN tp_catalog.shown(pg_catalog.pg_get_expr($1, $2, $3)) END;

-- --- rows of the tables of a schema, which the guard has judged --------------------------------------------------

CREATE OR REPLACE FUNCTION tp_catalog.schema_to_xml(schema name, nulls boolean, tableforest boolean, targetns text)
RETURNS xml LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN CASE WHEN tp_catalog.equality_is_plain() THEN pg_catalog.schema_to_xml($1, $2, $3, $4) END;

CREATE OR REPLACE FUNCTION tp_catalog.schema_to_xmlschema(
    schema name, nulls boolean, tableforest boolean, targetns text)
RETURNS xml LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN CASE WHEN tp_catalog.equality_is_plain() THEN pg_catalog.schema_to_xmlschema($1, $2, $3, $4) END;

CREATE OR REPLACE FUNCTION tp_catalog.schema_to_xml_and_xmlschema(
    schema name, nulls boolean, tableforest boolean, targetns text)
RETURNS xml LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN CASE WHEN tp_catalog.equality_is_plain() THEN pg_catalog.schema_to_xml_and_xmlschema($1, $2, $3, $4) END;

-- --- rows that views show -------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION tp_catalog.pg_prepared_xact(
    OUT transaction xid, OUT gid text, OUT prepared timestamptz, OUT ownerid oid, OUT dbid oid)
RETURNS SETOF record LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT x.transaction, x.gid, x.prepared, x.ownerid, x.dbid FROM pg_catalog.pg_prepared_xact() x
    WHERE pg_catalog.pg_has_role(x.ownerid, 'MEMBER');
END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_show_all_settings(
    OUT name text, OUT setting text, OUT unit text, OUT category text, OUT short_desc text, OUT extra_desc text,
    OUT context text, OUT vartype text, OUT source text, OUT min_val text, OUT max_val text, OUT enumvals text[],
    OUT boot_val text, OUT reset_val text, OUT sourcefile text, OUT sourceline integer, OUT pending_restart boolean)
RETURNS SETOF record LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT s.* FROM pg_catalog.pg_show_all_settings() s
    WHERE s.name !~ '^tenant_proxy\.' AND s.name <> 'restrict_nonsystem_relation_kind';
END;

-- --- databases by name: there is none but this ---------------------------------------------------------------------

CREATE OR REPLACE FUNCTION tp_catalog.own_database(database text) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF database::pg_catalog.name OPERATOR(pg_catalog.<>) pg_catalog.current_database()
        AND database OPERATOR(pg_catalog.<>) ALL (ARRAY['postgres', 'template0', 'template1'])
    THEN
        RAISE EXCEPTION USING ERRCODE = '3D000',
            MESSAGE = 'database "' OPERATOR(pg_catalog.||) database OPERATOR(pg_catalog.||) '" does not exist';
    END IF;
    RETURN database;
END $$;

-- since 16
CREATE OR REPLACE FUNCTION tp_catalog.pg_input_is_valid(text, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1247, $2::pg_catalog.regtype::oid) THEN pg_catalog.pg_input_is_valid($1, $2) END;

-- since 16
CREATE OR REPLACE FUNCTION tp_catalog.pg_input_error_info(
    value text, type_name text, OUT message text, OUT detail text, OUT hint text, OUT sql_error_code text)
RETURNS record LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT i.* FROM pg_catalog.pg_input_error_info(value, type_name) AS i
    WHERE tp_catalog.sees(1247, type_name::pg_catalog.regtype::oid);
END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_database_size(name) RETURNS bigint LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
RETURN pg_catalog.pg_database_size(tp_catalog.own_database($1::text)::name);

CREATE OR REPLACE FUNCTION tp_catalog.pg_database_size(oid) RETURNS bigint LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1262, $1) THEN pg_catalog.pg_database_size($1) END;

CREATE OR REPLACE FUNCTION tp_catalog.has_database_privilege(text, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN pg_catalog.has_database_privilege(tp_catalog.own_database($1), $2);

CREATE OR REPLACE FUNCTION tp_catalog.has_database_privilege(oid, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1262, $1) THEN pg_catalog.has_database_privilege($1, $2) END;

CREATE OR REPLACE FUNCTION tp_catalog.has_database_privilege(name, text, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN pg_catalog.has_database_privilege($1, tp_catalog.own_database($2), $3);

CREATE OR REPLACE FUNCTION tp_catalog.has_database_privilege(name, oid, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1262, $2) THEN pg_catalog.has_database_privilege($1, $2, $3) END;

CREATE OR REPLACE FUNCTION tp_catalog.has_database_privilege(oid, text, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN pg_catalog.has_database_privilege($1, tp_catalog.own_database($2), $3);

CREATE OR REPLACE FUNCTION tp_catalog.has_database_privilege(oid, oid, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1262, $2) THEN pg_catalog.has_database_privilege($1, $2, $3) END;

-- --- sequences and sizes, given by what may mean anybody's ----------------------------------------------------------

CREATE OR REPLACE FUNCTION tp_catalog.own_sequence(sequence regclass) RETURNS regclass
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED AS $$
BEGIN
    IF NOT tp_catalog.sees(1259::pg_catalog.oid, sequence::pg_catalog.oid) THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'permission denied for sequence';
    END IF;
    RETURN sequence;
END $$;

CREATE OR REPLACE FUNCTION tp_catalog.nextval(regclass) RETURNS bigint LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
RETURN pg_catalog.nextval(tp_catalog.own_sequence($1));

CREATE OR REPLACE FUNCTION tp_catalog.setval(regclass, bigint) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
RETURN pg_catalog.setval(tp_catalog.own_sequence($1), $2);

CREATE OR REPLACE FUNCTION tp_catalog.setval(regclass, bigint, boolean) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
RETURN pg_catalog.setval(tp_catalog.own_sequence($1), $2, $3);

CREATE OR REPLACE FUNCTION tp_catalog.currval(regclass) RETURNS bigint LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
RETURN pg_catalog.currval(tp_catalog.own_sequence($1));

CREATE OR REPLACE FUNCTION tp_catalog.pg_sequence_last_value(regclass) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.pg_sequence_last_value($1) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_sequence_parameters(
    sequence_oid oid, OUT start_value bigint, OUT minimum_value bigint, OUT maximum_value bigint,
    OUT increment bigint, OUT cycle_option boolean, OUT cache_size bigint, OUT data_type oid)
RETURNS record LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT * FROM pg_catalog.pg_sequence_parameters(tp_catalog.own_sequence(sequence_oid::regclass)::oid);
END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_relation_size(regclass) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.pg_relation_size($1) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_relation_size(regclass, text) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.pg_relation_size($1, $2) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_table_size(regclass) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.pg_table_size($1) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_indexes_size(regclass) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.pg_indexes_size($1) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_total_relation_size(regclass) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.pg_total_relation_size($1) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_partition_tree(
    rootrelid regclass, OUT relid regclass, OUT parentrelid regclass, OUT isleaf boolean, OUT level integer)
RETURNS SETOF record LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT t.* FROM pg_catalog.pg_partition_tree(
        CASE WHEN tp_catalog.sees(1259, rootrelid::oid) THEN rootrelid END) AS t;
END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_partition_ancestors(partitionid regclass, OUT relid regclass)
RETURNS SETOF regclass LANGUAGE sql VOLATILE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT a.relid FROM pg_catalog.pg_partition_ancestors(
        CASE WHEN tp_catalog.sees(1259, partitionid::oid) THEN partitionid END) AS a;
END;

-- since 18
CREATE OR REPLACE FUNCTION tp_catalog.pg_get_sequence_data(
    sequence_oid regclass, OUT last_value bigint, OUT is_called boolean)
RETURNS record LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT d.last_value, d.is_called FROM pg_catalog.pg_get_sequence_data(tp_catalog.own_sequence(sequence_oid)) AS d;
END;

CREATE OR REPLACE FUNCTION tp_catalog.currtid2(text, tid) RETURNS tid LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::pg_catalog.regclass::oid) THEN pg_catalog.currtid2($1, $2) END;

CREATE OR REPLACE FUNCTION tp_catalog.brin_summarize_new_values(regclass) RETURNS integer
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.brin_summarize_new_values($1) END;

CREATE OR REPLACE FUNCTION tp_catalog.brin_summarize_range(regclass, bigint) RETURNS integer
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.brin_summarize_range($1, $2) END;

CREATE OR REPLACE FUNCTION tp_catalog.brin_desummarize_range(regclass, bigint) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT pg_catalog.brin_desummarize_range($1, $2) WHERE tp_catalog.sees(1259, $1::oid);
END;

CREATE OR REPLACE FUNCTION tp_catalog.gin_clean_pending_list(regclass) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.gin_clean_pending_list($1) END;

CREATE OR REPLACE FUNCTION tp_catalog.pg_partition_root(regclass) RETURNS regclass
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN tp_catalog.sees(1259, $1::oid) THEN pg_catalog.pg_partition_root($1) END;

-- --- names of schemas, where the tenant's is `public` --------------------------------------------------------------

CREATE OR REPLACE FUNCTION tp_catalog.current_schema() RETURNS name LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
RETURN tp_catalog.schema_name(pg_catalog.current_schema());

CREATE OR REPLACE FUNCTION tp_catalog.current_schemas(boolean) RETURNS name[]
    LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
RETURN ARRAY(SELECT tp_catalog.schema_name(s.name)
    FROM pg_catalog.unnest(pg_catalog.current_schemas($1)) WITH ORDINALITY AS s (name, at) ORDER BY s.at);

CREATE OR REPLACE FUNCTION tp_catalog.format_type(oid, integer) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN tp_catalog.shown(pg_catalog.format_type($1, $2));
