-- How many changes there were, by the hour: charts of long times need not read each of them. Up to
-- `counted.position` of each epoch's log; what is behind it is counted anew by who asks.
create table hourly_counts (
    epoch int not null references epochs on delete cascade,
    hour timestamptz not null,
    schema text not null,
    "table" text not null,
    operation text not null,
    changes bigint not null,
    primary key (epoch, hour, schema, "table", operation)
);
create index on hourly_counts (hour);

create table hourly_users (
    epoch int not null references epochs on delete cascade,
    hour timestamptz not null,
    user_id text,  -- empty: of changes whose context has none
    changes bigint not null
);
create unique index on hourly_users (epoch, hour, coalesce(user_id, ''), (user_id is null));
create index on hourly_users (hour);

create table counted (
    epoch int primary key references epochs on delete cascade,
    position bigint not null  -- commits before this are counted
);

-- What is not counted yet was committed no earlier than this, by the source's clock, which may have
-- gone back: all that was stored since the last mark, and what was not counted of before it.
alter table checkpoints
    add column uncounted_since timestamptz,
    add column counting_since timestamptz,
    add column counting_epoch int,
    add column counting_position bigint;  -- where the last mark was set
update checkpoints set uncounted_since = '-infinity';

-- Whether there is something to count. In a transaction of its own before `count_changes`, so that
-- what is stored while that counts is noted apart.
create function mark_uncounted(source text) returns bool
language sql security definer set search_path from current
as $$
    update checkpoints k
    set counting_since = least(counting_since, uncounted_since), uncounted_since = null,
        counting_epoch = epoch, counting_position = position
    from sources s
    where s.source_id = k.source_id and s.name = $1 and uncounted_since is not null;
    select exists (
        select from checkpoints k join sources s using (source_id)
        where s.name = $1 and counting_since is not null
    )
$$;
revoke execute on function mark_uncounted from public;

-- Counts what is stored up to the last mark.
create function count_changes(source text) returns void
language plpgsql security definer set search_path from current
as $$
declare
    of_source smallint := (select s.source_id from sources s where s.name = source);
    mark record;
begin
    perform pg_advisory_xact_lock(hashtextextended('bemi.counted', of_source));
    select * into mark from checkpoints k where k.source_id = of_source;
    if mark.counting_since is null then
        return;
    end if;
    with new as materialized (
        select
            r.epoch,
            date_trunc('hour', r.committed_at at time zone 'UTC') at time zone 'UTC' as hour,
            r.schema,
            r."table",
            r.operation,
            coalesce(c.context #>> '{user_id}', c.context ->> 'user_id') as user_id,
            count(*) as changes
        from epochs e
        left join counted k using (epoch)
        join row_changes r on r.epoch = e.epoch
        left join contexts c on c.id = r.context_id
        where e.source_id = of_source
            and r.committed_at >= mark.counting_since
            and r.commit_position >= coalesce(k.position, 0)
            and (r.epoch < mark.counting_epoch
                or r.epoch = mark.counting_epoch and r.commit_position < mark.counting_position)
        group by 1, 2, 3, 4, 5, 6
    ),
    of_tables as (
        insert into hourly_counts as h (epoch, hour, schema, "table", operation, changes)
        select epoch, hour, schema, "table", operation, sum(changes) from new group by 1, 2, 3, 4, 5
        on conflict (epoch, hour, schema, "table", operation)
            do update set changes = h.changes + excluded.changes
    )
    insert into hourly_users as h (epoch, hour, user_id, changes)
    select epoch, hour, user_id, sum(changes) from new group by 1, 2, 3
    on conflict (epoch, hour, coalesce(user_id, ''), (user_id is null))
        do update set changes = h.changes + excluded.changes;
    insert into counted as k (epoch, position)
    select e.epoch, case when e.epoch = mark.counting_epoch then mark.counting_position
        else 9223372036854775807 end
    from epochs e where e.source_id = of_source and e.epoch <= mark.counting_epoch
    on conflict (epoch) do update set position = greatest(k.position, excluded.position);
    update checkpoints k set counting_since = null
    where k.source_id = of_source and k.counting_epoch = mark.counting_epoch
        and k.counting_position = mark.counting_position;
end
$$;
revoke execute on function count_changes from public;
