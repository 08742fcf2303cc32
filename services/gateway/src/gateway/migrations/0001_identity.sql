-- Who may call: tenants, their environments and members, and API keys as SHA-256.
create table gateway.tenants (
    id uuid primary key,
    name text not null,
    email text not null,
    plan text not null default 'pay_as_you_go',
    status text not null default 'active' check (status in ('active', 'suspended')),
    limits jsonb not null default '{}',
    created_at timestamptz not null default now()
);

create table gateway.environments (
    id uuid primary key,
    tenant_id uuid not null references gateway.tenants,
    name text not null,
    region text not null default '',
    created_at timestamptz not null default now(),
    unique (tenant_id, name)
);

create table gateway.api_keys (
    id uuid primary key,
    tenant_id uuid not null references gateway.tenants,
    environment_id uuid not null references gateway.environments,
    name text not null,
    prefix text not null,
    -- the key itself is shown once and never stored
    hash bytea not null unique check (length(hash) = 32),
    requests_per_minute integer check (requests_per_minute > 0),
    tokens_per_minute integer check (tokens_per_minute > 0),
    max_concurrency integer check (max_concurrency > 0),
    models text[],
    budget_usd numeric(20, 6) check (budget_usd >= 0),
    expires_at timestamptz,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
create index on gateway.api_keys (tenant_id, id);
