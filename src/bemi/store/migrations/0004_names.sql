-- What each table was called when, as the looks at the source's catalog saw it: which partitions
-- a table had, and which tables that are not covered belong to one that is.
create table relation_names (
    source_id smallint not null references sources on delete cascade,
    epoch int not null references epochs on delete cascade,
    relation oid not null,
    from_position bigint not null,  -- here it was seen to be called so
    after_position bigint,  -- and here not yet; empty where nothing is known of before
    schema text,  -- empty when it was dropped
    "table" text,
    partition text,
    primary key (source_id, epoch, relation, from_position)
);
create index on relation_names ("table", schema);

-- The last look that found something to write down, and the publication as it was then.
alter table sources
    add column looked_epoch int,
    add column looked_position bigint,
    add column publication_stamp text;

-- An interval that is over may end behind what is stored.
create or replace view coverage as
select
    s.name as source,
    i.epoch::bigint as epoch,
    i.relation,
    i.schema,
    i."table",
    i.partition,
    i.from_position,
    least(i.to_position, k.position) as to_position,
    i.to_position is null as open,
    i.state_position,
    i.state_by,
    i.opened,
    i.closed,
    i.opened_at,
    i.closed_at
from intervals i
join sources s using (source_id)
left join checkpoints k on k.source_id = i.source_id and k.epoch = i.epoch;
