-- What was changed in a tenant, its labels and settings and the addresses of its logins, goes from the log when the
-- tenant is erased; that something was changed, when and by whom, stays, and so does the chain.  So an entry's hash
-- covers not its `before` and `after` but a digest of them and of a salt, and both the values and the salt may be taken
-- away: what the digest is of nobody can find out then by trying.  Entries made before have no digest, and stay.
ALTER TABLE audit
    ADD COLUMN salt bytea CHECK (octet_length(salt) = 16),
    ADD COLUMN digest bytea CHECK (octet_length(digest) = 32),
    ADD CHECK (salt IS NULL OR digest IS NOT NULL),
    ADD CONSTRAINT audit_blank CHECK (salt IS NOT NULL OR digest IS NULL OR before IS NULL AND after IS NULL);

CREATE FUNCTION audit_digest(salt bytea, before jsonb, after jsonb) RETURNS bytea
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN sha256(salt || convert_to(jsonb_build_array(before, after)::text, 'UTF8'));
END $$;

CREATE OR REPLACE FUNCTION audit_text(entry audit) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF entry.digest IS NULL THEN
        RETURN jsonb_build_array(entry.id, to_char(entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
            entry.actor, entry.action, entry.kind, entry.name, entry.before, entry.after, entry.job)::text;
    END IF;
    RETURN jsonb_build_array(entry.id, to_char(entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
        entry.actor, entry.action, entry.kind, entry.name, encode(entry.digest, 'hex'), entry.job)::text;
END $$;

CREATE OR REPLACE FUNCTION chain_audit() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
DECLARE
    last audit;
BEGIN
    NEW.salt := uuid_send(gen_random_uuid());
    NEW.digest := audit_digest(NEW.salt, NEW.before, NEW.after);
    PERFORM pg_advisory_xact_lock(7310583181047950708);
    SELECT * INTO last FROM audit ORDER BY id DESC LIMIT 1;
    NEW.id := coalesce(last.id, 0) + 1;
    NEW.at := clock_timestamp();
    NEW.hash := sha256(coalesce(last.hash, '') || convert_to(audit_text(NEW), 'UTF8'));
    RETURN NEW;
END $$;

-- The one change that an entry takes.  Who may is to say which in an entry of its own: `audit verify` looks for that.
CREATE FUNCTION refuse_change_but_blanking() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.salt IS NOT NULL AND NEW.salt IS NULL AND NEW.before IS NULL AND NEW.after IS NULL
       AND (NEW.id, NEW.at, NEW.actor, NEW.action, NEW.kind, NEW.name, NEW.job, NEW.digest, NEW.hash)
           IS NOT DISTINCT FROM
           (OLD.id, OLD.at, OLD.actor, OLD.action, OLD.kind, OLD.name, OLD.job, OLD.digest, OLD.hash) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the table "%" is only added to', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
DROP TRIGGER audit_stays ON audit;
CREATE TRIGGER audit_stays BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_stays_as_it_is BEFORE UPDATE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_change_but_blanking();
