-- Turns a stored image back into a row of its table's type; `flags` are those of the change.
-- What the image does not have, or has a replacement for, stays as it is in `base`.
-- Runs with its caller's rights, and with the settings under which values are read again.
create function populate(base anyelement, image jsonb, flags text[] default null) returns anyelement
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
set lc_monetary = 'C'
set xmloption = 'content'
set array_nulls = on
as $$
declare
    result alias for $0;
    of_type oid := pg_typeof(base);
    relation oid;
    stored jsonb := image;
    unset text[];       -- columns that neither the image nor the base has a value for
    texts text[];       -- columns of JSON whose text is in the image, as a string
    json_nulls text[];  -- columns whose null in the image is JSON's
    expressions text;
begin
    if flags is not null then
        image := image - array(
            select substr(flag, strpos(flag, ':') + 1)
            from unnest(flags) flag
            where flag like any (array['masked:%', 'hashed:%', 'undecodable:%'])
        );
        texts := array(select substr(flag, 6) from unnest(flags) flag where flag like 'text:%');
        json_nulls := array(
            select substr(flag, 11) from unnest(flags) flag
            where flag like 'json\_null:%' and image -> substr(flag, 11) = 'null'
        );
    end if;
    if image is null or image = '{}' then
        return base;
    end if;

    loop
        select typrelid, typbasetype into relation, of_type from pg_type where oid = of_type;
        exit when of_type is null or of_type = 0;
    end loop;
    if texts || json_nulls <> '{}' then
        -- All other types take their text from a string.
        select
            array_agg(a.attname) filter (where a.attname = any (texts)),
            array_agg(a.attname) filter (where a.attname = any (json_nulls))
        into texts, json_nulls
        from pg_attribute a
        join pg_type t on t.oid = a.atttypid
        where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
            -- A domain has that of the type it is made of.
            and t.typoutput in ('json_out'::regproc, 'jsonb_out'::regproc)
            and image ? a.attname::text;
        image := image - coalesce(texts || json_nulls, '{}');
    end if;

    -- A domain may refuse null. Where there is no row to take a value from, what is missing
    -- would be given to its input function as null; a row of nulls is not questioned.
    result := base;
    if base is null then
        select array_agg(a.attname) into unset
        from pg_attribute a
        join pg_type t on t.oid = a.atttypid
        where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
            and t.typtype = 'd' and coalesce(image -> a.attname::text, 'null') = 'null';
        if unset is not null then
            image := image - unset;
            execute 'select ($1).*' into result using base;
        end if;
    end if;
    result := jsonb_populate_record(result, image);

    if texts || json_nulls <> '{}' then
        select string_agg(
            case
                when a.attname = any (texts) then format('($2 ->> %L)::json', a.attname)
                when a.attname = any (json_nulls) then '''null''::json'
                else format('($1).%I', a.attname)
            end,
            ', ' order by a.attnum
        )
        into expressions
        from pg_attribute a
        where a.attrelid = relation and a.attnum > 0 and not a.attisdropped;
        execute 'select ' || expressions into result using result, stored;
    end if;
    return result;
end
$$;
