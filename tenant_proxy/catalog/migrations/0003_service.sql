-- Service accounts log in by JSON Web Token.  Their role on a cluster has a password that proxies make of the
-- configuration's secret, so that nobody knows it and none is stored.

CREATE OR REPLACE VIEW served_logins AS
SELECT l.name::text AS name,
       coalesce((SELECT jsonb_agg(jsonb_build_object('verifier', s.verifier, 'server_user', s.server_user)
                                  ORDER BY s.retires_at DESC NULLS FIRST)
                   FROM login_secret s
                  WHERE s.login = l.id AND NOT s.pending AND (s.retires_at IS NULL OR s.retires_at > now())), '[]') AS verifiers,
       a.tenants, a.roles,
       CASE WHEN a.forever THEN l.expires_at ELSE least(l.expires_at, a.last_expiry) END AS expires_at,
       ARRAY(SELECT abbrev(address) FROM unnest(l.addresses) AS address) AS addresses,
       l.max_clients,
       l.kind = 'service' AS service
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
