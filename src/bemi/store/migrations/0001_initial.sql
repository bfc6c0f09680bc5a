-- The history of any number of sources. Readers use the view `changes`; only the worker writes.
-- Positions are LSNs as numbers. Times come from the source's clock unless they say otherwise.

create table sources (
    source_id smallint generated always as identity primary key check (source_id between 1 and 4095),
    name text not null unique,
    database text not null,
    slot text not null,
    publication text not null,
    setup jsonb not null default '{}',  -- what `init` changed on the source, for `teardown`
    created_at timestamptz not null default now()
);

-- A stretch of one source's WAL history in which positions can be compared.
create table epochs (
    epoch int generated always as identity primary key,
    source_id smallint not null references sources on delete cascade,
    system_identifier text not null,
    timeline int not null,
    database_oid bigint not null,
    database text not null,
    started_position bigint not null,
    started_at timestamptz not null default now()
);
create index on epochs (source_id, epoch);

-- Everything of the source that ends at or before `position` is stored.
create table checkpoints (
    source_id smallint primary key references sources on delete cascade,
    epoch int not null references epochs on delete cascade,
    position bigint not null,
    fence bigint not null default 0,         -- rises with each worker that takes over
    next_context bigint not null default 0,  -- counts this source's contexts
    committed_at timestamptz,                -- of the last transaction stored
    updated_at timestamptz not null default clock_timestamp()
) with (fillfactor = 20);  -- updated with every batch: room for HOT updates in its page

-- Stretches of a source's history that are known to be missing.
create table gaps (
    gap_id bigint generated always as identity primary key,
    source_id smallint not null references sources on delete cascade,
    epoch int not null references epochs on delete cascade,
    from_position bigint not null,
    to_position bigint not null,
    cause text not null,
    detail text not null default '',
    detected_at timestamptz not null default now(),
    accepted_at timestamptz,
    unique (source_id, epoch, from_position, to_position, cause)
);

-- What is the same for a stretch of a transaction: one row, however many changes it has.
-- The id's leading bits are the day of the commit, so the partitions' bounds are months here
-- too, and a join needs the id alone.
create table contexts (
    id bigint not null,
    transaction_id bigint not null,
    queued_at timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    context jsonb not null,
    dropped text,  -- why the application's context could not be read
    raw bytea,     -- and its bytes
    primary key (id)
) partition by range (id);
create index on contexts (transaction_id);
create index on contexts using gin (context jsonb_path_ops);
create index on contexts (id) where dropped is not null;

-- Columns run from fixed width to variable, so that little is padded. `operation` is spelled
-- out: behind a CASE in the view it would have no statistics.
create table row_changes (
    committed_at timestamptz not null,
    commit_position bigint not null,
    position bigint not null,
    context_id bigint not null,  -- always there; a foreign key would be looked up for each row
    id uuid not null,
    ordinal int not null,
    epoch int not null,
    relation oid not null,
    operation text not null,
    schema text not null,
    "table" text not null,
    primary_key text,
    previous_key text,
    flags text[],
    after jsonb,
    changed jsonb,  -- the old values of what an UPDATE changed, when the old row is known
    before jsonb    -- the old row of a DELETE, or what is known of it
) partition by range (committed_at);
-- Begins with committed_at because people write `order by committed_at desc limit 50`.
create unique index on row_changes (committed_at, commit_position, ordinal, epoch);
create index on row_changes ("table", primary_key, commit_position);
create index on row_changes ("table", previous_key) where previous_key is not null;
create index on row_changes ("table", commit_position);
-- A change by its id, too: see commit_position(). One of a commit of many by its ordinal.
create index on row_changes (commit_position, ordinal);
create index on row_changes (context_id);

-- What readers see, whatever lies beneath. `context` must stay the bare column: wrapped in an
-- expression it could not use its index. Left joins: the planner leaves out what a query does
-- not ask for, and a filter on a bare column turns its join into an inner one.
create view changes as
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
    r.flags
from row_changes r
left join contexts c on c.id = r.context_id
left join epochs e on e.epoch = r.epoch
left join sources s on s.source_id = e.source_id;

-- The commit position in the leading bits of a change's id, which finds the change by an index:
-- where commit_position = bemi.commit_position(ID) and id = ID
create function commit_position(id uuid) returns bigint
language sql immutable strict parallel safe
as $$
    select ('x' || substr(h, 1, 12) || substr(h, 14, 3) || to_hex(
        ('x' || substr(h, 17, 2))::bit(8)::int >> 2 & 15
    ))::bit(64)::bigint
    from replace(id::text, '-', '') h
$$;

-- Makes the monthly partitions that changes committed from `since` to `until` need. Runs with
-- its owner's rights, so that the worker's role needs only the right to insert.
-- Attaching, unlike `create table … partition of`, lets readers read on.
create function ensure_partitions(since timestamptz, until timestamptz) returns int
language plpgsql security definer set search_path from current
as $$
declare
    month timestamp := date_trunc('month', since at time zone 'UTC');
    following timestamp;
    suffix text;
    made int := 0;
    our_schema oid := (select relnamespace from pg_class where oid = 'row_changes'::regclass);
begin
    while month <= until at time zone 'UTC' loop
        following := month + interval '1 month';
        suffix := to_char(month, 'YYYY_MM');
        -- Read from the table: the name cache may not know yet what another session made.
        perform from pg_class
        where relname = 'row_changes_' || suffix and relnamespace = our_schema;
        if not found then
            perform pg_advisory_xact_lock(hashtextextended('bemi.partitions', 0));
            perform from pg_class
            where relname = 'row_changes_' || suffix and relnamespace = our_schema;
        end if;
        if not found then
            execute format('create table %I (like contexts including defaults)', 'contexts_' || suffix);
            execute format(
                'alter table contexts attach partition %I for values from (%s) to (%s)',
                'contexts_' || suffix,
                (month::date - date '2000-01-01')::bigint << 44,
                (following::date - date '2000-01-01')::bigint << 44
            );
            execute format('create table %I (like row_changes including defaults)', 'row_changes_' || suffix);
            execute format(
                'alter table row_changes attach partition %I for values from (%L) to (%L)',
                'row_changes_' || suffix,
                month at time zone 'UTC',
                following at time zone 'UTC'
            );
            made := made + 1;
        end if;
        month := following;
    end loop;
    return made;
end
$$;
revoke execute on function ensure_partitions from public;

-- Keeps what autovacuum does not: partitions ahead of time, and statistics of the partitioned
-- tables themselves, without which a rare context is looked for by walking the whole feed.
-- The worker calls it from time to time.
create function upkeep() returns void
language plpgsql security definer set search_path from current
as $$
declare
    analysed real := (select reltuples from pg_class where oid = 'row_changes'::regclass);
    present bigint := (
        select coalesce(sum(pg_stat_get_live_tuples(inhrelid)), 0)
        from pg_inherits
        where inhparent = 'row_changes'::regclass
    );
begin
    perform ensure_partitions(now(), now() + interval '28 days');
    if present > 2 * greatest(analysed, 500) then
        analyze contexts (id);
        analyze row_changes (context_id, epoch);
    end if;
end
$$;
revoke execute on function upkeep from public;
