-- What applications show their own customers of the history: each embed with its bound, and the
-- public key by which tokens for it are known. Nothing here signs one.
create table embeds (
    embed_id int generated always as identity primary key,
    kid text not null unique check (kid <> ''),  -- its name in tokens and addresses
    name text not null check (name <> ''),
    source text not null,
    tables jsonb not null,  -- with the columns that may be told, and the one that has the tenant
    tenant_context text,  -- the member of the context that has the tenant, too
    context text[] not null,  -- the members that may be told
    origins text[] not null,  -- of the pages that may show it
    public_key jsonb not null,
    seal bytea not null,  -- seals the places where pages end; nothing is signed with it
    created_by text not null,  -- the name by then
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

alter table accesses add column embed_id int references embeds;
create index on accesses (embed_id, at, access_id) where embed_id is not null;
