-- Event triggers that put each change of the schema into the WAL, for Bemi to read. Runs as a
-- superuser (or what the managed service has in its place); safe to run again.
begin;

create schema if not exists bemi_ddl;
comment on schema bemi_ddl is 'Bemi: functions of its event triggers';

-- The numbers of the columns that its rows are known by: those of the primary key, or of the index
-- that is the replica identity where that is on others.
create or replace function bemi_ddl.key_of(relation oid) returns int2[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with keys as (
        select i.indisprimary, i.indisreplident and c.relreplident = 'i' as chosen, array(
            select k.number from unnest(i.indkey::int2[]) with ordinality k (number, place)
            where k.place <= i.indnkeyatts order by k.place
        ) as numbers
        from pg_index i join pg_class c on c.oid = i.indrelid
        where i.indrelid = relation and i.indimmediate and (i.indisprimary or i.indisreplident)
    )
    select coalesce(
        (
            select x.numbers from keys x
            where x.chosen and not exists (
                select from keys p
                where p.indisprimary and p.numbers <@ x.numbers and x.numbers <@ p.numbers
            )
        ),
        (select p.numbers from keys p where p.indisprimary)
    )
$$;

-- What the text of a type's values is made of, also within others, by the OIDs of its parts: a
-- digest of each label of an enum, the numbers of a composite type's attributes.
create or replace function bemi_ddl.parts_of(kind oid) returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with recursive made_of (oid) as (
        values (kind)
        union
        select part.oid
        from made_of m
        join pg_type t on t.oid = m.oid
        cross join lateral (
            select t.typelem as oid union all select t.typbasetype
            union all select r.rngsubtype from pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
            union all select a.atttypid from pg_attribute a
                where a.attrelid = nullif(t.typrelid, 0) and a.attnum > 0 and not a.attisdropped
        ) part
        where part.oid >= 16384
    )
    select json_object_agg(p.oid, p.text) from (
        select e.oid::bigint::text as oid, left(md5(e.enumlabel::text), 8) as text
        from made_of m join pg_enum e on e.enumtypid = m.oid
        union all
        select t.oid::bigint::text, string_agg(a.attnum::text, ',' order by a.attnum)
        from made_of m
        join pg_type t on t.oid = m.oid
        join pg_attribute a
            on a.attrelid = nullif(t.typrelid, 0) and a.attnum > 0 and not a.attisdropped
        group by t.oid
    ) p
$$;

-- The table as it is now. Type names are qualified, whatever search_path the application has.
create or replace function bemi_ddl.described(relation oid) returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select json_build_object(
        'schema', n.nspname,
        'name', c.relname,
        'kind', c.relkind,
        'partition_of', (
            select json_build_object('schema', rn.nspname, 'name', r.relname)
            from pg_class r join pg_namespace rn on rn.oid = r.relnamespace
            where c.relispartition and r.oid = pg_partition_root(c.oid)
        ),
        'filenode', c.relfilenode::bigint,
        'replica_identity', c.relreplident,
        'replica_identity_index', (
            select ic.relname
            from pg_index i join pg_class ic on ic.oid = i.indexrelid
            where i.indrelid = c.oid and i.indisreplident
        ),
        'key', (
            select coalesce(json_agg(a.attname order by k.place), '[]')
            from unnest(bemi_ddl.key_of(c.oid)) with ordinality k (number, place)
            join pg_attribute a on a.attrelid = c.oid and a.attnum = k.number
        ),
        'primary_key', (
            select coalesce(json_agg(a.attname order by k.place), '[]')
            from pg_index i,
                unnest(i.indkey::int2[]) with ordinality k (number, place),
                pg_attribute a
            where i.indrelid = c.oid and i.indisprimary and k.place <= i.indnkeyatts
                and a.attrelid = c.oid and a.attnum = k.number
        ),
        'columns', (
            select coalesce(json_agg(json_build_object(
                'number', a.attnum,
                'name', a.attname,
                'type', format_type(a.atttypid, a.atttypmod),
                'modifier', a.atttypmod,
                'type_oid', a.atttypid::bigint,
                'base_type_oid', (
                    with recursive base (id, kind, below) as (
                        select t.oid, t.typtype, t.typbasetype from pg_type t
                        where t.oid = a.atttypid
                        union all
                        select t.oid, t.typtype, t.typbasetype
                        from base b join pg_type t on b.kind = 'd' and t.oid = b.below
                    )
                    select b.id::bigint from base b where b.kind <> 'd'
                ),
                'not_null', a.attnotnull,
                'generated', a.attgenerated,
                'stamp', a.xmin::text::bigint,
                'filled', a.atthasmissing,
                'parts', case when a.atttypid >= 16384 then bemi_ddl.parts_of(a.atttypid) end
            ) order by a.attnum), '[]')
            from pg_attribute a
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        )
    )
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = relation
$$;

-- The tables with rows that a statement on this one alters too: all partitions of the topmost table
-- above a partitioned one, or those that inherit from it. Null where there are too many to tell.
create or replace function bemi_ddl.below(relation oid) returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with recursive tree (oid) as (
        select i.inhrelid from pg_inherits i
        where i.inhparent = coalesce(pg_partition_root(relation), relation)
        union
        select i.inhrelid from tree t join pg_inherits i on i.inhparent = t.oid
    ),
    leaves as (
        select c.oid from tree t join pg_class c using (oid) where c.relkind = 'r'
    )
    select case when count(*) <= 1000 then
        json_agg(json_build_object('oid', l.oid::bigint, 'table', bemi_ddl.described(l.oid)))
    end
    from leaves l
$$;

-- The statement that is run, as the client sent it, or why not.
create or replace function bemi_ddl.statement(tag text, first boolean) returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    whole text;
    kept text;
begin
    if tag ~ 'SUBSCRIPTION|SERVER|USER MAPPING|FOREIGN DATA WRAPPER' then
        return json_build_object('statement_left_out', 'it may hold a password');
    end if;
    whole := current_query();
    kept := left(whole, case when first then 65536 else 1000 end);
    if octet_length(kept) > 65536 then
        kept := left(whole, 16384);
    end if;
    if kept = whole then
        return json_build_object('statement', kept);
    end if;
    return json_build_object('statement', kept, 'statement_cut', true);
end
$$;

-- One message per object. Security definer: whoever changes a schema need not see all of the
-- catalog, nor this schema. It must never make a statement fail.
create or replace function bemi_ddl.record() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    ours oid[];
    each record;
    words json;
    first boolean;
begin
    begin
        -- Nobody would read them; and what changes no schema is no news.
        if current_setting('wal_level') <> 'logical'
            or tg_tag in ('REFRESH MATERIALIZED VIEW', 'REINDEX')
        then
            return;
        end if;
        first := true;
        ours := array(
            select n.oid from pg_namespace n
            where n.nspname = 'bemi_ddl' or 3 = (
                select count(*) from pg_class c
                where c.relnamespace = n.oid
                    and c.relname in ('schema_versions', 'row_changes', 'checkpoints')
            )
        );

        if tg_event = 'table_rewrite' then
            for each in
                select c.oid, format('%I.%I', n.nspname, c.relname) as identity
                from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where c.oid = pg_event_trigger_table_rewrite_oid()
                    and c.relpersistence <> 't' and c.relnamespace <> all (ours)
            loop
                words := bemi_ddl.statement(tg_tag, first);
                perform pg_logical_emit_message(true, '_bemi_ddl', json_strip_nulls(
                    json_build_object(
                        'tag', tg_tag,
                        'object_type', 'table',
                        'identity', each.identity,
                        'relation', each.oid::bigint,
                        'statement', words -> 'statement',
                        'event', tg_event,
                        'role', session_user,
                        'oid', each.oid::bigint,
                        'statement_cut', words -> 'statement_cut',
                        'statement_left_out', words -> 'statement_left_out',
                        'reason', pg_event_trigger_table_rewrite_reason(),
                        'reasons', array_remove(array[
                            case when pg_event_trigger_table_rewrite_reason() & 1 > 0
                                then 'persistence' end,
                            case when pg_event_trigger_table_rewrite_reason() & 2 > 0
                                then 'default' end,
                            case when pg_event_trigger_table_rewrite_reason() & 4 > 0
                                then 'type' end,
                            case when pg_event_trigger_table_rewrite_reason() & 8 > 0
                                then 'access method' end
                        ], null),
                        'table', bemi_ddl.described(each.oid)
                    )
                )::text);
                first := false;
            end loop;

        elsif tg_event = 'sql_drop' then
            for each in
                select d.*,
                    case
                        when d.classid = 'pg_class'::regclass
                            and d.object_type in (
                                'table', 'table column', 'foreign table', 'foreign table column',
                                'view', 'view column', 'materialized view'
                            )
                        then d.objid
                        when d.object_type in (
                            'trigger', 'rule', 'policy', 'table constraint', 'default value'
                        )
                        then (
                            select c.oid
                            from pg_class c join pg_namespace n on n.oid = c.relnamespace
                            where n.nspname = d.address_names[1] and c.relname = d.address_names[2]
                        )
                    end as relation
                from pg_event_trigger_dropped_objects() d
                where not d.is_temporary
                    and (
                        d.original or d.object_type in (
                            'table', 'table column', 'foreign table', 'view', 'materialized view',
                            'trigger'
                        )
                    )
            loop
                continue when exists (
                    select from pg_namespace n
                    where n.oid = any (ours)
                        and (n.nspname = each.schema_name or n.nspname = each.address_names[1])
                );
                continue when exists (
                    select from pg_class c where c.oid = each.relation and c.relpersistence = 't'
                );
                words := bemi_ddl.statement(tg_tag, first);
                perform pg_logical_emit_message(true, '_bemi_ddl', json_strip_nulls(
                    json_build_object(
                        'tag', tg_tag,
                        'object_type', each.object_type,
                        'identity', each.object_identity,
                        'relation', each.relation::bigint,
                        'statement', words -> 'statement',
                        'event', tg_event,
                        'role', session_user,
                        'oid', each.objid::bigint,
                        'column', nullif(each.objsubid, 0),
                        'original', each.original,
                        'statement_cut', words -> 'statement_cut',
                        'statement_left_out', words -> 'statement_left_out'
                    )
                )::text);
                first := false;
            end loop;

        else
            for each in
                select d.command_tag, d.object_type, d.object_identity, d.schema_name, d.objid,
                    d.objsubid, found.relation, c.relkind, c.relhassubclass, c.relpersistence,
                    c.relnamespace, d.classid = 'pg_class'::regclass as is_relation
                from pg_event_trigger_ddl_commands() d
                cross join lateral (
                    select case d.classid
                        when 'pg_class'::regclass then coalesce(
                            (select i.indrelid from pg_index i where i.indexrelid = d.objid),
                            (
                                select t.oid from pg_class t
                                where t.oid = d.objid and t.relkind in ('r', 'p', 'f', 'v', 'm')
                            )
                        )
                        when 'pg_constraint'::regclass then
                            (select k.conrelid from pg_constraint k
                            where k.oid = d.objid and k.conrelid <> 0)
                        when 'pg_trigger'::regclass then
                            (select t.tgrelid from pg_trigger t where t.oid = d.objid)
                        when 'pg_policy'::regclass then
                            (select p.polrelid from pg_policy p where p.oid = d.objid)
                        when 'pg_rewrite'::regclass then
                            (select w.ev_class from pg_rewrite w where w.oid = d.objid)
                        when 'pg_attrdef'::regclass then
                            (select a.adrelid from pg_attrdef a where a.oid = d.objid)
                        when 'pg_statistic_ext'::regclass then
                            (select s.stxrelid from pg_statistic_ext s where s.oid = d.objid)
                        when 'pg_publication_rel'::regclass then
                            (select r.prrelid from pg_publication_rel r where r.oid = d.objid)
                    end as relation
                ) found
                left join pg_class c on c.oid = found.relation
                where not d.in_extension
                    and d.schema_name is distinct from 'pg_temp'
                    and c.relpersistence is distinct from 't'
                    and not coalesce(
                        d.classid = 'pg_namespace'::regclass and d.objid = any (ours), false
                    )
            loop
                continue when each.relnamespace = any (ours) or exists (
                    select from pg_namespace n
                    where n.oid = any (ours)
                        and each.schema_name in (n.nspname, quote_ident(n.nspname))
                );
                words := bemi_ddl.statement(tg_tag, first);
                perform pg_logical_emit_message(true, '_bemi_ddl', json_strip_nulls(
                    json_build_object(
                        'tag', each.command_tag,
                        'object_type', lower(each.object_type),
                        'identity', each.object_identity,
                        'relation', each.relation::bigint,
                        'statement', words -> 'statement',
                        'event', tg_event,
                        'role', session_user,
                        'oid', each.objid::bigint,
                        'column', nullif(each.objsubid, 0),
                        'statement_cut', words -> 'statement_cut',
                        'statement_left_out', words -> 'statement_left_out',
                        'table', case
                            when each.is_relation and each.objid = each.relation
                                and each.relkind in ('r', 'p', 'f')
                            then bemi_ddl.described(each.relation)
                        end,
                        'below', case
                            when each.is_relation and each.objid = each.relation
                                and tg_tag = 'ALTER TABLE'
                                and (each.relkind = 'p' or each.relhassubclass)
                            then bemi_ddl.below(each.relation)
                        end
                    )
                )::text);
                first := false;
            end loop;
        end if;
    exception when others then
        begin
            perform pg_logical_emit_message(true, '_bemi_ddl', json_build_object(
                'tag', tg_tag, 'event', tg_event, 'role', session_user, 'failed', sqlstate
            )::text);
        exception when others then
            null;
        end;
    end;
end
$$;

revoke all on schema bemi_ddl from public;
revoke all on function bemi_ddl.key_of(oid) from public;
revoke all on function bemi_ddl.parts_of(oid) from public;
revoke all on function bemi_ddl.described(oid) from public;
revoke all on function bemi_ddl.below(oid) from public;
revoke all on function bemi_ddl.statement(text, boolean) from public;
revoke all on function bemi_ddl.record() from public;

drop event trigger if exists bemi_ddl_command_end;
drop event trigger if exists bemi_sql_drop;
drop event trigger if exists bemi_table_rewrite;
create event trigger bemi_ddl_command_end on ddl_command_end
    execute function bemi_ddl.record();
create event trigger bemi_sql_drop on sql_drop
    execute function bemi_ddl.record();
create event trigger bemi_table_rewrite on table_rewrite
    execute function bemi_ddl.record();
