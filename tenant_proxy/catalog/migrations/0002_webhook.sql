-- Who is told of changes.  What they are told is the log of changes itself: an entry becomes a delivery for
-- each webhook that wants it in the transaction that makes the entry, so none is lost and none is made up.
CREATE TABLE webhook (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name entity_name NOT NULL UNIQUE,
    url text NOT NULL CHECK (url ~ '^https?://[^[:space:]]+$' AND length(url) <= 2000),
    -- actions of the log such as tenant.suspend, or tenant.* ; none: all
    events text[] NOT NULL DEFAULT '{}' CHECK (array_position(events, NULL) IS NULL),
    -- the secret is made of this and the configuration's, and kept nowhere
    salt bytea NOT NULL CHECK (octet_length(salt) = 16),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- it has answered 410: it wants no more
    gone_at timestamptz
);

CREATE TABLE webhook_delivery (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook bigint NOT NULL REFERENCES webhook ON DELETE CASCADE,
    audit bigint NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'failed')),
    attempts int NOT NULL DEFAULT 0,
    -- when it is tried next; while it is tried, when somebody else may
    next_at timestamptz NOT NULL DEFAULT now(),
    -- of the last try
    status int,
    error text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    CHECK ((state = 'waiting') = (ended_at IS NULL)),
    UNIQUE (webhook, audit)
);
CREATE INDEX webhook_delivery_due ON webhook_delivery (next_at) WHERE state = 'waiting';

CREATE FUNCTION deliver_audit() RETURNS trigger
LANGUAGE plpgsql SET search_path = tenant_proxy, pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO webhook_delivery (webhook, audit)
    SELECT w.id, NEW.id FROM webhook w
     WHERE w.gone_at IS NULL
       AND (cardinality(w.events) = 0 OR NEW.action = ANY (w.events)
            OR split_part(NEW.action, '.', 1) || '.*' = ANY (w.events));
    RETURN NULL;
END $$;
CREATE TRIGGER audit_deliver AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION deliver_audit();
