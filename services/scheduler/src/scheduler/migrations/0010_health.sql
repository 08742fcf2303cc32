alter table scheduler.nodes
    add column deployment_id uuid,
    add column token_sha256 bytea,
    add column last_heartbeat_at timestamptz;

-- What the scheduler itself has asked engines for: it is billed to nobody, and engines count it. Kept when a node goes.
create table scheduler.probes (
    node_id text not null,
    hour timestamptz not null,
    model text not null,
    requests bigint not null,
    unanswered bigint not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    primary key (node_id, hour, model)
);

-- The last request for capacity of each deployment, so that epochs grow whichever replica makes the next one.
create table scheduler.scaling (
    deployment_id uuid primary key,
    model text not null,
    replicas integer not null check (replicas >= 0),
    epoch bigint not null,
    reason text not null,
    event_id uuid not null,
    requested_at timestamptz not null
);
