create table scheduler.nodes (
    id text primary key,
    endpoint text not null unique,
    region text not null default '',
    api_key text,
    weight double precision not null default 1 check (weight > 0 and weight <= 1000),
    max_concurrency integer not null default 0 check (max_concurrency >= 0),
    state text not null default 'warming' check (state in ('warming', 'ready', 'unhealthy', 'draining')),
    models jsonb not null default '[]',
    reason text not null default '',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_healthy_at timestamptz
);
