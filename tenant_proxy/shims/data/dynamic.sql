-- SQL made at run time: what EXECUTE is given in PL/pgSQL.  The judge has not seen it, so it is read here, by
-- tokens alone: names of the catalogs become those of the views, and what might be more is refused.

-- Letters outside ASCII that unquoted names lose to ASCII here: with an encoding of one byte a character PostgreSQL
-- folds by the database's locale, and a Turkish one makes an i of the capital with a dot.
CREATE OR REPLACE FUNCTION tp_catalog.folding() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(CASE WHEN pg_encoding_max_length(pg_char_to_encoding(getdatabaseencoding())) = 1 THEN (
        SELECT string_agg(chr(s.n), '') FROM generate_series(128, 255) AS s (n)
        WHERE ascii((parse_ident(chr(s.n)))[1]) < 128) END, '')
$$;

CREATE OR REPLACE FUNCTION tp_catalog.is_folded(statement text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT statement <> translate(statement, tp_catalog.folding(), '')
$$;

-- Most texts have no word in them, not even in a literal, that could matter.
CREATE OR REPLACE FUNCTION tp_catalog.dynamic(statement text) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED AS $dynamic$
BEGIN
    IF statement COLLATE pg_catalog."C" OPERATOR(pg_catalog.!~*) {suspicious_0}
        AND statement COLLATE pg_catalog."C" OPERATOR(pg_catalog.!~*) {suspicious_1}
        AND statement COLLATE pg_catalog."C" OPERATOR(pg_catalog.!~*) {suspicious_2}
        AND (pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'UTF8'
            OR NOT tp_catalog.is_folded(statement))
        AND NOT (tp_catalog.own_is_public() AND statement COLLATE pg_catalog."C" OPERATOR(pg_catalog.~*) 'public')
    THEN
        RETURN statement;
    END IF;
    RETURN tp_catalog.dynamic_turned(statement);
END $dynamic$;

-- Of other types, which EXECUTE turns to text by itself.
CREATE OR REPLACE FUNCTION tp_catalog.dynamic(statement anyelement) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED AS $dynamic$
BEGIN
    RETURN tp_catalog.dynamic(statement::pg_catalog.text);
END $dynamic$;

CREATE OR REPLACE FUNCTION tp_catalog.dynamic_turned(statement text) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $dynamic$
DECLARE
    rest text COLLATE "C" := statement;
    part text[];
    opener integer;
    tag text;
    ends integer;
    rounds integer := 0;
    -- everything, comments and spaces too
    tokens text[] := '{}';
    -- of what is not comment or space: which token, its name folded or unquoted, and w(ord), q(uoted name),
    -- s(tring) or o(ther)
    place integer[];
    names text[];
    kinds text;
    unread boolean;
    candidates integer[];
    k integer;
    s integer;
    verb_at integer;
    name text;
    target text;
    previous text;
    following text;
    word boolean;
    called boolean;
    code boolean := false;
    changed boolean := false;
    system_columns boolean;
    refused text;
    schema text;
    -- what `public` means, if not itself
    own text := CASE WHEN tp_catalog.own_is_public() THEN quote_ident(tp_catalog.own_schema()) END;
BEGIN
    <<reading>>
    BEGIN
        IF current_setting('standard_conforming_strings') <> 'on' OR rest ~* 'u&[''"]' THEN
            refused := 'SQL made at run time can''t be read';
            EXIT reading;
        END IF;

        LOOP
            part := ARRAY(SELECT m[1] FROM regexp_matches(rest, {token}, 'g') AS m);
            opener := NULL;
            IF rest ~ {dollar} THEN
                opener := (SELECT min(u.n) FROM unnest(part) WITH ORDINALITY AS u (t, n)
                           WHERE u.t COLLATE "C" ~ {dollar_alone});
            END IF;
            IF opener IS NULL THEN
                tokens := tokens || part;
                EXIT;
            END IF;
            tag := part[opener];
            rest := substr(rest, length(array_to_string(part[:opener], '')) + 1);
            ends := strpos(rest, tag);
            rounds := rounds + 1;
            IF ends = 0 OR rounds > 50 THEN
                refused := 'SQL made at run time can''t be read';
                EXIT reading;
            END IF;
            tokens := tokens || part[:opener - 1] || (tag || left(rest, ends - 1 + length(tag)));
            rest := substr(rest, ends + length(tag));
        END LOOP;

        SELECT array_agg(x.n ORDER BY x.n),
               array_agg(CASE x.kind WHEN 'q' THEN replace(substr(x.t, 2, greatest(length(x.t) - 2, 0)), '""', '"')
                                     ELSE lower(x.t) END ORDER BY x.n),
               string_agg(x.kind, '' ORDER BY x.n),
               bool_or(x.t IN ('''', '"') OR x.t LIKE '/*%/*%')
        INTO place, names, kinds, unread
        FROM (SELECT u.n, u.t COLLATE "C",
                     CASE WHEN u.t COLLATE "C" ~ '^(?:[ \t\n\r\f\v]|--|/\*.)' THEN 'c'
                          WHEN u.t LIKE '"%' THEN 'q'
                          WHEN u.t COLLATE "C" ~ '^(?:[eE]?''|\$[^0-9])' THEN 's'
                          WHEN u.t COLLATE "C" ~ {word_start} THEN 'w'
                          ELSE 'o' END
              FROM unnest(tokens) WITH ORDINALITY AS u (t, n)) AS x (n, t, kind);
        -- comments are left out of what is looked at, but were to be checked
        SELECT array_agg(p.n ORDER BY p.n), array_agg(p.name ORDER BY p.n), string_agg(p.kind, '' ORDER BY p.n)
        INTO place, names, kinds
        FROM unnest(place, names, string_to_array(kinds, NULL)) AS p (n, name, kind)
        WHERE p.kind <> 'c';
        IF place IS NULL AND unread IS NOT TRUE THEN
            RETURN statement;
        END IF;
        -- two strings in a row are one
        unread := unread OR getdatabaseencoding() <> 'UTF8' AND EXISTS (
            SELECT FROM unnest(place, string_to_array(kinds, NULL)) AS p (n, kind)
            WHERE p.kind = 'w' AND tp_catalog.is_folded(tokens[p.n]));
        IF unread OR strpos(kinds, 'ss') > 0 THEN
            refused := 'SQL made at run time can''t be read';
            EXIT reading;
        END IF;
        system_columns := names && ARRAY[{system_columns}];

        candidates := ARRAY(
            SELECT u.k FROM unnest(names) WITH ORDINALITY AS u (name, k)
            WHERE (lower(u.name COLLATE "C") = ANY (ARRAY[{exact}]) OR u.name COLLATE "C" ~* {beginnings}
                   OR own IS NOT NULL AND u.name = 'public')
                AND substr(kinds, u.k::integer, 1) IN ('w', 'q')
            ORDER BY u.k);
        FOREACH k IN ARRAY candidates LOOP
            name := names[k];
            word := substr(kinds, k, 1) = 'w';
            previous := COALESCE(tokens[place[k - 1]], ';');
            following := COALESCE(tokens[place[k + 1]], ';');

            IF lower(name) ~ '^(?:tenant_proxy|set_user|tp_catalog|tp_information_schema)' THEN
                refused := format('permission denied for %s', name);
                EXIT reading;
            ELSIF name = 'public' THEN
                IF following = '.' AND previous <> '.' OR previous = '.' AND following = '.' AND k > 2
                    OR lower(previous) = 'schema'
                THEN
                    tokens[place[k]] := own;
                    changed := true;
                END IF;
                CONTINUE;
            ELSIF name = 'information_schema' THEN
                IF following = '.' AND names[k + 2] = ANY (ARRAY[{information}]) THEN
                    tokens[place[k]] := 'tp_information_schema';
                    changed := true;
                END IF;
                CONTINUE;
            END IF;

            -- --- names of functions and relations -------------------------------------------------------
            IF name = 'pg_catalog' THEN
                CONTINUE WHEN following <> '.';
                target := names[k + 2];
                called := COALESCE(tokens[place[k + 3]] = '(', false);
            ELSE
                target := name;
                called := following = '(';
            END IF;
            -- x.f calls f(x)
            IF target ~ {refused_patterns} AND (called OR previous = '.')
                OR lower(target) ~ '^crosstab' AND previous = '.' AND NOT called
            THEN
                refused := format('permission denied for function %s', target);
                EXIT reading;
            END IF;
            IF previous = '.' AND name <> 'pg_catalog' THEN
                -- x.f calls f(x); that of a schema of one's own is one's own
                IF names[k - 2] <> 'pg_catalog' AND NOT called
                    AND (target = ANY (ARRAY[{functions}]) OR target = ANY (ARRAY[{checked_functions}])
                        OR target = ANY (ARRAY[{refused_functions}]))
                THEN
                    refused := format('permission denied for function %s', target);
                    EXIT reading;
                END IF;
                CONTINUE;
            END IF;
            schema := NULL;
            IF target = ANY (ARRAY[{refused_relations}]) THEN
                refused := format('permission denied for table %s', target);
                EXIT reading;
            ELSIF target = ANY (ARRAY[{refused_functions}])
                OR (target = ANY (ARRAY[{functions}]) AND NOT called)
            THEN
                refused := format('permission denied for function %s', target);
                EXIT reading;
            ELSIF target = ANY (ARRAY[{functions}]) OR called AND target = ANY (ARRAY[{checked_functions}]) THEN
                schema := 'tp_catalog';
            ELSIF target = ANY (ARRAY[{relations}]) THEN
                IF system_columns AND target = ANY (ARRAY[{system_relations}]) THEN
                    schema := 'tp_catalog_sys';
                ELSE
                    schema := 'tp_catalog';
                END IF;
            END IF;
            IF schema IS NOT NULL THEN
                IF name = 'pg_catalog' THEN
                    tokens[place[k]] := schema;
                    changed := true;
                ELSIF following <> '.' THEN  -- what stands before a column keeps its name
                    tokens[place[k]] := schema || '.' || tokens[place[k]];
                    changed := true;
                END IF;
                CONTINUE;
            END IF;
            CONTINUE WHEN name LIKE 'pg\_%';

            -- --- statements ---------------------------------------------------------------------------------
            verb_at := k;
            WHILE verb_at > 1 AND tokens[place[verb_at - 1]] <> ';' LOOP
                verb_at := verb_at - 1;
            END LOOP;
            IF word AND name IN ('listen', 'unlisten', 'notify') THEN
                IF verb_at = k AND following <> '*' THEN
                    IF substr(kinds, k + 1, 1) NOT IN ('w', 'q') THEN
                        refused := 'SQL made at run time can''t be read';
                        EXIT reading;
                    ELSIF octet_length(names[k + 1]) > 49 THEN
                        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'channel name too long',
                            DETAIL = 'Through the proxy a channel''s name has at most 49 bytes.';
                    END IF;
                    tokens[place[k + 1]] := ' "'
                        || replace(current_setting('tenant_proxy.space') || '.' || names[k + 1], '"', '""') || '"';
                    changed := true;
                ELSIF name = 'notify' AND names[verb_at] = 'create' THEN
                    refused := 'permission denied for a rule with NOTIFY';
                    EXIT reading;
                END IF;
            ELSIF word AND name = 'execute' THEN
                -- values of what was prepared by Parse are judged when they are bound
                IF substr(kinds, k + 1, 1) IN ('w', 'q') AND EXISTS (
                    SELECT FROM pg_prepared_statements p
                    WHERE p.name = names[k + 1]::pg_catalog.name::text AND NOT p.from_sql)
                THEN
                    refused := format('permission denied for prepared statement %s', names[k + 1]);
                    EXIT reading;
                END IF;
            ELSIF word AND name = 'load' AND verb_at = k THEN
                refused := 'permission denied for LOAD';
                EXIT reading;
            ELSIF word AND name IN ('role', 'user') AND verb_at = k - 1 AND names[verb_at] = 'alter' THEN
                refused := 'permission denied to alter role';
                EXIT reading;
            ELSIF word AND (name = 'do' AND verb_at = k
                OR name IN ('function', 'procedure') AND names[verb_at] = 'create' AND k - verb_at <= 3)
            THEN
                code := true;
            ELSIF lower(name) ~ '^crosstab' AND called THEN
                IF substr(kinds, k + 2, 3) NOT LIKE 's%' OR NOT (
                    tokens[place[k + 3]] = ')'
                    OR (tokens[place[k + 3]] = ',' AND tokens[place[k + 5]] = ')'
                        AND substr(kinds, k + 4, 1) IN ('s', 'o')))
                THEN
                    refused := format('permission denied for function %s', name);
                    EXIT reading;
                END IF;
                code := true;
            ELSIF name <> 'user' THEN
                s := k - 1;
                WHILE names[s] IN ('local', 'session') LOOP  -- SET LOCAL SESSION AUTHORIZATION
                    s := s - 1;
                END LOOP;
                CONTINUE WHEN s < 1 OR names[s] NOT IN ('set', 'reset') OR substr(kinds, s, 1) <> 'w'
                    OR NOT (s = verb_at OR names[verb_at] IN ('create', 'alter'));
                name := lower(name);
                CONTINUE WHEN name = 'schema' AND s <> verb_at;
                CONTINUE WHEN name = 'search_path' AND names[s] = 'reset';
                IF name NOT IN ('search_path', 'schema') THEN
                    refused := format('permission denied to set parameter "%s"', name);
                    EXIT reading;
                END IF;
                -- names and commas up to the statement's end
                s := CASE WHEN name = 'schema' THEN k + 1 ELSE k + 2 END;
                LOOP
                    target := CASE substr(kinds, s, 1)
                        WHEN 's' THEN CASE WHEN names[s] LIKE '''%' THEN
                            replace(substr(tokens[place[s]], 2, length(tokens[place[s]]) - 2), '''''', '''') END
                        WHEN 'o' THEN NULL ELSE names[s] END;
                    IF target = 'public' AND own IS NOT NULL THEN
                        tokens[place[s]] := CASE WHEN name = 'schema' THEN quote_literal(tp_catalog.own_schema())
                                                 ELSE own END;
                        changed := true;
                    ELSIF target IS NULL OR NOT (
                        target IN ('', 'pg_catalog', 'pg_temp') OR target = 'default' AND substr(kinds, s, 1) = 'w'
                        OR (target <> 'information_schema' AND target = ANY (tp_catalog.schema_names()::text[])))
                    THEN
                        refused := format('permission denied for schema %s', COALESCE(target, names[s]));
                        EXIT reading;
                    END IF;
                    EXIT WHEN COALESCE(tokens[place[s + 1]], ';') <> ',';
                    s := s + 2;
                END LOOP;
                IF COALESCE(tokens[place[s + 1]], ';') <> ';' AND names[verb_at] NOT IN ('create', 'alter') THEN
                    refused := 'SQL made at run time can''t be read';
                    EXIT reading;
                END IF;
            END IF;
        END LOOP;

        -- code in a string is not read: it may have nothing in it that would have to be
        IF code AND EXISTS (
            SELECT FROM unnest(place, string_to_array(kinds, NULL)) AS p (n, kind)
            WHERE p.kind = 's' AND (tokens[p.n] COLLATE "C" ~* {code}
                OR getdatabaseencoding() <> 'UTF8' AND tp_catalog.is_folded(tokens[p.n])))
        THEN
            refused := 'permission denied for code in SQL made at run time';
        END IF;
    END;

    IF refused IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = refused,
            DETAIL = 'The proxy reads SQL made at run time by its words alone, and refuses what they might mean.',
            HINT = 'Give EXECUTE a constant, or write the statement without EXECUTE.';
    END IF;
    RETURN CASE WHEN changed THEN array_to_string(tokens, '') ELSE statement END;
END $dynamic$;
