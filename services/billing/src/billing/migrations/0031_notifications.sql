-- Who wants to be told, and where. A channel without a tenant is the operators'.
create table billing.channels (
    id uuid primary key,
    tenant_id uuid,
    kind text not null check (kind in ('email', 'webhook', 'slack', 'discord')),
    -- an address, or a URL; those of Slack and Discord are secrets
    target text not null,
    -- signs webhooks; shown once
    secret text,
    -- none: every topic
    topics text[] not null,
    created_at timestamptz not null default now(),
    created_by text not null,
    failing_since timestamptz,
    disabled_at timestamptz,
    deleted_at timestamptz
);
create index on billing.channels (tenant_id);

-- What happened, written in the transaction in which it did; `key` names it, so that it is told once.
create table billing.notices (
    id uuid primary key,
    key text not null unique,
    tenant_id uuid,
    topic text not null,
    facts jsonb not null,
    created_at timestamptz not null default now()
);
create index on billing.notices (tenant_id, id);

-- The outbox: a notice on its way to one channel. `due_at` is also a lease: who sends moves it ahead first.
create table billing.deliveries (
    notice_id uuid not null references billing.notices,
    channel_id uuid not null references billing.channels,
    attempts integer not null default 0,
    due_at timestamptz not null default now(),
    sent_at timestamptz,
    failed_at timestamptz,
    last_error text,
    primary key (notice_id, channel_id)
);
create index on billing.deliveries (due_at) where sent_at is null and failed_at is null;
create index on billing.deliveries (channel_id);
