-- What PostgREST calls before each request (db-pre-request): it puts who writes, and how, into the
-- WAL, for Bemi to read. Runs as the owner of the schema, or who may make it; safe to run again.
begin;
set local standard_conforming_strings = on;

do $bemi$
begin
    if pg_catalog.to_regnamespace(@schema_name@) is null then
        create schema @schema@;
        comment on schema @schema@ is @schema_comment@;
        grant usage on schema @schema@ to public;
    end if;
end
$bemi$;

-- It has no rights but those of the request's own role, and never fails: what it can't read is as
-- good as absent.
create or replace function @schema@.send_context() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $bemi$
declare
    -- Members of the context, and the claims and headers that they are taken from.
    from_claims constant jsonb := @claims@;
    from_headers constant jsonb := @headers@;
    -- Members that the client may say by itself, in the header bemi-context; * is all.
    trusted constant text[] := @trusted@;

    longest_text constant int := 1024;
    longest_value constant int := 16384;
    longest_message constant int := 1048576;
    deepest constant int := 64;
    longest_path constant int := 2048;
    most_notes constant int := 100;
    largest_number constant numeric := 1.797693134862315e308;

    writes boolean := false;
    method text;
    ellipsis text := '...';
    unstorable text := '?';
    source text;
    parsed jsonb;
    headers jsonb := '{}';
    claims jsonb := '{}';
    given jsonb := '{}';
    context jsonb := '{}';
    notes jsonb;
    places jsonb;
    place record;
    content text;
begin
    begin
        method := upper(current_setting('request.method', true));
        if method is null or method not in ('POST', 'PATCH', 'PUT', 'DELETE')
            or current_setting('transaction_read_only') = 'on'
            or not exists (
                select from pg_proc p
                where p.pronamespace = 'pg_catalog'::regnamespace
                    and p.proname = 'pg_logical_emit_message'
                    and p.proargtypes[2] = 'text'::regtype
                    and has_function_privilege(p.oid, 'execute')
            )
        then
            return;
        end if;
        writes := true;

        -- As a statement of its own: in one expression with another choice it is evaluated before
        -- it is chosen, and in other encodings there is no such character.
        if getdatabaseencoding() = 'UTF8' then
            ellipsis := chr(8230);
            unstorable := '\\ufffd';
        end if;

        for part in 1..3 loop
            continue when part = 3 and cardinality(trusted) = 0;
            source := case part
                when 1 then current_setting('request.headers', true)
                when 2 then current_setting('request.jwt.claims', true)
                else headers ->> 'bemi-context'
            end;
            continue when source is null or source = ''
                or (part = 3 and octet_length(source) > longest_value);
            parsed := null;
            for attempt in 1..2 loop
                begin
                    parsed := source::jsonb;
                    exit;
                exception when others then
                    -- jsonb has neither a NUL nor half a surrogate pair.
                    source := regexp_replace(
                        source,
                        '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})',
                        '\1' || unstorable, 'g'
                    );
                end;
            end loop;
            continue when parsed is null or jsonb_typeof(parsed) <> 'object';
            if part = 1 then
                headers := parsed;
            elsif part = 2 then
                claims := parsed;
            else
                given := parsed;
            end if;
        end loop;

        select coalesce(jsonb_object_agg(g.key, g.value), '{}') into context
        from jsonb_each(given) g
        where ('*' = any(trusted) or g.key = any(trusted)) and g.key <> '_bemi';

        -- What the client had to alter, of what is taken from it.
        select jsonb_object_agg(k.kind, (
            select coalesce(jsonb_agg(n.path), '[]')
            from jsonb_array_elements_text(
                case when jsonb_typeof(given #> array['_bemi', k.kind]) = 'array'
                    then given #> array['_bemi', k.kind] end
            ) n (path)
            where context ? split_part(n.path, '.', 1)
        )) into notes
        from unnest(array['truncated', 'replaced', 'redacted']) k (kind);

        context := context || jsonb_strip_nulls(jsonb_build_object(
            'request_id', coalesce(
                nullif(left(regexp_replace(
                    headers ->> 'x-request-id', '[^A-Za-z0-9._~:/+=@-]+', '', 'g'
                ), 128), ''),
                context ->> 'request_id',
                gen_random_uuid()::text
            ),
            'trace_id', substring(
                headers ->> 'traceparent'
                from '^(?!ff|00-.{52}-)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-'
                    '(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?$'
            )
        ));
        context := context || coalesce((
            select jsonb_object_agg(h.key, headers -> h.value)
            from jsonb_each_text(from_headers) h where headers ? h.value
        ), '{}');
        context := context || coalesce((
            select jsonb_object_agg(c.key, f.value)
            from jsonb_each_text(from_claims) c
            cross join lateral (
                select coalesce(claims -> c.value, claims #> string_to_array(c.value, '.'))
            ) f (value)
            where jsonb_typeof(f.value) <> 'null'
        ), '{}');
        context := context || jsonb_build_object(
            'method', method, 'endpoint', current_setting('request.path', true)
        );

        with recursive named (path, value, secret) as (
            select array[m.key], m.value, s.secret
            from jsonb_each(context) m
            cross join lateral (
                select regexp_replace(lower(m.key), '[\W_]+', '', 'g')
            ) n (name)
            cross join lateral (
                select n.name ~ @secret@
                    or (n.name ~ @secrets@ and jsonb_typeof(m.value) not in ('number', 'boolean'))
            ) s (secret)
            union all
            select m.path || c.key, c.value, s.secret
            from named m
            cross join lateral (
                select o.key, o.value, regexp_replace(lower(o.key), '[\W_]+', '', 'g')
                from jsonb_each(
                    case when jsonb_typeof(m.value) = 'object' then m.value end
                ) o
                union all
                select (a.number - 1)::text, a.value, ''
                from jsonb_array_elements(
                    case when jsonb_typeof(m.value) = 'array' then m.value end
                ) with ordinality a (value, number)
            ) c (key, value, name)
            cross join lateral (
                select c.name ~ @secret@
                    or (c.name ~ @secrets@ and jsonb_typeof(c.value) not in ('number', 'boolean'))
            ) s (secret)
            where not m.secret and cardinality(m.path) < deepest
                and pg_column_size(m.path) <= longest_path
        ), altered as (
            select n.path, case
                when n.secret then 'redacted'
                when jsonb_typeof(n.value) = 'number'
                    and (abs(n.value::numeric) > largest_number or scale(n.value::numeric) > 400)
                then 'replaced'
                when jsonb_typeof(n.value) in ('object', 'array')
                    and (cardinality(n.path) = deepest or pg_column_size(n.path) > longest_path)
                then 'replaced'
            end as kind, jsonb_typeof(n.value) as type
            from named n
        )
        select coalesce(jsonb_agg(jsonb_build_object(
            'path', a.path, 'kind', a.kind,
            'value', case a.kind when 'redacted' then '***' else a.type end
        )), '[]') into places
        from altered a where a.kind is not null;

        if jsonb_array_length(places) > most_notes then
            -- Nobody's context: it is not worth the time to mend it.
            for place in
                select distinct p.value -> 'path' ->> 0 as name
                from jsonb_array_elements(places) p
            loop
                context := context || jsonb_build_object(place.name, null);
                notes := jsonb_set(
                    notes, '{truncated}', (notes -> 'truncated') || to_jsonb(place.name)
                );
            end loop;
        else
            for place in
                select array(select jsonb_array_elements_text(p.value -> 'path')) as path,
                    p.value ->> 'kind' as kind, p.value -> 'value' as value
                from jsonb_array_elements(places) p
            loop
                context := jsonb_set(context, place.path, place.value);
                notes := jsonb_set(
                    notes, array[place.kind],
                    (notes -> place.kind) || to_jsonb(left(array_to_string(place.path, '.'), 200))
                );
            end loop;
        end if;

        for place in
            select m.key as name, case jsonb_typeof(m.value)
                when 'string'
                then to_jsonb(left(m.value #>> '{}', longest_text - 1) || ellipsis)
            end as value
            from jsonb_each(context) m
            where case jsonb_typeof(m.value)
                when 'string' then length(m.value #>> '{}') > longest_text
                when 'object' then octet_length(m.value::text) > longest_value
                when 'array' then octet_length(m.value::text) > longest_value
                else false
            end
        loop
            context := context || jsonb_build_object(place.name, place.value);
            notes := jsonb_set(
                notes, '{truncated}', (notes -> 'truncated') || to_jsonb(left(place.name, 200))
            );
        end loop;

        select jsonb_object_agg(n.key, n.paths) into notes
        from (
            select k.key, jsonb_agg(
                case when p.number <= most_notes then p.path else ellipsis end order by p.number
            ) as paths
            from jsonb_each(notes) k
            cross join lateral (
                select d.path, row_number() over (order by d.number) as number
                from (
                    select e.path, min(e.number) as number
                    from jsonb_array_elements_text(k.value) with ordinality e (path, number)
                    group by e.path
                ) d
            ) p
            where p.number <= most_notes + 1
            group by k.key
        ) n;
        if notes is not null then
            context := context || jsonb_build_object('_bemi', notes);
        end if;
        content := context::text;
        if octet_length(content) > longest_message then
            content := null;
        end if;
    exception when others then
        content := null;
    end;
    if not writes then
        return;
    end if;
    perform pg_logical_emit_message(true, '_bemi', coalesce(
        content, jsonb_build_object('method', method, '_bemi', '{"truncated": [""]}'::jsonb)::text
    ));
end
$bemi$;

grant execute on function @schema@.send_context() to public;
comment on function @schema@.send_context() is @comment@;
commit;
