-- States: what rows were at a position, that is, after all transactions that commit at or before
-- it. Everything goes through `part_query`, which proves that the history knows the rows of a
-- table at a position, and returns the text of the SELECT that has them: the functions of this
-- file execute it, Bemi streams it, and the views of `bemi travel` are made of it.
--
-- What is asked for each question is PL/pgSQL, whose plans a session keeps: before PostgreSQL 18
-- those of SQL are made each time. What people ask runs without `jit`: the planner takes each
-- function for a thousand rows, and a question of a millisecond would be compiled for a second.
--
-- Functions run as their caller, and read what a reader may read. What the history can't tell is an
-- error with a code of our own: TT001 it is not known, TT002 the question means nothing, TT003
-- it is not captured yet.

-- Whether an event trigger said it, at that very place.
alter table table_versions add column told boolean not null default false;
-- How many columns the catalog had numbered when it was read, those that were dropped too.
alter table table_versions add column attributes int not null default 0;
create or replace view schema_history as
select
    s.name as source,
    v.epoch::bigint as epoch,
    v.relation,
    v.schema,
    v."table",
    v.partition,
    v.from_position,
    v.from_ordinal,
    v.columns,
    v.primary_key,
    v.replica_identity,
    v.inferred,
    v.told
from table_versions v
join sources s using (source_id);

-- Ends with what tells a change from all others: the last change of each key is found in the
-- index alone.
create index on row_changes ("table", primary_key, commit_position desc, ordinal desc)
    include (committed_at, epoch, relation);
drop index row_changes_table_primary_key_commit_position_idx;
-- The same for changes that ended a key.
create index on row_changes ("table", previous_key, commit_position desc, ordinal desc)
    include (committed_at, epoch, relation) where previous_key is not null;
drop index row_changes_table_previous_key_idx;

-- The changes with their relation, and the number of their context: nothing but columns of one
-- table, and no join that a planner would have to leave out.
create view images as
select
    r.epoch,
    r.relation,
    r.schema,
    r."table",
    r.primary_key,
    r.previous_key,
    r.operation,
    r.committed_at,
    r.commit_position,
    r.ordinal,
    r.flags,
    coalesce(r.before, r.after || r.changed) as before,
    r.after,
    r.context_id
from row_changes r;

-- The contexts with what tells them apart: changes are looked up by it.
create view stretches as select c.id, c.context from contexts c;

-- A row as it was, and what is special or not known of it.
create type state as (image jsonb, flags text[]);

create function refuse(code text, told text, fix text) returns void
language plpgsql immutable
as $$
begin
    raise exception using errcode = code, message = told, hint = fix;
end
$$;

create function lsn(commit_position bigint) returns pg_lsn
language sql immutable strict parallel safe
as $$ select '0/0'::pg_lsn + commit_position $$;

create function spell(at timestamptz) returns text
language sql immutable strict parallel safe
as $$
    select case when isfinite(at) then
        to_char(at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
        || case when at < '0001-01-01 00:00+00' then ' BC' else '' end
        || coalesce('.' || nullif(rtrim(to_char(at at time zone 'UTC', 'US'), '0'), ''), '')
        || ' UTC'
    when at > '0001-01-01 00:00+00' then 'infinity' else '-infinity' end
$$;

-- The table's name as the history writes it: without a schema it is one in `public`.
create function qualified(name text) returns text
language sql immutable strict parallel safe
as $$ select case when strpos(name, '.') = 0 then 'public.' || name else name end $$;

-- The source that has, or had, a table of that name; without a name, the only one there is.
create function source_of(name text) returns text
language plpgsql stable set search_path from current
as $$
declare
    of_table constant text := qualified(name);
    found_names text[];
begin
    if name is null then
        found_names := array(select s.name from sources s order by s.name);
        if found_names = '{}' then
            perform refuse('TT001', 'the history has no source', 'run `bemi init`');
        end if;
    else
        found_names := array(
            select s.name from sources s
            where exists (
                select from relation_names n
                where n.source_id = s.source_id and (n.schema || '.' || n."table" = of_table
                    or n.partition = of_table)
            ) or exists (
                select from intervals i
                where i.source_id = s.source_id and (i.schema || '.' || i."table" = of_table
                    or i.partition = of_table)
            )
            order by s.name
        );
        if found_names = '{}' then
            perform refuse('TT001', of_table || ' is not in the history',
                '`bemi status --coverage` lists the tables that are');
        end if;
    end if;
    if array_length(found_names, 1) > 1 then
        perform refuse('TT002',
            coalesce(of_table || ' is in the history of several sources', 'there are several sources')
            || ': ' || array_to_string(found_names, ', '),
            'say which source is meant: --source, or source => in SQL, source= in Python');
    end if;
    return found_names[1];
end
$$;

-- The greatest position whose commit is at or before a time; `captured`: proof that more is stored
-- than the last transaction says. Commit times may be out of order for as long as it takes to
-- write a commit down: ten seconds are more than that.
create function resolve(source text, at timestamptz, captured timestamptz default null)
returns table (epoch int, "position" bigint)
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
declare
    held record;
    ours int[];
    last timestamptz;
    until timestamptz;
    found_epoch int;
    found_position bigint;
begin
    select greatest(k.committed_at, k.captured_at) as captured_at, k.epoch, k.position into held
    from checkpoints k join sources s using (source_id) where s.name = resolve.source;
    if not found then
        perform refuse('TT001', format('there is no source %s in the history', resolve.source),
            '`bemi status` lists them');
    end if;
    until := greatest(held.captured_at, resolve.captured);
    if until is null or resolve.at > until then
        perform refuse('TT003',
            format('what %s was at %s is not known yet: %s', resolve.source, spell(resolve.at),
                coalesce('captured until ' || spell(until), 'nothing is captured yet')),
            'ask for that time or an earlier one, or wait (--wait, or wait=): later ones become known'
            ' with the next transaction that is captured, or within seconds while a worker runs');
    end if;
    ours := array(select e.epoch from epochs e join sources s using (source_id)
        where s.name = resolve.source);
    select r.committed_at into last from images r
    where r.committed_at <= resolve.at and r.epoch = any (ours)
    order by r.committed_at desc limit 1;
    -- What committed last by then; or a table that was seen without rows, or began to be covered.
    select each.epoch, each.position into found_epoch, found_position
    from (
        (select r.epoch, r.commit_position as position from images r
        where r.committed_at <= resolve.at and r.committed_at >= last - interval '10 seconds'
            and r.epoch = any (ours)
        order by r.epoch desc, r.commit_position desc limit 1)
        union all
        (select i.epoch, p.position
        from intervals i
        cross join lateral (select greatest(i.from_position,
            case when i.state_by = 'empty' then i.state_position end) as position) p
        where i.opened_at <= resolve.at and i.epoch = any (ours)
            and not exists (select from images r
                where r.commit_position = p.position and r.epoch = i.epoch
                    and r.committed_at > resolve.at)
        order by 1 desc, 2 desc limit 1)
    ) each
    order by each.epoch desc, each.position desc limit 1;
    if not found then
        perform refuse('TT001',
            format('the history of %s begins after %s', resolve.source, spell(resolve.at)),
            'ask for a later time');
    end if;
    -- An interval may begin behind what is stored: until then it says nothing.
    if (found_epoch, found_position) > (held.epoch, held.position - 1) then
        found_epoch := held.epoch;
        found_position := held.position - 1;
    end if;
    return query select found_epoch, found_position;
end
$$;

-- Where a question is about: exactly one of a time, a commit's position and an LSN is given.
-- `name`: what is asked about, for what is said where the history does not reach that far.
create function place_at(
    name text, at timestamptz, commit_position bigint, lsn pg_lsn, asked_epoch bigint,
    asked_source text
) returns table (source_id smallint, source text, epoch int, "position" bigint)
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
declare
    given constant int := num_nonnulls(at, commit_position, lsn);
    of_source constant text := coalesce(asked_source, source_of(name));
    asked bigint := case when lsn is null then commit_position
        else (least(lsn, '7FFFFFFF/FFFFFFFF'::pg_lsn) - '0/0'::pg_lsn)::bigint end;
    of_epoch bigint := asked_epoch;
    held record;
begin
    if at is not null and asked_epoch is not null then
        perform refuse('TT002', 'a time has no epoch', 'give it with a position only');
    end if;
    if given <> 1 then
        perform refuse('TT002',
            case given when 0 then 'it takes a time or a position to tell a state'
                else 'a time and a position are two moments' end,
            'give one of: a time, commit_position => or lsn =>');
    end if;
    if asked < 0 or not isfinite(at) then
        perform refuse('TT002', format('%s is no moment of a history',
            coalesce(asked::text, spell(at))), 'give a time, or a position of the source''s log');
    end if;
    select s.source_id, k.epoch, k.position into held
    from sources s left join checkpoints k using (source_id) where s.name = of_source;
    if not found or held.epoch is null then
        perform refuse('TT001', format('there is no source %s in the history', of_source),
            '`bemi status` lists them');
    end if;
    if at is not null then
        select r.epoch, r.position into of_epoch, asked from resolve(of_source, at) r;
    else
        of_epoch := coalesce(of_epoch, held.epoch);
        if not exists (select from epochs e
            where e.epoch = of_epoch and e.source_id = held.source_id)
        then
            perform refuse('TT002', format('%s has no epoch %s', of_source, of_epoch),
                'the column `epoch` of the relation `changes` has them');
        end if;
        if of_epoch = held.epoch and asked >= held.position then
            perform refuse('TT003',
                format('%s at %s is not captured yet: the history of %s ends at %s',
                    coalesce(qualified(name), of_source), lsn(asked), of_source,
                    lsn(held.position)),
                'wait for it (--wait, or wait=), or ask for an earlier position');
        end if;
    end if;
    return query select held.source_id::smallint, of_source, of_epoch::int, asked;
end
$$;

-- The relations that were called so: a table, or the partitions of one.
create function called(
    of_source smallint, of_epoch int, at_position bigint, name text, allow_gaps boolean
) returns table (relation oid, called text)
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
declare
    each record;
    known boolean := false;
    borne boolean := false;
    bearer text[];
begin
    for each in
        select o.relation, t.name as then_name, t.partition as then_partition,
            case when called.name = t.name then array[t.schema] else array[t.schema, t.name] end
                as bearer,
            coalesce(called.name in (t.name, t.partition), false) as is_called,
            f.after_position, f.from_position, f.name as next_name, f.partition as next_partition,
            coalesce(called.name in (f.name, f.partition), false) as next_called
        from (
            select distinct n.relation from relation_names n
            where n.source_id = of_source and n.epoch = of_epoch
                and (n.schema || '.' || n."table" = called.name or n.partition = called.name)
        ) o
        left join lateral (
            select n.schema, n.schema || '.' || n."table" as name, n.partition
            from relation_names n
            where n.source_id = of_source and n.epoch = of_epoch and n.relation = o.relation
                and n.from_position <= at_position
            order by n.from_position desc limit 1
        ) t on true
        left join lateral (
            select n.schema || '.' || n."table" as name, n.partition, n.from_position,
                n.after_position
            from relation_names n
            where n.source_id = of_source and n.epoch = of_epoch and n.relation = o.relation
                and n.from_position > at_position
            order by n.from_position limit 1
        ) f on true
        order by o.relation
    loop
        known := true;
        if each.after_position < at_position and each.next_called <> each.is_called
            and not allow_gaps
        then
            perform refuse('TT001',
                format('%s at %s is not known: between %s and %s, %s was made, renamed, attached,'
                    ' detached or dropped (table_dropped)',
                    called.name, lsn(at_position), lsn(each.after_position),
                    lsn(each.from_position),
                    case when each.then_name is null then coalesce(each.next_partition, each.next_name)
                        else coalesce(each.then_partition, each.then_name) end),
                'ask for a position before or behind that');
        end if;
        if each.is_called then
            -- Names may have dots in them.
            if borne and bearer <> each.bearer then
                perform refuse('TT002', format('%s is the name of several tables', called.name),
                    'their names and schemas have dots in them, by which they can''t be told apart');
            end if;
            borne := true;
            bearer := each.bearer;
            relation := each.relation;
            called := coalesce(each.then_partition, each.then_name);
            return next;
        end if;
    end loop;
    if not known then
        perform refuse('TT001',
            format('%s is not in the history of %s', called.name,
                (select s.name from sources s where s.source_id = of_source)),
            '`bemi status --coverage` lists the tables that are');
    elsif not borne then
        perform refuse('TT001',
            format('%s at %s is not known: it was not tracked then under that name, or was dropped'
                ' before (table_dropped)', called.name, lsn(at_position)),
            '`bemi status --coverage` shows from where to where it is');
    end if;
end
$$;

-- The columns and the key that a table had when, the oldest first. A column is its number,
-- whatever it is called; where the catalog no longer knew it when its change was read, it is the
-- one that had its name and type before. `rewritten`: until where DDL may have given rows other
-- values in the key's columns.
create function shapes(of_source smallint, of_epoch int, of_relation oid, until bigint)
returns table (
    commit_position bigint, ordinal int, columns jsonb, key jsonb, rewritten bigint
)
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
declare
    each record;
    last jsonb := '[]';
begin
    for each in
        select v.from_position, v.from_ordinal, v.columns, v.primary_key, (
            select max(g.to_position) from gaps g
            where g.source_id = v.source_id and g.epoch = v.epoch and g.relation = v.relation
                and g.columns && v.primary_key
                and g.to_position = greatest(v.read_position, v.from_position)
        ) as rewritten
        from table_versions v
        where v.source_id = of_source and v.epoch = of_epoch and v.relation = of_relation
            and v.from_position <= until
        order by v.from_position, v.from_ordinal
    loop
        commit_position := each.from_position;
        ordinal := each.from_ordinal;
        -- One that has another type by now: the stream will tell where.
        rewritten := case when not exists (
            select from jsonb_array_elements(each.columns) c
            where c ->> 'number' = '0' and c ->> 'name' = any (each.primary_key)
        ) then each.rewritten end;
        last := (
            select coalesce(jsonb_agg(jsonb_build_object(
                'name', c.c -> 'name',
                'type_oid', c.c -> 'type_oid',
                'filled', coalesce(c.c -> 'filled', 'false'),
                'number', case when c.c ->> 'number' <> '0' then c.c -> 'number' else coalesce((
                    select l -> 'number' from jsonb_array_elements(last) l
                    where l -> 'name' = c.c -> 'name' and l -> 'type_oid' = c.c -> 'type_oid'
                    limit 1
                ), '0') end
            ) order by c.nth), '[]')
            from jsonb_array_elements(each.columns) with ordinality c (c, nth)
        );
        columns := last;
        key := (
            select coalesce(jsonb_agg(jsonb_build_array(
                case when c ->> 'number' <> '0' then c -> 'number' else c -> 'name' end,
                c -> 'type_oid'
            ) order by k.nth), '[]')
            from unnest(each.primary_key) with ordinality k (name, nth)
            join jsonb_array_elements(last) c on c ->> 'name' = k.name
        );
        return next;
    end loop;
end
$$;

-- Where rows may have got other keys behind a position: the commit positions from and until. Of
-- another key, the stream tells where it begins. That its values were rewritten is seen in the
-- catalog only, at the first change behind that, or before where the stream is late.
create function key_changes(
    of_source smallint, of_epoch int, of_relation oid, start bigint,
    until bigint default 9223372036854775807
) returns table (from_position bigint, until_position bigint)
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
begin
    return query
    select s.commit_position,
        case when s.altered then s.commit_position else s.rewritten end
    from (
        select s.*, lag(s.key) over (order by s.commit_position, s.ordinal) <> s.key as altered
        from shapes($1, $2, $3, $5) s
    ) s
    where case when s.altered then s.commit_position else s.rewritten end > $4;
end
$$;

-- The column of an older shape that a column is; `namesake`: the one that had its name.
create function found_in(columns jsonb, now jsonb) returns table (found jsonb, namesake jsonb)
language sql immutable
as $$
    select coalesce(n.numbered, case
        when n.namesake ->> 'number' = '0' or $2 ->> 'number' = '0' then n.namesake
    end), n.namesake
    from (select
        (select c from jsonb_array_elements($1) c
        where c -> 'number' = $2 -> 'number' and c ->> 'number' <> '0' limit 1) as numbered,
        (select c from jsonb_array_elements($1) c
        where c -> 'name' = $2 -> 'name' limit 1) as namesake
    ) n
$$;

-- The type that a domain is made of in the end, which the columns of versions have; of another
-- type itself.
create function based_on(of_source smallint, of_epoch int, of_type bigint) returns bigint
language sql stable set search_path from current
as $$
    with recursive under as (
        select $3 as oid, 0 as nth
        union all
        select (d.definition ->> 'type_oid')::bigint, u.nth + 1
        from under u
        cross join lateral (
            select d.definition from definitions d join sources s on s.name = d.source
            where s.source_id = $1 and d.epoch = $2 and d.kind = 'domain' and d.oid = u.oid::oid
                and d.definition is not null
            order by d.from_position desc limit 1
        ) d
        where u.oid >= 16384
    )
    select u.oid from under u order by u.nth desc limit 1
$$;

-- Of a partition, the table above it that the looks at the catalog describe in its place.
create function root_of(of_source smallint, of_epoch int, of_relation oid, at_position bigint)
returns oid
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
begin
    return (
        select d.oid
        from (
            select n.schema, n."table", n.partition from relation_names n
            where n.source_id = $1 and n.epoch = $2 and n.relation = $3 and n.from_position <= $4
            order by n.from_position desc limit 1
        ) n
        join definitions d on d.schema = n.schema and d.name = n."table"
        join sources s on s.name = d.source
        where n.partition is not null and s.source_id = $1 and d.epoch = $2
            and d.kind = 'table' and d.from_position <= $4
        order by d.from_position desc limit 1
    );
end
$$;

-- The columns that a look at the catalog has seen behind the last change that showed some, if they
-- are others: altered tables have no change yet. `since`, `known`: where that change was, and its
-- columns. `filled`: rows may have a value that nothing told. One of another type may have been
-- rewritten. Of a partition only the table above is looked at, whose columns have the same names
-- and numbers of their own: what was called like one of the known columns when these were shown.
-- One that came since has a negative number.
create function seen_columns(
    of_source smallint, of_epoch int, of_relation oid, until bigint, since bigint, known jsonb
) returns table (commit_position bigint, columns jsonb)
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
begin
    return query
    with above as (
        select root_of($1, $2, $3, $4) as root
    ),
    versions as (
        select a.root, d.from_position, d.after_position, d.definition -> 'columns' as columns
        from above a
        join definitions d on d.oid = coalesce(a.root, $3)
        join sources s on s.name = d.source
        where s.source_id = $1 and d.epoch = $2 and d.kind = 'table' and d.from_position <= $4
    ),
    shown as (
        select v.columns
        from (
            (select * from versions v where v.from_position <= $5
            order by v.from_position desc limit 1)
            union all
            -- It was altered between two looks, and the known columns were shown between them.
            (select n.* from (
                select * from versions v where v.from_position > $5 order by v.from_position limit 1
            ) n where n.after_position is null or n.after_position < $5)
        ) v
        where array(
            select c ->> 'name' from jsonb_array_elements(v.columns) c
            where c ->> 'generated' = '' order by 1
        ) = array(
            select k ->> 'name' from jsonb_array_elements($6) k
            where not exists (
                select from jsonb_array_elements(v.columns) c
                where c -> 'name' = k -> 'name' and c ->> 'generated' <> ''
            )
            order by 1
        )
        order by v.from_position desc limit 1
    ),
    seen as (
        select d.from_position, nameless, jsonb_agg(jsonb_build_object(
            'name', c.c -> 'name',
            'number', coalesce(nullif(k -> 'number', '0'), case
                when d.root is null then c.c -> 'number' else to_jsonb(-(c.c ->> 'number')::int)
            end),
            -- Under the name that the stream's session had for it, if it is the same.
            'type', case when k -> 'type_oid' = o.type_oid
                and (o.type_oid::bigint >= 16384 or c.c -> 'type_oid' <> o.type_oid
                    or k -> 'type' = c.c -> 'type')
                then coalesce(nullif(k -> 'type', 'null'), c.c -> 'type') else c.c -> 'type' end,
            'modifier', coalesce(k -> 'modifier', '-1'),
            'type_oid', o.type_oid,
            -- It may be one that is known by a name of before only.
            'filled', coalesce(k -> 'filled', to_jsonb(
                k is null and (c.c ->> 'default' is not null or c.c ->> 'identity' <> '' or nameless)
            ))
        ) order by c.nth) as columns
        from (select * from versions v order by v.from_position desc limit 1) d
        left join shown t on true
        cross join (
            select exists (select from jsonb_array_elements($6) k where k ->> 'number' = '0')
        ) n (nameless)
        cross join lateral jsonb_array_elements(d.columns) with ordinality c (c, nth)
        left join lateral (
            select k from jsonb_array_elements($6) k
            where case when d.root is null then k -> 'number' = c.c -> 'number'
                    or k ->> 'number' = '0' and k -> 'name' = c.c -> 'name'
                else k -> 'name' = (
                    select o -> 'name' from jsonb_array_elements(t.columns) o
                    where o -> 'number' = c.c -> 'number'
                )
            end
            limit 1
        ) k on true
        cross join lateral (
            select to_jsonb(based_on($1, $2, (c.c ->> 'type_oid')::bigint)) as type_oid
        ) o
        -- Generated ones are sent or not: the stream has told.
        where d.from_position > $5 and (k is not null or c.c ->> 'generated' = '')
            and (d.root is null or t.columns is not null)
        group by d.from_position, nameless
    )
    select s.from_position, s.columns from seen s
    where case when s.nameless then (
            select array_agg(c ->> 'name' order by c ->> 'name')
            from jsonb_array_elements(s.columns) c
        ) <> (select array_agg(k ->> 'name' order by k ->> 'name') from jsonb_array_elements($6) k)
        else (
            (select jsonb_object_agg(c ->> 'number', c -> 'name')
            from jsonb_array_elements(s.columns) c)
            <> (select jsonb_object_agg(k ->> 'number', k -> 'name')
                from jsonb_array_elements($6) k)
            or exists (
                select from jsonb_array_elements(s.columns) c
                join jsonb_array_elements($6) k on k -> 'number' = c -> 'number'
                where c -> 'type_oid' <> k -> 'type_oid' or c -> 'type' <> k -> 'type'
            )
        ) end;
end
$$;

-- Between which positions a table got other columns, where nothing tells at which of them, and the
-- position lies between: one look at the catalog saw it as it was, the next one otherwise. A change
-- shows what it had then, which its transaction is taken to have left so; and an event trigger when
-- it was altered.
create function altered_between(
    of_source smallint, of_epoch int, of_relation oid, at_position bigint, tables text[]
) returns table (after_position bigint, until_position bigint)
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
declare
    looked record;
    held record;
    next record;
begin
    select d.from_position, d.after_position, d.definition -> 'columns' as columns into looked
    from definitions d join sources s on s.name = d.source
    where s.source_id = of_source and d.epoch = of_epoch and d.kind = 'table'
        and d.oid = coalesce(root_of(of_source, of_epoch, of_relation, at_position), of_relation)
        and d.from_position > at_position and d.after_position <= at_position
    order by d.from_position limit 1;
    if not found then
        return;
    end if;
    select s.commit_position, coalesce(n.columns, s.columns) as columns into held
    from (
        select s.* from shapes(of_source, of_epoch, of_relation, at_position) s
        order by s.commit_position desc, s.ordinal desc limit 1
    ) s
    left join lateral seen_columns(of_source, of_epoch, of_relation, at_position,
        s.commit_position, s.columns) n on true;
    if not found or array(
        select c ->> 'name' from jsonb_array_elements(looked.columns) c
        where c ->> 'generated' = '' order by 1
    ) = array(
        select k ->> 'name' from jsonb_array_elements(held.columns) k
        where not exists (
            select from jsonb_array_elements(looked.columns) c
            where c -> 'name' = k -> 'name' and c ->> 'generated' <> ''
        )
        order by 1
    ) then
        return;
    end if;
    select v.from_position, v.told into next from table_versions v
    where v.source_id = of_source and v.epoch = of_epoch and v.relation = of_relation
        and v.from_position > at_position
    order by v.from_position, v.from_ordinal limit 1;
    after_position := greatest(looked.after_position, held.commit_position);
    until_position := least(looked.from_position, next.from_position);
    if next.told is not true and not exists (
        select from images r
        where r."table" = any (tables) and r.relation = of_relation and r.epoch = of_epoch
            and r.commit_position >= at_position
            and r.commit_position < least(looked.from_position, next.from_position)
    ) then
        return next;
    end if;
end
$$;

-- How images of older shapes become those of the last one: from each place on, where they have its
-- columns, or null where they have them alike. `gone`: columns that it has no more.
create function forms(
    of_source smallint, of_epoch int, of_relation oid, start bigint, until bigint
) returns jsonb
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
begin
    return (
        with told as (
            select s.commit_position, s.ordinal, s.columns from shapes($1, $2, $3, $5) s
        ),
        shown as (
            select * from told
            union all
            select n.commit_position, 0, (
                select jsonb_agg(c - 'type') from jsonb_array_elements(n.columns) c
            )
            from (select * from told order by commit_position desc, ordinal desc limit 1) t
            cross join lateral seen_columns($1, $2, $3, $5, t.commit_position, t.columns) n
        ),
        s as (
            select s.*, last_value(s.columns) over all_of_them as now,
                lead(s.commit_position) over in_order as next
            from shown s
            window in_order as (order by s.commit_position, s.ordinal),
                all_of_them as (in_order rows between unbounded preceding and unbounded following)
        ),
        each as (
            select s.commit_position, s.ordinal, s.columns, s.now, s.columns <> s.now as differs
            from s where s.next is null or s.next > $4
        )
        select case when bool_or(e.differs) then jsonb_agg(
            jsonb_build_object('position', e.commit_position, 'ordinal', e.ordinal) ||
            case when e.differs then (
                select jsonb_build_object('columns', jsonb_agg(jsonb_build_object(
                    'called', n ->> 'name',
                    'source', case
                        when b.found is not null then b.found -> 'name'
                        -- What a baseline read was newer than the shape that is known.
                        when b.namesake is null then n -> 'name'
                    end,
                    'filled', b.found is not null or (n ->> 'filled')::boolean or n ->> 'number' = '0'
                )), 'gone', (
                    select coalesce(jsonb_agg(w -> 'name'), '[]')
                    from jsonb_array_elements(e.columns) w
                    where not exists (
                        select from jsonb_array_elements(e.now) n
                        cross join lateral found_in(e.columns, n) b
                        where b.found -> 'name' = w -> 'name'
                    )
                ))
                from jsonb_array_elements(e.now) n
                cross join lateral found_in(e.columns, n) b
            ) else '{"columns": null}' end
            order by e.commit_position, e.ordinal
        ) end
        from each e
    );
end
$$;

-- An image and its flags, which a change at a place left, in the last of the shapes.
create function in_form(
    image jsonb, flags text[], at_position bigint, at_ordinal int, forms jsonb
) returns state
language plpgsql immutable parallel safe set search_path from current
as $$
declare
    form jsonb := (
        select f.f from jsonb_array_elements(nullif(forms, 'null')) with ordinality f (f, nth)
        where ((f.f ->> 'position')::bigint, (f.f ->> 'ordinal')::int) <= (at_position, at_ordinal)
        order by f.nth desc limit 1
    );
begin
    if form is null or form -> 'columns' = 'null' then
        return row(image, flags)::state;
    end if;
    return row(
        (
            select coalesce(jsonb_object_agg(c.called, v.value), '{}')
            from jsonb_to_recordset(form -> 'columns') c (called text, source text, filled boolean)
            cross join lateral (select coalesce(
                image -> c.source, case when not c.filled then 'null'::jsonb end
            ) as value) v
            where v.value is not null
        ),
        (
            select array_agg(case when f.colon = 0 then f.flag else
                left(f.flag, f.colon) || coalesce((
                    select c ->> 'called' from jsonb_array_elements(form -> 'columns') c
                    where c ->> 'source' = f.of_column limit 1
                ), f.of_column) end)
            from (
                select flag, strpos(flag, ':') as colon,
                    substr(flag, strpos(flag, ':') + 1) as of_column
                from unnest(flags) flag
            ) f
            where f.colon = 0 or not form -> 'gone' ? f.of_column
        )
    )::state;
end
$$;

-- A row whose last change left values out that it did not alter: those of before, by the keys that
-- the row had. A baseline's row may stand before a change that was stored when it was not there
-- yet.
create function filled(key text, at_position bigint, at_ordinal int, terms jsonb) returns state
language plpgsql stable parallel safe set search_path from current
as $$
#variable_conflict use_column
declare
    its_tables constant text[] := array(select jsonb_array_elements_text(terms -> 'tables'));
    its_relation constant oid := (terms ->> 'relation')::oid;
    its_epoch constant int := (terms ->> 'epoch')::int;
    start constant bigint := (terms ->> 'start')::bigint;
    until constant bigint := (terms ->> 'position')::bigint;
    each record;
    was state;
    image jsonb;
    flags text[];
    missing text[];
    lacked text;
begin
    for each in
        with recursive back as (
            (select i.operation, i.primary_key, i.previous_key, i.after, i.flags,
                i.commit_position, i.ordinal
            from images i
            where i."table" = any (its_tables) and i.relation = its_relation
                and i.epoch = its_epoch and i.commit_position between start and until
                and i.primary_key = filled.key
                and (i.commit_position, i.ordinal) = (at_position, at_ordinal))
            union all
            select r.* from back b cross join lateral (
                select i.operation, i.primary_key, i.previous_key, i.after, i.flags,
                    i.commit_position, i.ordinal
                from images i
                where i."table" = any (its_tables) and i.relation = its_relation
                    and i.epoch = its_epoch and i.commit_position between start and until
                    and i.primary_key = coalesce(b.previous_key, b.primary_key)
                    and (i.commit_position, i.ordinal) < (b.commit_position, b.ordinal)
                order by i.commit_position desc, i.ordinal desc
                limit 1
            ) r
            where b.operation = 'UPDATE'
                and exists (select from unnest(b.flags) f where starts_with(f, 'unchanged:'))
        )
        select b.after as image_then, b.flags as flags_then, b.commit_position, b.ordinal
        from back b
        order by b.commit_position desc, b.ordinal desc
    loop
        exit when each.image_then is null;
        was := in_form(
            each.image_then, each.flags_then, each.commit_position, each.ordinal, terms -> 'forms'
        );
        if missing is null then
            image := was.image;
            missing := array(select substr(f, 11) from unnest(was.flags) f
                where starts_with(f, 'unchanged:'));
            flags := array(select f from unnest(was.flags) f where not starts_with(f, 'unchanged:'));
        else
            foreach lacked in array missing loop
                if was.image ? lacked then
                    image := image || jsonb_build_object(lacked, was.image -> lacked);
                    flags := flags || array(select f from unnest(was.flags) f
                        where strpos(f, ':') > 0 and substr(f, strpos(f, ':') + 1) = lacked);
                    flags := flags || array(
                        select distinct 'stale:' || lacked
                        from jsonb_array_elements(terms -> 'stale') s
                        where s ->> 'column' = lacked
                            and each.commit_position < (s ->> 'until')::bigint
                    );
                    missing := array_remove(missing, lacked);
                end if;
            end loop;
        end if;
        exit when missing = '{}';
    end loop;
    return row(image, flags || array(select 'unchanged:' || m from unnest(missing) m))::state;
end
$$;

-- A row as its last change left it, in the shape of then, with what is special or not known of it.
-- `oldest`: where it is known from. `terms`: those of its part, see `part_query`.
create function told(
    image jsonb, flags text[], key text, at_position bigint, at_ordinal int, oldest bigint,
    terms jsonb
) returns state
language plpgsql stable parallel safe set search_path from current
as $$
declare
    was state := row(image, flags)::state;
begin
    if terms -> 'forms' <> 'null' then
        was := in_form(image, flags, at_position, at_ordinal, terms -> 'forms');
    end if;
    if key is not null
        and exists (select from unnest(was.flags) f where starts_with(f, 'unchanged:'))
    then
        was := filled(key, at_position, at_ordinal, terms);
    end if;
    if oldest < (terms ->> 'doubtful')::bigint then
        was.flags := was.flags || array(
            select distinct 'stale:' || (s ->> 'column') from jsonb_array_elements(terms -> 'stale') s
            where oldest < (s ->> 'until')::bigint
        );
        if oldest < (terms ->> 'uncertain')::bigint then
            was.flags := was.flags || 'uncertain'::text;
        end if;
    end if;
    was.flags := nullif(was.flags, '{}');
    return was;
end
$$;

-- The key's text as the history writes it. Refuses what can be no key of the table, which is asked
-- only where it never had such a row: rules may have put a digest in the key's place.
create function key_text(
    of_source smallint, of_epoch int, of_relation oid, until bigint, name text, key text,
    its_tables text[]
) returns text
language plpgsql stable
set search_path from current
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    its_columns jsonb;
    its_key text[];
    written text := key;
    parts text[] := array[key];
    of_type regtype;
    each record;
begin
    select v.columns, v.primary_key into its_columns, its_key from table_versions v
    where v.source_id = of_source and v.epoch = of_epoch and v.relation = of_relation
        and v.from_position <= until
    order by v.from_position desc, v.from_ordinal desc limit 1;
    if cardinality(its_key) > 1 then
        begin
            parts := array(select jsonb_array_elements_text(key::jsonb));
            written := '[' || array_to_string(
                array(select coalesce(to_json(p)::text, 'null') from unnest(parts) p), ','
            ) || ']';
        exception when data_exception then
            parts := '{}';
        end;
    end if;
    if octet_length(written) > 2000 then
        written := 'sha256:' || encode(sha256(convert_to(written, 'UTF8')), 'hex');
    end if;
    if its_key is null or its_key = '{}' or exists (
        select from images i
        where i."table" = any (its_tables) and i.primary_key = written
            and i.relation = of_relation and i.epoch = of_epoch
    ) then
        return written;
    end if;
    if cardinality(parts) <> cardinality(its_key) then
        perform refuse('TT002',
            format('%L is no key of %s: its key are the columns %s', left(key, 100), name,
                array_to_string(its_key, ', ')),
            'a composite key is a JSON array of texts, as in ["1","2"]');
    end if;
    for each in
        select parts[k.nth] as part, k.of_column, c ->> 'type' as spelled
        from unnest(its_key) with ordinality k (of_column, nth)
        join jsonb_array_elements(its_columns) c on c ->> 'name' = k.of_column
        order by k.nth
    loop
        begin
            of_type := to_regtype(each.spelled);
            -- Others may be another type here than there.
            if exists (select from pg_type t
                where t.oid = of_type and t.typtype = 'b'
                    and t.typnamespace = 'pg_catalog'::regnamespace)
            then
                execute format('select %L::%s', each.part, format_type(of_type, null));
            end if;
        exception
            when data_exception then
                perform refuse('TT002',
                    format('%L is no key of %s: its column %s is of the type %s',
                        left(each.part, 100), name, each.of_column, each.spelled),
                    'a key is the text of its value');
            when syntax_error_or_access_rule_violation then
                null;  -- a type that this server does not know
        end;
    end loop;
    return written;
end
$$;

-- The first change in an order that an index gives, among those that a condition holds for; for each
-- of the tables (%1$L in the condition), and of these the one that came last. Partitions that were
-- just written have no statistics, by which PostgreSQL would know better than to read, and sort, all
-- there is.
create function first_of(tables text[], condition text, in_order text)
returns table (commit_position bigint, ordinal int)
language plpgsql stable
set search_path from current
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
    name text;
    found_position bigint;
    found_ordinal int;
begin
    foreach name in array tables loop
        execute format(
            'select r.commit_position, r.ordinal from images r where ' || condition ||
            ' order by ' || in_order || ' limit 1', name
        ) into found_position, found_ordinal;
        if (found_position, found_ordinal) > (commit_position, ordinal)
            or commit_position is null
        then
            commit_position := found_position;
            ordinal := found_ordinal;
        end if;
    end loop;
    if commit_position is not null then
        return next;
    end if;
end
$$;

-- The columns of which rows may have other values than their last change says, by the names that
-- they have at a position, and until where: DDL rewrote them, or no change has shown them yet.
create function stale(of_source smallint, of_epoch int, of_relation oid, at_position bigint)
returns jsonb
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
begin
    return (
        with told as (
            select s.commit_position, s.columns from shapes($1, $2, $3, $4) s
            order by s.commit_position desc, s.ordinal desc limit 1
        ),
        seen as (
            select n.columns from told t
            cross join lateral seen_columns($1, $2, $3, $4, t.commit_position, t.columns) n
        ),
        now as (
            select c from jsonb_array_elements(coalesce((select columns from seen),
                (select columns from told))) c
        ),
        rewritten as (
            select g.to_position, called.name, (
                select w ->> 'number'
                from table_versions v
                cross join lateral jsonb_array_elements(v.columns) w
                where v.source_id = $1 and v.epoch = $2 and v.relation = $3
                    and greatest(v.read_position, v.from_position) = g.to_position
                    and w ->> 'name' = called.name and w ->> 'number' <> '0'
                order by v.from_position, v.from_ordinal limit 1
            ) as number
            from gaps g
            cross join lateral unnest(g.columns) called (name)
            where g.source_id = $1 and g.epoch = $2 and g.relation = $3 and g.from_position <= $4
        )
        select coalesce(jsonb_agg(jsonb_build_object('column', each.name, 'until', each.until)), '[]')
        from (
            select coalesce(n.c ->> 'name', r.name) as name, r.to_position as until
            from rewritten r
            left join now n on n.c ->> 'number' = r.number
                or n.c ->> 'number' = '0' and n.c ->> 'name' = r.name
            -- It may be gone, and another be called so.
            where n.c is not null or r.number is null
            union all
            select n.c ->> 'name', $4 + 1
            from seen
            cross join now n
            left join (
                select k -> 'number' as number, k -> 'type_oid' as type_oid
                from told cross join lateral jsonb_array_elements(told.columns) k
            ) k on k.number = n.c -> 'number'
            where case when k.type_oid is null then (n.c ->> 'filled')::boolean
                else k.type_oid <> n.c -> 'type_oid' end
        ) each
    );
end
$$;

-- A key with about as many before it as behind it, where those of the tables are spread evenly from
-- the first to the last, by the first character that tells these apart; null where there is no
-- such, or the history is so small that halves are not worth it.
create function middle_of(tables text[]) returns text
language plpgsql stable
set search_path from current
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
    name text;
    low text;
    high text;
    alike int := 0;
    middle text;
begin
    if coalesce((
        select sum(pg_relation_size(i.inhrelid)) from pg_inherits i
        where i.inhparent = 'row_changes'::regclass
    ), 0) < 4 << 20 then
        return null;
    end if;
    foreach name in array tables loop
        low := least(low, (
            select r.primary_key from images r
            where r."table" = name and r.primary_key is not null
            order by r.primary_key limit 1
        ));
        high := greatest(high, (
            select r.primary_key from images r
            where r."table" = name and r.primary_key is not null
            order by r.primary_key desc limit 1
        ));
    end loop;
    while alike < length(low) and substr(low, alike + 1, 1) = substr(high, alike + 1, 1) loop
        alike := alike + 1;
    end loop;
    begin
        middle := left(low, alike)
            || chr((ascii(substr(low, alike + 1)) + ascii(substr(high, alike + 1)) + 1) / 2);
    exception when program_limit_exceeded then
        return null;  -- no character is between the two
    end;
    return case when middle > low and middle <= high then middle end;
end
$$;

-- The SELECT of a relation's rows as they were, with the columns key, image and flags. It proves
-- first that the history knows them; with `allow_gaps` it says in `uncertain` what it does not.
--
-- Of a table with a key, each row is what the last change of its key left, after the last TRUNCATE;
-- a change to another key ends the row under the old one. Of a table without a key the rows are a
-- multiset: what came less what went; equal are rows whose values are, in the columns of the last
-- shape, in whatever form they are stored. Both begin where the interval of coverage does in which
-- the position lies. The past is settled: what is found on the way stands in the text as constants.
create function part_query(
    of_source smallint, of_epoch int, at_position bigint, of_relation oid, name text, of_key text,
    allow_gaps boolean
) returns table (query text, uncertain text)
language plpgsql stable set search_path from current
as $$
#variable_conflict use_column
declare
    forever constant bigint := 9223372036854775807;
    images constant text := format('%I.images', current_schema());
    stretch record;
    gap record;
    start bigint;
    known bigint;
    doubt bigint := 0;  -- what was changed last before this is not surely known
    doubtful bigint;    -- the same, or not in each of its columns
    why text;
    fix text;
    tables text[];
    its text;  -- the condition that a change is of the relation, and counts
    named text;  -- that it is of one of its tables
    with_key boolean;
    without boolean;
    changed bigint;
    changed_last bigint;
    emptied record;
    stale jsonb;
    its_forms jsonb;
    settled record;  -- from here on, images have the last shape
    terms jsonb;
    counted text;
    middle text;
    untold boolean;
begin
    select i.from_position, i.state_position, i.opened into stretch from intervals i
    where i.source_id = of_source and i.relation = of_relation and i.epoch = of_epoch
        and i.from_position <= at_position
        and (i.to_position is null or at_position < i.to_position)
    order by i.from_position desc limit 1;
    start := stretch.from_position;
    known := stretch.state_position;
    if start is null then
        why := coalesce((
            select format('its coverage ended at %s: %s', lsn(i.to_position), i.closed)
            from intervals i
            where i.source_id = of_source and i.relation = of_relation
                and (i.epoch < of_epoch or i.epoch = of_epoch and i.to_position <= at_position)
            order by i.epoch desc, i.to_position desc limit 1
        ), 'it was not tracked then');
        fix := '`bemi status --coverage` shows from where to where it is';
        doubt := forever;
    elsif known is null or known > at_position then
        why := format('its rows from before have no baseline by then (%s)', stretch.opened);
        fix := '`bemi snapshot` takes one';
        doubt := start;
    end if;
    if why is not null then
        start := 0;
        known := 0;
    end if;
    select g.cause, g.from_position, g.to_position, max(g.to_position) over () as last into gap
    from gaps g
    where g.source_id = of_source and g.epoch = of_epoch and g.columns is null
        and (g.relation = of_relation or g.relation is null and g.cause = 'chain')
        and g.from_position <= at_position and g.to_position > known
    order by g.from_position limit 1;
    if found then
        if why is null then
            why := format('changes between %s and %s are missing (%s)',
                lsn(gap.from_position), lsn(gap.to_position), gap.cause);
            fix := '`bemi snapshot --again` takes a new baseline, behind which it is';
        end if;
        doubt := greatest(doubt, gap.last);
    end if;

    tables := array(
        select n."table" from relation_names n
        where n.source_id = of_source and n.relation = of_relation and n."table" is not null
        union
        select v."table" from table_versions v
        where v.source_id = of_source and v.relation = of_relation
        union
        select i."table" from intervals i
        where i.source_id = of_source and i.relation = of_relation
    );
    if why is null then
        select format('between %s and %s it was altered, and which columns it had is not known'
            ' (altered)', lsn(a.after_position), lsn(a.until_position)) into why
        from altered_between(of_source, of_epoch, of_relation, at_position, tables) a;
        if why is not null then
            fix := 'ask for a position before or behind that; where `bemi init --ddl` made event'
                ' triggers, each position is known';
            doubt := forever;
        end if;
    end if;
    named := case when cardinality(tables) = 1 then format('r."table" = %L', tables[1])
        else format('r."table" = any (%L)', tables) end;
    its := format('r.relation = %s and r.epoch = %s and r.commit_position <= %s',
        of_relation, of_epoch, at_position);
    select min(k.from_position), max(k.from_position) into changed, changed_last
    from key_changes(of_source, of_epoch, of_relation, start, at_position) k;
    if changed is not null then
        if why is null then
            why := format('its key became another at %s (key_changed)', lsn(changed));
            fix := '`bemi snapshot` takes a new baseline, behind which it is';
        end if;
        -- Rows that were not changed since would be there under keys that they no longer had.
        doubt := forever;
        start := changed_last;
    end if;
    -- Keys that there are at all, first: of a table without one, no change need be read. One of an
    -- array of names is in the order of names for PostgreSQL, which but one index has.
    with_key := exists (
        select from first_of(tables, 'r."table" = %1$L and r.primary_key is not null',
            'r.primary_key')
    ) and exists (
        select from first_of(tables, format(
            'r."table" = any (array[%%1$L]) and %s and r.commit_position >= %s '
            'and r.primary_key is not null', its, start
        ), 'r."table", r.commit_position')
    );
    without := exists (
        select from first_of(tables, format(
            'r."table" = %%1$L and %s and r.commit_position >= %s and r.primary_key is null '
            'and r.operation <> ''TRUNCATE''', its, start
        ), 'r.primary_key, r.commit_position desc, r.ordinal desc')
    );
    if with_key and without then
        if why is null then
            why := 'its key became another (key_changed)';
            fix := '`bemi snapshot` takes a new baseline, behind which it is';
        end if;
        doubt := forever;
    end if;
    if why is not null and not allow_gaps then
        perform refuse('TT001', format('%s at %s is not known: %s', name, lsn(at_position), why),
            fix);
    end if;
    without := without and not with_key;
    if without then
        if of_key is not null then
            perform refuse('TT002', format('rows of %s have no key to be asked for by', name),
                'ask for all of them');
        end if;
        -- What went before the state was known can't be told from what stayed.
        start := greatest(start, known);
    end if;
    select * into emptied from first_of(tables, format(
        'r."table" = %%1$L and %s and r.commit_position >= %s and r.primary_key is null '
        'and r.operation = ''TRUNCATE''', its, start
    ), 'r.primary_key, r.commit_position desc, r.ordinal desc');
    its := its || ' and r.commit_position >= ' || greatest(start, emptied.commit_position);
    if emptied.commit_position is not null then
        its := its || format(' and (r.commit_position, r.ordinal) > (%s, %s)',
            emptied.commit_position, emptied.ordinal);
    end if;

    its_forms := forms(of_source, of_epoch, of_relation, start, at_position);
    select (f.f ->> 'position')::bigint as place, (f.f ->> 'ordinal')::int as nth into settled
    from jsonb_array_elements(its_forms) with ordinality f (f, nth)
    where f.nth > (
        select max(d.nth) from jsonb_array_elements(its_forms) with ordinality d (d, nth)
        where d.d -> 'columns' <> 'null'
    )
    order by f.nth limit 1;
    stale := stale(of_source, of_epoch, of_relation, at_position);
    doubtful := greatest(doubt, (
        select max((s ->> 'until')::bigint) from jsonb_array_elements(stale) s
    ));
    terms := jsonb_build_object(
        'relation', of_relation::bigint, 'epoch', of_epoch, 'tables', tables, 'start', start,
        'position', at_position, 'forms', its_forms, 'stale', stale, 'uncertain', doubt,
        'doubtful', doubtful
    );

    if without then
        counted := format($query$with present as (
    select r.* from %1$s r where %2$s and r.operation <> 'TRUNCATE'
),
shape as (
    select * from jsonb_to_recordset(%3$L) s (position bigint, ordinal int, columns jsonb)
),
moved as (
    select r.commit_position, r.ordinal, r.committed_at, r.flags, each.n, each.image, (
        select s.columns from shape s
        where (s.position, s.ordinal) <= (r.commit_position, r.ordinal)
        order by s.position desc, s.ordinal desc limit 1
    ) as columns
    from present r, lateral (
        select 1 as n, r.after as image where r.after is not null
        union all
        select -1, r.before where r.operation in ('UPDATE', 'DELETE')
    ) each
),
counted as (
    select sum(n) as n, bool_or(image is null) as untold, min(commit_position) as oldest,
        max(array[
            commit_position, ordinal, (extract(epoch from committed_at) * 1000000)::bigint
        ]) filter (where n > 0) as latest
    from moved, lateral (
        select
            array_to_string(flags, chr(10)) ~ '(^|\n)(text|json_null):' as other_form,
            (select array_agg(f) from unnest(flags) f where f like 'sha256:%%') as digests
    ) its
    group by digests, case
        when jsonb_typeof(columns) is distinct from 'array' and other_form is not true
            then image::text
        when image is not null then (
            select coalesce(jsonb_object_agg(called, case
                when 'text:' || source = any (flags) and value <> 'null' then case
                    -- What a float may be written as in either form; a cast of more may fail.
                    when value #>> '{}'
                        ~ '^(?!-0(\.0*)?([eE]|$))-?\d{1,255}(\.\d{1,255})?([eE][-+]?\d{1,3})?$'
                        then to_jsonb((value #>> '{}')::numeric)
                    when value in ('"NaN"', '"Infinity"', '"-Infinity"') then value
                    else jsonb_build_object('text', value)
                end
                when 'json_null:' || source = any (flags) and value = 'null'
                    then '{"text": "null"}'
                else value
            end), '{}')::text
            from (
                select c.called, c.source,
                    coalesce(image -> c.source, case when not c.filled then 'null'::jsonb end)
                        as value
                from jsonb_to_recordset(
                    case when jsonb_typeof(columns) = 'array' then columns else '[]' end
                ) c (called text, source text, filled bool)
                union all
                select e.key, e.key, e.value from jsonb_each(image) e
                where jsonb_typeof(columns) is distinct from 'array'
            ) c where value is not null
        )
    end
)$query$, images, named || ' and ' || its, coalesce(its_forms, '[]'));
        execute counted || ' select exists (select from counted where untold or n < 0)'
            into untold;
        if untold then
            why := coalesce(why, 'it has no key by which rows are followed, and which rows went'
                ' can''t be told');
            if not allow_gaps then
                perform refuse('TT001',
                    format('%s at %s is not known: %s', name, lsn(at_position), why),
                    '`bemi snapshot --again` takes a new baseline, behind which it is');
            end if;
            terms := terms || jsonb_build_object('uncertain', forever, 'doubtful', forever);
        end if;
        -- The change at a place: two indexes find it as soon, and none is better, whatever
        -- statistics say of how many changes commits have. With `limit` others would seem to be,
        -- as one of the many changes of a commit is found soon by any.
        query := format($query$%1$s
select null::text as key, (t.v).image, (t.v).flags
from counted c
cross join lateral (
    select * from %2$s r
    where r.committed_at = 'epoch'::timestamptz + c.latest[3] * interval '1 microsecond'
        and r.commit_position = c.latest[1] and r.ordinal = c.latest[2] and r.epoch = %3$s
    offset 0
) r
cross join lateral generate_series(1, c.n)
cross join lateral (
    select %4$I.told(r.after, r.flags, null, r.commit_position, r.ordinal, c.oldest, %5$L) as v
    offset 0
) t
where c.n > 0$query$, counted, images, of_epoch, current_schema(), terms);
    else
        if of_key is not null then
            of_key := key_text(of_source, of_epoch, of_relation, at_position, name, of_key, tables);
        end if;
        -- One pass, by indexes: a join would be a search among all changes for each row, where
        -- PostgreSQL does not know yet how many there are. Rows are fetched in the order in which
        -- they lie in the store.
        --
        -- In two halves, of which PostgreSQL reads each in a process of its own where it has some
        -- to spare. What is lateral keeps it from that; a join does not, and the array and the rows
        -- that are compared leave no plan for it but to look for each change by itself. The second
        -- `order by` orders nothing: it keeps `v` from being made once for each of its fields.
        middle := case when of_key is null then middle_of(tables) end;
        select string_agg(format($query$select s.key, (s.v).image, (s.v).flags
from (
    select l.key, case when r.flags is null and (r.commit_position, r.ordinal) >= (%1$s, %2$s)
        then row(r.after, null)::%3$I.state
        else %3$I.told(r.after, r.flags, l.key, r.commit_position, r.ordinal, r.commit_position,
            %4$L) end as v
    from (
        select * from (
            select distinct on (e.key) e.* from (%5$s) e
            order by e.key, e.commit_position desc, e.ordinal desc
        ) e
        where not e.ended
        order by e.committed_at, e.commit_position, e.ordinal
    ) l
    join %6$s r on r.committed_at = any (array[l.committed_at])
        and (r.commit_position, r.ordinal, r.epoch) >= (l.commit_position, l.ordinal, %7$s)
        and (r.commit_position, r.ordinal, r.epoch) <= (l.commit_position, l.ordinal, %7$s)
    where r.operation <> 'DELETE'
    order by l.committed_at, l.commit_position, l.ordinal
) s$query$,
            greatest(doubtful, settled.place),
            case when settled.place >= doubtful then settled.nth else 0 end,
            current_schema(), terms,
            (
                select string_agg(format($query$
            (select distinct on (r.%1$I) r.%1$I as key, r.committed_at, r.commit_position, r.ordinal,
                %2$L::bool as ended
            from %3$s r
            where r."table" = %4$L and %5$s and r.%1$I %6$s
            order by r.%1$I, r.commit_position desc, r.ordinal desc%7$s)$query$,
                    by_key, by_key = 'previous_key', images, of_table, its, which,
                    case when of_key is not null then ' limit 1' end
                ), E'\n            union all' order by of_table, by_key desc)
                from unnest(tables) of_table, unnest(array['primary_key', 'previous_key']) by_key
            ),
            images, of_epoch
        ), E'\nunion all\n' order by nth) into query
        from unnest(case
            when of_key is not null then array[format('= %L', of_key)]
            when middle is null then array['is not null']
            else array[format('< %L', middle), format('>= %L', middle)]
        end) with ordinality w (which, nth);
    end if;
    uncertain := why;
    return next;
end
$$;

-- The SELECT of a table's rows as they were, of all its partitions; see `part_query`.
create function rows_query(
    name text,
    at timestamptz default null,
    commit_position bigint default null,
    lsn pg_lsn default null,
    epoch bigint default null,
    source text default null,
    allow_gaps boolean default false,
    key text default null
) returns table (query text, uncertain text)
language plpgsql stable set search_path from current set jit = off
as $$
#variable_conflict use_column
declare
    place record;
    each record;
    queries text[];
    unknown text[];
begin
    if name is null then
        perform refuse('TT002', 'it takes the name of a table', 'as in public.todo');
    end if;
    select * into place
    from place_at(name, at, commit_position, lsn, rows_query.epoch, rows_query.source);
    for each in
        select c.called, p.query, p.uncertain
        from called(place.source_id, place.epoch, place.position, qualified(name),
            coalesce(allow_gaps, false)) c
        cross join lateral part_query(place.source_id, place.epoch, place.position, c.relation,
            c.called, rows_query.key, coalesce(allow_gaps, false)) p
    loop
        queries := queries || each.query;
        if each.uncertain is not null then
            unknown := unknown || format('%s at %s is not surely known: %s',
                each.called, lsn(place.position), each.uncertain);
        end if;
    end loop;
    query := case when cardinality(queries) = 1 then queries[1] else
        '(' || array_to_string(queries, E'\n)\nunion all\n(') || ')' end;
    uncertain := array_to_string(unknown, '; ');
    return next;
end
$$;

-- The rows of a table as they were after all transactions that had been committed by a time, or
-- that commit at or before a position. Exactly one of `at`, `commit_position` and `lsn` is given.
create function rows_at(
    name text,
    at timestamptz default null,
    commit_position bigint default null,
    lsn pg_lsn default null,
    epoch bigint default null,
    source text default null,
    allow_gaps boolean default false
) returns table (key text, image jsonb, flags text[])
language plpgsql stable set search_path from current set jit = off
as $$
declare
    asked record;
begin
    select * into asked from rows_query($1, $2, $3, $4, $5, $6, $7);
    if asked.uncertain is not null then
        raise warning using message = asked.uncertain,
            hint = 'rows that are not surely known have the flag `uncertain`; others may be missing';
    end if;
    return query execute asked.query;
end
$$;

-- The row with this key as it was; none where there was none.
create function row_at(
    name text,
    key text,
    at timestamptz default null,
    commit_position bigint default null,
    lsn pg_lsn default null,
    epoch bigint default null,
    source text default null,
    allow_gaps boolean default false
) returns table (image jsonb, flags text[])
language plpgsql stable set search_path from current set jit = off
as $$
declare
    asked record;
begin
    if $2 is null then
        perform refuse('TT002', 'it takes a key', '`rows_at` has all rows');
    end if;
    select * into asked from rows_query($1, $3, $4, $5, $6, $7, $8, $2);
    if asked.uncertain is not null then
        raise warning using message = asked.uncertain,
            hint = 'a row that is not surely known has the flag `uncertain`; it may be missing';
    end if;
    return query execute 'select r.image, r.flags from (' || asked.query || ') r';
end
$$;

-- The tables that a source had at a position, and their partitions, each with the columns and the
-- key of then. `partition_of`: the table above, of a partition. `columns` is null where the history
-- has never seen any.
create function tables_at(
    at timestamptz default null,
    commit_position bigint default null,
    lsn pg_lsn default null,
    epoch bigint default null,
    source text default null
) returns table (
    schema text, "table" text, partition_of text, columns jsonb, primary_key text[]
)
language plpgsql stable set search_path from current set jit = off
as $$
#variable_conflict use_column
declare
    place record;
begin
    select * into place
    from place_at(null, at, commit_position, lsn, tables_at.epoch, tables_at.source);
    return query
    with named as (
        select distinct on (n.relation) n.relation, n.schema, n."table", n.partition
        from relation_names n
        where n.source_id = place.source_id and n.epoch = place.epoch
            and n.from_position <= place.position
        order by n.relation, n.from_position desc
    ),
    shaped as (
        select n.*, coalesce(l.columns, v.columns, d.definition -> 'columns') as columns,
            case when v.primary_key is not null then array(
                select coalesce(c ->> 'name', k.name)
                from unnest(v.primary_key) with ordinality k (name, nth)
                left join jsonb_array_elements(v.columns) o on o ->> 'name' = k.name
                left join jsonb_array_elements(l.columns) c
                    on c -> 'number' = o -> 'number' and c ->> 'number' <> '0'
                order by k.nth
            ) else array(
                select jsonb_array_elements_text(c -> 'columns')
                from jsonb_array_elements(d.definition -> 'constraints') c
                where c ->> 'kind' = 'p'
            ) end as primary_key
        from named n
        left join lateral (
            -- Of a table that had no change yet, what its first one shows.
            select v.from_position, v.columns, v.primary_key from table_versions v
            where v.source_id = place.source_id and v.epoch = place.epoch
                and v.relation = n.relation
            order by v.from_position > place.position,
                case when v.from_position <= place.position then -v.from_position
                    else v.from_position end,
                case when v.from_position <= place.position then -v.from_ordinal
                    else v.from_ordinal end
            limit 1
        ) v on true
        left join lateral seen_columns(place.source_id, place.epoch, n.relation, place.position,
            v.from_position, v.columns) l on true
        left join definitions_at(place.source_id, place.epoch, place.position) d
            on d.kind = 'table' and d.oid = n.relation
        where n.schema is not null
    )
    select * from (
        select s.schema,
            case when s.partition is null then s."table"
                when starts_with(s.partition, s.schema || '.')
                    then substr(s.partition, length(s.schema) + 2)
                else substr(s.partition, strpos(s.partition, '.') + 1) end as "table",
            case when s.partition is not null then s.schema || '.' || s."table" end as partition_of,
            s.columns, s.primary_key
        from shaped s
        union all
        (select distinct on (s.schema, s."table")
            s.schema, s."table", null, s.columns, s.primary_key
        from shaped s
        where s.partition is not null
        order by s.schema, s."table", s.columns is null, s.relation)
    ) each
    order by 1, 2;
end
$$;

-- No row, which PostgreSQL takes for thousands: of how many keys a table has it knows nothing, and
-- thinks of few.
create function none_of_many() returns setof boolean
language plpgsql stable rows 10000
as $$
begin
    return;
end
$$;

-- An image without what stands in it for values that were not stored.
create function readable(image jsonb, flags text[]) returns jsonb
language sql immutable parallel safe
as $$
    select case when flags is null then image else image - array(
        select substr(f, strpos(f, ':') + 1) from unnest(flags) f
        where f like any (array['masked:%', 'hashed:%', 'undecodable:%'])
    ) end
$$;

-- A value of an image that may have been written when its column had another type, in which the
-- one of now may not take it: null then. `spelled`: the type, as it is written in SQL.
create function retyped(image jsonb, flags text[], name text, spelled text, of_type anyelement)
returns anyelement
language plpgsql stable
set search_path = pg_catalog, pg_temp
set lc_monetary = 'C'
set xmloption = 'content'
as $$
declare
    found alias for $0;
begin
    if 'text:' || name = any (flags) then
        found := image ->> name;
    elsif 'json_null:' || name = any (flags) and image -> name = 'null' then
        found := 'null';
    else
        execute format('select r.v from jsonb_to_record($1) r (v %s)', spelled) into found
            using jsonb_build_object('v', image -> name);
    end if;
    return found;
exception when others then
    return null;
end
$$;

-- A text as a value of a type, under the settings that it was written under.
create function read_as(written text, of_type anyelement) returns anyelement
language plpgsql stable
set search_path = pg_catalog, pg_temp
set lc_monetary = 'C'
set xmloption = 'content'
as $$
declare
    found alias for $0;
begin
    found := written;
    return found;
end
$$;
