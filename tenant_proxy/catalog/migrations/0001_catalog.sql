-- The catalog: tenants, their plans, logins and rights, what is being done to them and what was done.
-- docs/decisions/0014-catalog-and-lifecycle.md says why it is so.

-- --- what may be written in a plan and in a tenant ------------------------------------------------

-- All keys may be left out.  The same shape as catalog/records.py's Spec, checked here once more, so that
-- nobody who writes past it brings a proxy to read what it can't.
CREATE FUNCTION spec_is_valid(spec jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry record;
    wanted text;
BEGIN
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

CREATE FUNCTION labels_are_valid(labels jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_typeof(labels) = 'object'
       AND NOT EXISTS (SELECT FROM jsonb_each(labels) AS label WHERE jsonb_typeof(label.value) <> 'string')
$$;

CREATE DOMAIN pg_name AS text CHECK (octet_length(VALUE) BETWEEN 1 AND 63);
CREATE DOMAIN entity_name AS text CHECK (VALUE ~ '^[a-z0-9_][a-z0-9_-]{0,62}$');

-- --- plans and tenants ----------------------------------------------------------------------------

CREATE TABLE plan (
    name entity_name PRIMARY KEY,
    description text NOT NULL DEFAULT '',
    spec jsonb NOT NULL DEFAULT '{}' CHECK (spec_is_valid(spec)),
    -- included amounts and prices, for invoices
    billing jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(billing) = 'object'),
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenant (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name entity_name NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN
        ('draft', 'provisioning', 'ready', 'active', 'suspended', 'deleting', 'erased', 'failed')),
    -- what was being done when it failed
    failed_from text CHECK (failed_from IN ('provisioning', 'deleting')),
    -- why it is suspended, deleted or failed; clients are told of the first two
    reason text NOT NULL DEFAULT '',
    plan entity_name REFERENCES plan ON UPDATE CASCADE,
    spec jsonb NOT NULL DEFAULT '{}' CHECK (spec_is_valid(spec)),
    labels jsonb NOT NULL DEFAULT '{}' CHECK (labels_are_valid(labels)),
    sni text[] NOT NULL DEFAULT '{}',
    cluster text NOT NULL CHECK (cluster <> ''),
    -- null: the cluster's
    database pg_name,
    schema pg_name NOT NULL CHECK (schema !~ '^pg_' AND schema <> 'information_schema'),
    owner_role pg_name NOT NULL,
    readwrite_role pg_name NOT NULL,
    readonly_role pg_name NOT NULL,
    -- what its channels' names begin with and its lock keys are mixed with; null: made of its name
    space text CHECK (space ~ '^[a-z2-7]{13}$'),
    -- once its objects have been made
    provisioned_at timestamptz,
    activated_at timestamptz,
    suspended_at timestamptz,
    -- when what is being deleted may be erased
    erase_after timestamptz,
    erased_at timestamptz,
    -- measured, not set
    storage_bytes bigint NOT NULL DEFAULT 0 CHECK (storage_bytes >= 0),
    storage_at timestamptz,
    over_storage boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (owner_role <> readwrite_role AND owner_role <> readonly_role AND readwrite_role <> readonly_role),
    CHECK ((state = 'failed') = (failed_from IS NOT NULL)),
    CHECK (state NOT IN ('ready', 'active', 'suspended') OR provisioned_at IS NOT NULL),
    CHECK ((state = 'erased') = (erased_at IS NOT NULL)),
    CHECK (state <> 'suspended' OR suspended_at IS NOT NULL)
);

-- A name may be used again once whoever had it is erased; what is left of them is known by id.
CREATE UNIQUE INDEX tenant_name ON tenant (name) WHERE state <> 'erased';
CREATE UNIQUE INDEX tenant_schema ON tenant (cluster, coalesce(database, ''), schema) WHERE state <> 'erased';
CREATE UNIQUE INDEX tenant_owner ON tenant (cluster, owner_role) WHERE state <> 'erased';
CREATE UNIQUE INDEX tenant_readwrite ON tenant (cluster, readwrite_role) WHERE state <> 'erased';
CREATE UNIQUE INDEX tenant_readonly ON tenant (cluster, readonly_role) WHERE state <> 'erased';
CREATE INDEX tenant_plan ON tenant (plan);
CREATE INDEX tenant_state ON tenant (state);
CREATE INDEX tenant_labels ON tenant USING gin (labels);

-- A host name means one tenant.
CREATE TABLE tenant_sni (
    host text PRIMARY KEY CHECK (host = lower(host) AND host <> ''),
    tenant bigint NOT NULL REFERENCES tenant ON DELETE CASCADE
);

-- --- logins and what they may -----------------------------------------------------------------------

CREATE TABLE login (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name pg_name NOT NULL UNIQUE CHECK (name !~ '^pg_' AND name NOT LIKE '%.%'),
    kind text NOT NULL DEFAULT 'password' CHECK (kind IN ('password', 'service')),
    -- of a service account: which tokens are it ({"iss": …, "sub": …})
    claims jsonb CHECK (jsonb_typeof(claims) = 'object'),
    expires_at timestamptz,
    -- where it may come from; null: from everywhere
    addresses cidr[] CHECK (cardinality(addresses) > 0),
    max_clients int NOT NULL DEFAULT 0 CHECK (max_clients BETWEEN 0 AND 1000000),
    disabled boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'service') = (claims IS NOT NULL))
);

-- Two while a password rotates; both with one salt and one count of iterations.
CREATE TABLE login_secret (
    login bigint NOT NULL REFERENCES login ON DELETE CASCADE,
    -- 0 and 1 take turns
    slot smallint NOT NULL CHECK (slot IN (0, 1)),
    verifier text NOT NULL CHECK
        (verifier ~ '^SCRAM-SHA-256\$[1-9][0-9]*:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$'),
    server_user pg_name NOT NULL UNIQUE,
    -- its role is not there on the clusters yet
    pending boolean NOT NULL DEFAULT false,
    -- the newest counts until it is replaced; the one before it until then
    retires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (login, slot)
);
CREATE UNIQUE INDEX login_secret_newest ON login_secret (login) WHERE retires_at IS NULL AND NOT pending;

CREATE FUNCTION verifier_challenge(verifier text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT split_part(verifier, '$', 2) $$;

CREATE FUNCTION check_login_secret() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM login_secret other WHERE other.login = NEW.login AND other.slot <> NEW.slot
                AND verifier_challenge(other.verifier) <> verifier_challenge(NEW.verifier)) THEN
        RAISE EXCEPTION 'the secrets of a login must have salt and iterations in common'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER login_secret_check BEFORE INSERT OR UPDATE ON login_secret
    FOR EACH ROW EXECUTE FUNCTION check_login_secret();

-- A role of a tenant's own, with rights on some of its tables.
CREATE TABLE custom_role (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant bigint NOT NULL REFERENCES tenant ON DELETE CASCADE,
    name entity_name NOT NULL CHECK (name NOT IN ('owner', 'readwrite', 'readonly')),
    server_role pg_name NOT NULL,
    -- {"orders": ["SELECT", "INSERT"], …}
    grants jsonb NOT NULL CHECK (jsonb_typeof(grants) = 'object'),
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, name),
    UNIQUE (tenant, id)
);

CREATE TABLE access (
    login bigint NOT NULL REFERENCES login ON DELETE CASCADE,
    tenant bigint NOT NULL REFERENCES tenant ON DELETE CASCADE,
    level text NOT NULL CHECK (level IN ('owner', 'readwrite', 'readonly', 'custom')),
    custom_role bigint,
    expires_at timestamptz,
    -- the login has not got it on the cluster yet
    pending boolean NOT NULL DEFAULT false,
    -- this tenant is the login's own, which it gets when it names none
    is_default boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (login, tenant),
    FOREIGN KEY (tenant, custom_role) REFERENCES custom_role (tenant, id),
    CHECK ((level = 'custom') = (custom_role IS NOT NULL))
);
CREATE INDEX access_tenant ON access (tenant);
CREATE INDEX access_expires ON access (expires_at) WHERE expires_at IS NOT NULL;
CREATE UNIQUE INDEX access_default ON access (login) WHERE is_default;

-- --- what is being done ---------------------------------------------------------------------------

CREATE TABLE job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    -- null: it is about more than one
    tenant bigint REFERENCES tenant,
    tenant_name text NOT NULL DEFAULT '',
    actor text NOT NULL,
    params jsonb NOT NULL DEFAULT '{}',
    -- running goes forward, undoing backward; done, undone and failed are ends
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'undoing', 'done', 'undone', 'failed')),
    -- steps that are done
    position int NOT NULL DEFAULT 0 CHECK (position >= 0),
    steps text[] NOT NULL DEFAULT '{}',
    -- what steps keep for later ones
    data jsonb NOT NULL DEFAULT '{}',
    progress jsonb NOT NULL DEFAULT '{}',
    result jsonb,
    error jsonb,
    lease_owner text,
    lease_until timestamptz,
    attempts int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CHECK ((state IN ('done', 'undone', 'failed')) = (finished_at IS NOT NULL))
);
CREATE UNIQUE INDEX job_one_a_tenant ON job (tenant) WHERE state IN ('running', 'undoing');
CREATE INDEX job_open ON job (lease_until) WHERE state IN ('running', 'undoing');
CREATE INDEX job_of_tenant ON job (tenant, id);

-- --- what was done --------------------------------------------------------------------------------

CREATE TABLE audit (
    id bigint PRIMARY KEY CHECK (id > 0),
    at timestamptz NOT NULL,
    actor text NOT NULL CHECK (actor <> ''),
    action text NOT NULL CHECK (action <> ''),
    kind text NOT NULL,
    name text NOT NULL,
    before jsonb,
    after jsonb,
    job bigint,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE INDEX audit_of ON audit (kind, name, id);

-- What a hash is made of; catalog/audit.py reads the same.
CREATE FUNCTION audit_text(entry audit) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_array(entry.id, to_char(entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
        entry.actor, entry.action, entry.kind, entry.name, entry.before, entry.after, entry.job)::text
$$;

-- Number, time and hash are given here, under a lock that lasts until the entry can be seen: none is missing
-- in the row of numbers, and each hash covers the one before it.
CREATE FUNCTION chain_audit() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
DECLARE
    last audit;
BEGIN
    PERFORM pg_advisory_xact_lock(7310583181047950708);
    SELECT * INTO last FROM audit ORDER BY id DESC LIMIT 1;
    NEW.id := coalesce(last.id, 0) + 1;
    NEW.at := clock_timestamp();
    NEW.hash := sha256(coalesce(last.hash, '') || convert_to(audit_text(NEW), 'UTF8'));
    RETURN NEW;
END $$;
CREATE TRIGGER audit_chain BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION chain_audit();

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the table "%" is only added to', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON audit EXECUTE FUNCTION refuse_change();

-- --- usage ----------------------------------------------------------------------------------------

CREATE TABLE usage (
    tenant text NOT NULL,
    -- 0: a tenant of a proxy's file
    tenant_id bigint NOT NULL DEFAULT 0,
    hour timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    proxy text NOT NULL,
    transactions bigint NOT NULL DEFAULT 0 CHECK (transactions >= 0),
    statements bigint NOT NULL DEFAULT 0 CHECK (statements >= 0),
    -- from clients and to them
    bytes_in bigint NOT NULL DEFAULT 0 CHECK (bytes_in >= 0),
    bytes_out bigint NOT NULL DEFAULT 0 CHECK (bytes_out >= 0),
    -- microseconds for which backends were held
    backend_us bigint NOT NULL DEFAULT 0 CHECK (backend_us >= 0),
    peak_clients int NOT NULL DEFAULT 0 CHECK (peak_clients >= 0),
    storage_bytes bigint NOT NULL DEFAULT 0 CHECK (storage_bytes >= 0),
    PRIMARY KEY (tenant, tenant_id, hour, proxy)
);
CREATE INDEX usage_hour ON usage (hour);

-- Additions that were done, so that none is done twice.
CREATE TABLE usage_added (
    proxy text NOT NULL,
    boot text NOT NULL,
    sequence bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (proxy, boot)
);

-- --- the API --------------------------------------------------------------------------------------

CREATE TABLE token (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name entity_name NOT NULL UNIQUE,
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    role text NOT NULL CHECK (role IN ('admin', 'tenant_admin', 'auditor', 'reader')),
    tenant bigint REFERENCES tenant ON DELETE CASCADE,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz,
    CHECK ((role = 'tenant_admin') = (tenant IS NOT NULL))
);

CREATE TABLE idempotency (
    principal text NOT NULL,
    key text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
    request_hash bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    -- null while the first request is at it
    status int,
    response jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

-- --- migrations of all tenants ----------------------------------------------------------------------

CREATE TABLE tenant_migration (
    tenant bigint NOT NULL REFERENCES tenant ON DELETE CASCADE,
    version text NOT NULL,
    checksum bytea NOT NULL,
    job bigint REFERENCES job,
    took_ms bigint NOT NULL DEFAULT 0,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, version)
);

-- --- states -----------------------------------------------------------------------------------------

-- The same as catalog/states.py, which a test holds against this one.
CREATE FUNCTION may_follow(from_state text, from_failed text, to_state text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE from_state
        WHEN 'draft' THEN to_state IN ('provisioning', 'deleting')
        WHEN 'provisioning' THEN to_state IN ('ready', 'failed')
        WHEN 'ready' THEN to_state IN ('active', 'deleting')
        WHEN 'active' THEN to_state IN ('suspended', 'deleting')
        WHEN 'suspended' THEN to_state IN ('active', 'deleting')
        WHEN 'deleting' THEN to_state IN ('suspended', 'erased', 'failed')
        WHEN 'failed' THEN to_state = 'deleting' OR to_state = 'provisioning' AND from_failed = 'provisioning'
        ELSE false
    END
$$;

CREATE FUNCTION check_tenant() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'draft' THEN
            RAISE EXCEPTION 'a tenant begins as a draft' USING ERRCODE = 'check_violation';
        END IF;
    ELSE
        IF NEW.state <> OLD.state AND NOT may_follow(OLD.state, OLD.failed_from, NEW.state) THEN
            RAISE EXCEPTION 'tenant "%" is %, which % can''t follow', OLD.name, OLD.state, NEW.state
                USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.state = 'failed' AND OLD.state <> 'failed' AND NEW.failed_from <> OLD.state THEN
            RAISE EXCEPTION 'tenant "%" was %, not %', OLD.name, OLD.state, NEW.failed_from
                USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.state = 'suspended' AND OLD.state = 'deleting' AND OLD.provisioned_at IS NULL THEN
            RAISE EXCEPTION 'tenant "%" has nothing to restore', OLD.name USING ERRCODE = 'check_violation';
        END IF;
        IF OLD.state = 'erased' THEN
            RAISE EXCEPTION 'tenant "%" is erased', OLD.name USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER tenant_check BEFORE INSERT OR UPDATE ON tenant FOR EACH ROW EXECUTE FUNCTION check_tenant();

CREATE FUNCTION keep_tenant() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'a tenant''s row stays: it becomes erased' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER tenant_stays BEFORE DELETE ON tenant FOR EACH ROW EXECUTE FUNCTION keep_tenant();

CREATE FUNCTION mirror_sni() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tenant_sni WHERE tenant = NEW.id;
    IF NEW.state <> 'erased' THEN
        INSERT INTO tenant_sni SELECT DISTINCT lower(host), NEW.id FROM unnest(NEW.sni) AS host;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tenant_sni_new AFTER INSERT ON tenant
    FOR EACH ROW WHEN (cardinality(NEW.sni) > 0) EXECUTE FUNCTION mirror_sni();
CREATE TRIGGER tenant_sni_changed AFTER UPDATE ON tenant
    FOR EACH ROW WHEN (NEW.sni IS DISTINCT FROM OLD.sni OR (NEW.state = 'erased') <> (OLD.state = 'erased'))
    EXECUTE FUNCTION mirror_sni();

-- Each change has a number of its own, for those who change what they have read (ETag).
CREATE FUNCTION count_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER plan_version BEFORE UPDATE ON plan FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER tenant_version BEFORE UPDATE ON tenant FOR EACH ROW
    WHEN ((OLD.storage_bytes, OLD.storage_at) IS NOT DISTINCT FROM (NEW.storage_bytes, NEW.storage_at))
    EXECUTE FUNCTION count_version();
CREATE TRIGGER login_version BEFORE UPDATE ON login FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER custom_role_version BEFORE UPDATE ON custom_role FOR EACH ROW EXECUTE FUNCTION count_version();

-- --- what proxies are told --------------------------------------------------------------------------

CREATE FUNCTION tell_tenant() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('tenant_proxy', 'tenant ' || NEW.name);
    IF TG_OP = 'UPDATE' AND (NEW.name <> OLD.name OR NEW.state <> OLD.state
            OR (NEW.owner_role, NEW.readwrite_role, NEW.readonly_role)
               <> (OLD.owner_role, OLD.readwrite_role, OLD.readonly_role)) THEN
        IF NEW.name <> OLD.name THEN
            PERFORM pg_notify('tenant_proxy', 'tenant ' || OLD.name);
        END IF;
        PERFORM pg_notify('tenant_proxy', 'login ' || login.name)
           FROM access JOIN login ON login.id = access.login WHERE access.tenant = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tenant_new AFTER INSERT ON tenant FOR EACH ROW EXECUTE FUNCTION tell_tenant();
CREATE TRIGGER tenant_changed AFTER UPDATE ON tenant FOR EACH ROW
    WHEN (OLD.version <> NEW.version OR OLD.over_storage <> NEW.over_storage) EXECUTE FUNCTION tell_tenant();

CREATE FUNCTION tell_plan() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('tenant_proxy', 'tenant ' || name) FROM tenant
      WHERE plan = NEW.name AND state IN ('active', 'suspended', 'deleting');
    RETURN NULL;
END $$;
CREATE TRIGGER plan_changed AFTER UPDATE ON plan
    FOR EACH ROW WHEN (NEW.spec <> OLD.spec) EXECUTE FUNCTION tell_plan();

CREATE FUNCTION tell_login() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('tenant_proxy', 'login ' || NEW.name);
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('tenant_proxy', 'login ' || OLD.name);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER login_tell AFTER INSERT OR UPDATE OR DELETE ON login
    FOR EACH ROW EXECUTE FUNCTION tell_login();

CREATE FUNCTION tell_login_of() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('tenant_proxy', 'login ' || name) FROM login
      WHERE id = CASE TG_OP WHEN 'DELETE' THEN OLD.login ELSE NEW.login END;
    RETURN NULL;
END $$;
CREATE TRIGGER login_secret_tell AFTER INSERT OR UPDATE OR DELETE ON login_secret
    FOR EACH ROW EXECUTE FUNCTION tell_login_of();
CREATE TRIGGER access_tell AFTER INSERT OR UPDATE OR DELETE ON access
    FOR EACH ROW EXECUTE FUNCTION tell_login_of();

-- --- what proxies read ------------------------------------------------------------------------------

-- Effective values: the plan's, and the tenant's own over them.  catalog/effective.py says the same, and
-- where each comes from.
CREATE VIEW served_tenants AS
SELECT t.name::text AS name, t.cluster, t.database::text AS database, t.schema::text AS schema,
       e.spec ->> 'isolation' AS isolation,
       coalesce(p.spec -> 'pool', '{}') || coalesce(t.spec -> 'pool', '{}') AS pool,
       coalesce(p.spec -> 'policy', '{}') || coalesce(t.spec -> 'policy', '{}') AS policy,
       CASE WHEN e.spec ? 'tablespace' THEN jsonb_build_object('default_tablespace', e.spec -> 'tablespace')
            ELSE '{}' END
       || coalesce(p.spec -> 'settings', '{}') || coalesce(t.spec -> 'settings', '{}') AS settings,
       ARRAY(SELECT jsonb_array_elements_text(e.spec -> 'locked_settings')) AS locked_settings,
       coalesce((e.spec ->> 'max_clients')::bigint, 0) AS max_clients,
       t.sni, t.labels,
       CASE t.state
           WHEN 'suspended' THEN coalesce(nullif(t.reason, ''), 'suspended')
           WHEN 'deleting' THEN coalesce(nullif(t.reason, ''), 'being deleted')
       END AS refusal,
       coalesce((e.spec ->> 'grace_s')::double precision, 30) AS grace_s,
       t.over_storage,
       t.space
  FROM tenant t LEFT JOIN plan p ON p.name = t.plan
 CROSS JOIN LATERAL (SELECT coalesce(p.spec, '{}') || t.spec AS spec) e
 WHERE t.state IN ('active', 'suspended', 'deleting') AND t.provisioned_at IS NOT NULL;

-- Logins with a tenant that is served.  `roles` maps each tenant to the role that statements run as there.
CREATE VIEW served_logins AS
SELECT l.name::text AS name,
       coalesce((SELECT jsonb_agg(jsonb_build_object('verifier', s.verifier, 'server_user', s.server_user)
                                  ORDER BY s.retires_at DESC NULLS FIRST)
                   FROM login_secret s
                  WHERE s.login = l.id AND NOT s.pending AND (s.retires_at IS NULL OR s.retires_at > now())), '[]') AS verifiers,
       a.tenants, a.roles,
       CASE WHEN a.forever THEN l.expires_at ELSE least(l.expires_at, a.last_expiry) END AS expires_at,
       ARRAY(SELECT abbrev(address) FROM unnest(l.addresses) AS address) AS addresses,
       l.max_clients
  FROM login l
 CROSS JOIN LATERAL (
     SELECT array_agg(t.name::text ORDER BY a.is_default DESC, t.name) AS tenants,
            jsonb_object_agg(t.name, CASE a.level WHEN 'owner' THEN t.owner_role
                                                  WHEN 'readwrite' THEN t.readwrite_role
                                                  WHEN 'readonly' THEN t.readonly_role
                                                  ELSE r.server_role END) AS roles,
            bool_or(a.expires_at IS NULL) AS forever,
            max(a.expires_at) AS last_expiry
       FROM access a JOIN tenant t ON t.id = a.tenant
       LEFT JOIN custom_role r ON r.id = a.custom_role
      WHERE a.login = l.id AND NOT a.pending AND (a.expires_at IS NULL OR a.expires_at > now())
        AND t.state IN ('active', 'suspended', 'deleting') AND t.provisioned_at IS NOT NULL) a
 WHERE NOT l.disabled AND a.tenants IS NOT NULL AND (l.expires_at IS NULL OR l.expires_at > now());
