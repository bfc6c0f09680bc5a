-- What is covered, under which rules, in which version of each table; and baselines.

-- A source that is paused or removed keeps its history.
alter table sources
    add column paused_at timestamptz,
    add column removed_at timestamptz;

-- What is left out, masked and hashed; a new version with each change of the settings.
create table rules (
    rules_id int generated always as identity primary key,
    source_id smallint not null references sources on delete cascade,
    epoch int not null references epochs on delete cascade,
    from_position bigint not null,  -- holds for the transactions that end after it
    digest text not null,           -- of the rules and of the key that hashes
    rules jsonb not null,
    created_at timestamptz not null default now()
);
create index on rules (source_id, rules_id);

alter table contexts add column rules int;  -- under which the stretch's changes were stored

-- The versions of each table, each from the first change on that showed it.
create table table_versions (
    version_id bigint generated always as identity primary key,
    source_id smallint not null references sources on delete cascade,
    epoch int not null references epochs on delete cascade,
    relation oid not null,
    from_position bigint not null,
    from_ordinal int not null,
    schema text not null,
    "table" text not null,
    partition text,           -- the name of the table itself, where "table" is above it
    columns jsonb not null,   -- a list of {name, number, type, type_oid, stamp}
    primary_key text[] not null,
    replica_identity text not null,
    filenode bigint not null,  -- changes when the table is rewritten
    read_position bigint not null,  -- where the log was when the catalog was asked
    inferred boolean not null,  -- the catalog no longer knew the table as it was
    created_at timestamptz not null default now(),
    unique (source_id, epoch, relation, from_position, from_ordinal)
);
create index on table_versions (schema, "table");

-- Stretches of an epoch in which every committed change of a table is in the history: of the
-- transactions that commit from `from_position` on and before `to_position`, which is empty
-- while the stretch goes on to the checkpoint.
create table intervals (
    interval_id bigint generated always as identity primary key,
    source_id smallint not null references sources on delete cascade,
    epoch int not null references epochs on delete cascade,
    relation oid not null,
    schema text not null,
    "table" text not null,
    partition text,
    membership oid not null,  -- its row in pg_publication_rel: a drop and an add make a new one
    from_position bigint not null,
    verified_position bigint not null,  -- up to here the membership was seen to hold
    to_position bigint,
    state_position bigint,  -- from here on all rows are known: it was empty, or has a baseline
    state_by text,          -- empty, baseline
    opened text not null,   -- why it begins
    closed text,            -- why it ends
    opened_at timestamptz not null default now(),
    closed_at timestamptz,
    check (to_position >= from_position and verified_position >= from_position)
);
create unique index on intervals (source_id, relation) where to_position is null;
create index on intervals (relation, epoch, from_position);

-- A gap of one table, or of some columns of it; without a table it is one of all tables.
alter table gaps
    add column relation oid,
    add column columns text[],
    add column changes bigint,  -- how many are missing, where that is known
    drop constraint gaps_source_id_epoch_from_position_to_position_cause_key;
create unique index on gaps
    (source_id, epoch, from_position, to_position, cause, coalesce(relation, 0));
create index on gaps (relation) where relation is not null;

-- The last transactions of which rules left changes of a table out: a look at the table that did
-- not see one of them saw rows that the history knows nothing newer of.
create table left_out (
    epoch int not null references epochs on delete cascade,
    relation oid not null,
    transaction_id bigint not null,
    primary key (epoch, relation, transaction_id)
);

-- Baselines, with what it takes to go on after the last chunk that was stored.
create sequence baseline_chunks;
create table baselines (
    baseline_id bigint generated always as identity primary key,
    source_id smallint not null references sources on delete cascade,
    epoch int not null references epochs on delete cascade,
    interval_id bigint not null references intervals on delete cascade,
    relation oid not null,
    schema text not null,
    "table" text not null,
    shape text not null,  -- digest of columns, types and key: another one begins anew
    last_key bytea[],     -- in the source's encoding; null where the rules keep it out of here
    last_position bigint,
    chunks int not null default 0,
    rows bigint not null default 0,
    created bigint not null default 0,  -- changes that happened while nobody looked
    updated bigint not null default 0,
    deleted bigint not null default 0,
    started_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    finished_at timestamptz,
    failed text
);
create unique index on baselines (source_id, relation) where finished_at is null and failed is null;

-- Statements that changed the source's schema, where event triggers record them.
create table ddl_messages (
    source_id smallint not null references sources on delete cascade,
    epoch int not null references epochs on delete cascade,
    commit_position bigint not null,
    position bigint not null,
    committed_at timestamptz not null,
    context_id bigint not null,
    tag text not null,
    object_type text,
    identity text,
    relation oid,
    statement text,
    detail jsonb not null default '{}',
    primary key (epoch, commit_position, position)
);
create index on ddl_messages (relation, commit_position);

create or replace view changes as
select
    r.id,
    e.database,
    r.schema,
    r."table",
    r.primary_key,
    r.operation,
    coalesce(r.before, r.after || r.changed, '{}') as before,
    coalesce(r.after, '{}') as after,
    c.context,
    r.committed_at,
    c.queued_at,
    c.created_at,
    c.transaction_id,
    r.position,
    r.commit_position,
    r.ordinal,
    r.epoch::bigint as epoch,
    s.name as source,
    r.previous_key,
    r.flags,
    c.rules
from row_changes r
left join contexts c on c.id = r.context_id
left join epochs e on e.epoch = r.epoch
left join sources s on s.source_id = e.source_id;

-- What readers may ask of it: per table the stretches that are complete, and to where.
create view coverage as
select
    s.name as source,
    i.epoch::bigint as epoch,
    i.relation,
    i.schema,
    i."table",
    i.partition,
    i.from_position,
    coalesce(i.to_position, k.position) as to_position,
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

create view schema_history as
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
    v.inferred
from table_versions v
join sources s using (source_id);

create view ddl as
select
    s.name as source,
    d.epoch::bigint as epoch,
    d.commit_position,
    d.position,
    d.committed_at,
    c.transaction_id,
    c.context,
    d.tag,
    d.object_type,
    d.identity,
    d.relation,
    d.statement,
    d.detail
from ddl_messages d
join sources s using (source_id)
left join contexts c on c.id = d.context_id;

create view missing as
select
    s.name as source,
    g.epoch::bigint as epoch,
    g.relation,
    g.from_position,
    g.to_position,
    g.cause,
    g.detail,
    g.columns,
    g.changes,
    g.detected_at,
    g.accepted_at
from gaps g
join sources s using (source_id);
