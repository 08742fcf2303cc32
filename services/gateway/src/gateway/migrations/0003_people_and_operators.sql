-- What a key may be used for and when it last was; people of a tenant; operators beside the root token.
alter table gateway.api_keys
    add column scopes text[] not null default '{inference,usage:read,models:read}',
    add column last_used_at timestamptz;

create table gateway.members (
    id uuid primary key,
    tenant_id uuid not null references gateway.tenants,
    email text not null check (email = lower(email)),
    role text not null check (role in ('owner', 'admin', 'developer', 'billing', 'viewer')),
    created_at timestamptz not null,
    unique (tenant_id, email)
);
create index on gateway.members (email);

create table gateway.operators (
    id uuid primary key,
    name text not null,
    prefix text not null,
    -- the token itself is shown once and never stored
    hash bytea not null unique check (length(hash) = 32),
    scopes text[] not null,
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    revoked_at timestamptz
);
create unique index on gateway.operators (name) where revoked_at is null;
