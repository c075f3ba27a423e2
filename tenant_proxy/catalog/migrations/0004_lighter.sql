-- Functions that stand in constraints and triggers, as PL/pgSQL: a function of SQL that has settings of its own is
-- read and planned anew for each statement that calls it, one of PL/pgSQL once a session.  They say the same.

CREATE OR REPLACE FUNCTION labels_are_valid(labels jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF labels = '{}' THEN
        RETURN true;
    END IF;
    RETURN jsonb_typeof(labels) = 'object'
       AND NOT EXISTS (SELECT FROM jsonb_each(labels) AS label WHERE jsonb_typeof(label.value) <> 'string');
END $$;

CREATE OR REPLACE FUNCTION audit_text(entry audit) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN jsonb_build_array(entry.id, to_char(entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
        entry.actor, entry.action, entry.kind, entry.name, entry.before, entry.after, entry.job)::text;
END $$;

CREATE OR REPLACE FUNCTION may_follow(from_state text, from_failed text, to_state text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE from_state
        WHEN 'draft' THEN to_state IN ('provisioning', 'deleting')
        WHEN 'provisioning' THEN to_state IN ('ready', 'failed')
        WHEN 'ready' THEN to_state IN ('active', 'deleting')
        WHEN 'active' THEN to_state IN ('suspended', 'deleting')
        WHEN 'suspended' THEN to_state IN ('active', 'deleting')
        WHEN 'deleting' THEN to_state IN ('suspended', 'erased', 'failed')
        WHEN 'failed' THEN to_state = 'deleting' OR to_state = 'provisioning' AND from_failed = 'provisioning'
        ELSE false
    END;
END $$;

-- Most tenants have nothing of their own, and each change of a tenant's row asks again.
CREATE OR REPLACE FUNCTION spec_is_valid(spec jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry record;
    wanted text;
BEGIN
    IF spec = '{}' THEN
        RETURN true;
    END IF;
    IF jsonb_typeof(spec) <> 'object' THEN
        RETURN false;
    END IF;
    FOR entry IN SELECT key, value, jsonb_typeof(value) AS kind FROM jsonb_each(spec) LOOP
        wanted := CASE
            WHEN entry.key IN ('pool', 'policy', 'settings') THEN 'object'
            WHEN entry.key IN ('locked_settings', 'extensions', 'services') THEN 'array'
            WHEN entry.key IN ('max_clients', 'storage_bytes', 'grace_s', 'delete_grace_s',
                               'connection_limit') THEN 'number'
            WHEN entry.key IN ('isolation', 'template', 'tablespace') THEN 'string'
            WHEN entry.key = 'own_database' THEN 'boolean'
        END;
        IF wanted IS NULL OR entry.kind <> wanted THEN
            RETURN false;
        END IF;
        IF entry.key = 'isolation' AND entry.value #>> '{}' NOT IN ('dedicated', 'shared') THEN
            RETURN false;
        END IF;
        IF wanted = 'number' AND (entry.value #>> '{}')::numeric < 0 THEN
            RETURN false;
        END IF;
        IF wanted = 'array' AND EXISTS (SELECT FROM jsonb_array_elements(entry.value) AS element
                                         WHERE jsonb_typeof(element) <> 'string') THEN
            RETURN false;
        END IF;
        IF entry.key = 'settings' AND EXISTS (SELECT FROM jsonb_each(entry.value) AS setting
                                               WHERE jsonb_typeof(setting.value) <> 'string') THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END $$;
