-- Who may use `bemi serve`, and who has read and done what there. Nothing here lets anybody in: of
-- links, sessions and tokens only digests are kept.
create table people (
    person_id int generated always as identity primary key,
    name text not null unique check (name <> ''),
    email text unique check (email = lower(email collate "C")),  -- who proves to have it comes in
    role text not null check (role in ('viewer', 'editor', 'admin')),
    scopes jsonb,  -- the tables and columns that may be seen; null: all of them
    created_at timestamptz not null default now(),
    disabled_at timestamptz,
    check (role <> 'admin' or scopes is null)  -- who lets others in could let themselves in
);

-- Accounts at OpenID providers, each bound to a person when it first came in by their address: from
-- then on the account is who they are, whatever its address is.
create table identities (
    issuer text,
    subject text,
    person_id int not null references people on delete cascade,
    bound_at timestamptz not null default now(),
    primary key (issuer, subject),
    unique (person_id, issuer)
);

-- One-time links. Without a person: whoever follows it first becomes the owner.
create table sign_in_links (
    digest bytea primary key,
    person_id int references people on delete cascade,
    expires_at timestamptz not null
);

create table sessions (
    digest bytea primary key,
    person_id int not null references people on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index on sessions (person_id);

-- For programs. One that is revoked stays, since the log of accesses names it.
create table api_tokens (
    token_id int generated always as identity primary key,
    digest bytea not null unique,
    name text not null check (name <> ''),
    role text not null check (role in ('viewer', 'editor', 'admin')),
    scopes jsonb,
    created_by text not null,  -- the name by then
    person_id int references people,  -- who made it, or the token that made it, and knows what it is
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    check (role <> 'admin' or scopes is null)
);

-- Written before the answer is: what can't be recorded is not told.
create table accesses (
    access_id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    person_id int references people,
    token_id int references api_tokens,
    actor text not null,  -- the name by then
    address text not null,
    action text not null,  -- as in GET /api/v1/changes
    asked jsonb not null,  -- of what: the parameters
    allowed boolean not null
);
-- The newest first, of all or of what is asked for.
create index on accesses (at, access_id);
create index on accesses (person_id, at, access_id) where person_id is not null;
create index on accesses (token_id, at, access_id) where token_id is not null;
create index on accesses (action, at, access_id);
create index on accesses (at, access_id) where not allowed;

-- Whoever serves can't delete from it, but may let this be done: of what is older, and older than a
-- month, some, so that nobody waits for long.
create function forget_accesses(older_than interval) returns bigint
language sql security definer set search_path from current
as $$
    with forgotten as (
        delete from accesses where access_id in (
            select access_id from accesses
            where at < now() - greatest(older_than, interval '30 days')
            order by at limit 10000
        )
        returning 1
    )
    select count(*) from forgotten
$$;
revoke execute on function forget_accesses from public;
