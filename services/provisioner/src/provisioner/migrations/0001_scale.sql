-- Every request for capacity that came, once each.
create table provisioner.scale_requests (
    id uuid primary key,
    time timestamptz not null,
    model text not null,
    replicas integer not null check (replicas >= 0),
    epoch bigint not null check (epoch >= 0),
    reason text not null,
    recorded_at timestamptz not null default now()
);

create index on provisioner.scale_requests (model, epoch desc);

-- The one of each model that holds: of the highest epoch, and of two of one epoch the one with the greater id, so that
-- the order in which they come does not matter.
create table provisioner.desired (
    model text primary key,
    replicas integer not null check (replicas >= 0),
    epoch bigint not null,
    reason text not null,
    request_id uuid not null references provisioner.scale_requests (id),
    updated_at timestamptz not null default now()
);
