-- What tables and the types of their columns were made of, as the looks at the source's catalog
-- saw it: keys, constraints, defaults, labels, attributes. A new row only where it differs.
create table definitions_seen (
    source_id smallint not null references sources on delete cascade,
    epoch int not null references epochs on delete cascade,
    kind text not null check (kind in ('table', 'enum', 'domain', 'composite', 'range', 'base')),
    oid oid not null,
    from_position bigint not null,  -- here it was seen to be so
    after_position bigint,  -- and here not yet; empty where nothing is known of before
    schema text not null,
    name text not null,
    definition jsonb,  -- empty when it was dropped, or no longer tracked
    primary key (source_id, epoch, kind, oid, from_position)
);

create view definitions as
select
    s.name as source,
    d.epoch::bigint as epoch,
    d.kind,
    d.oid,
    d.schema,
    d.name,
    d.definition,
    d.from_position,
    d.after_position
from definitions_seen d
join sources s using (source_id);

-- What held at a position, as far as it was seen: where it was altered between two looks, and the
-- position is between them, what was before; but an enum has the labels of both. What was there at
-- the first look is taken for what was there before it.
create function definitions_at(source_id smallint, epoch int, "position" bigint)
returns table (
    kind text,
    oid oid,
    schema text,
    name text,
    definition jsonb,
    from_position bigint,
    after_position bigint
)
language sql stable parallel safe set search_path from current
as $$
    select held.kind, held.oid, held.schema, held.name,
        case when next.labels is null then held.definition
            else held.definition || jsonb_build_object('labels', next.labels || (
                select coalesce(jsonb_agg(l.label order by l.nth), '[]')
                from jsonb_array_elements(held.definition -> 'labels') with ordinality
                    l (label, nth)
                where not next.labels @> l.label
            )) end,
        held.from_position, held.after_position
    from (
        select distinct on (d.kind, d.oid) d.*
        from definitions d
        join sources s on s.name = d.source
        where s.source_id = $1 and d.epoch = $2
            and (d.from_position <= $3 or coalesce(d.after_position, 0) <= $3)
        order by d.kind, d.oid, d.from_position > $3,
            case when d.from_position <= $3 then -d.from_position else d.from_position end
    ) held
    left join lateral (
        select d.definition -> 'labels' as labels
        from definitions d
        join sources s on s.name = d.source
        where held.kind = 'enum' and s.source_id = $1 and d.epoch = $2 and d.kind = 'enum'
            and d.oid = held.oid and d.from_position > $3 and d.after_position <= $3
    ) next on true
    where held.definition is not null
$$;

-- By that time on the source's clock, all that was committed in tracked tables is stored: what a
-- look at its locks has proven. Empty where nothing was, or only of an earlier epoch.
alter table checkpoints add column captured_at timestamptz;
