-- What admins want: the typed spec, and how many replicas are wanted now.
create table provisioner.deployments (
    id uuid primary key,
    name text not null,
    model text not null,
    launcher text not null check (launcher in ('sky', 'local')),
    generation integer not null default 1 check (generation >= 1),
    -- the last generation of which a node became ready; what it ran is in provisioner.generations
    good_generation integer not null default 0,
    replicas integer not null check (replicas >= 0),
    -- why there are fewer machines than wanted; empty when nothing is in the way
    waiting text not null default '',
    status text not null default 'active' check (status in ('active', 'deleting', 'deleted')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create unique index on provisioner.deployments (name) where status <> 'deleted';
create index on provisioner.deployments (model) where status <> 'deleted';

create table provisioner.generations (
    deployment_id uuid not null references provisioner.deployments (id),
    generation integer not null,
    spec jsonb not null,
    created_at timestamptz not null default now(),
    primary key (deployment_id, generation)
);

-- One try to have a machine for one replica. Written before the launcher is called; the cluster's name is made of
-- deployment, slot and epoch, so that the same intention never names two machines.
create table provisioner.launches (
    id uuid primary key,
    deployment_id uuid not null references provisioner.deployments (id),
    slot integer not null check (slot >= 0),
    epoch integer not null check (epoch >= 1),
    generation integer not null,
    cluster text not null unique,
    launcher text not null,
    state text not null check (
        state in ('intended', 'launching', 'warming', 'ready', 'draining', 'ending', 'gone', 'failed')
    ),
    cloud text not null,
    region text not null,
    accelerator text not null,
    accelerators integer not null,
    choice integer not null,
    spot boolean not null,
    hourly_microusd bigint not null check (hourly_microusd >= 0),
    request_id text,
    endpoint text,
    node_id text,
    reason text not null default '',
    -- of a failure: nothing to be had there now, or something wrong that another place may not cure
    failure text check (failure in ('capacity', 'broken')),
    intended_at timestamptz not null default now(),
    state_at timestamptz not null default now(),
    ready_at timestamptz,
    ended_at timestamptz,
    unique (deployment_id, slot, epoch)
);

create index on provisioner.launches (deployment_id, id desc);
create unique index on provisioner.launches (deployment_id, slot) where state not in ('gone', 'failed');

create view provisioner.live_launches as
    select * from provisioner.launches where state not in ('gone', 'failed');

create view provisioner.launch_costs as
    select *, hourly_microusd * extract(epoch from coalesce(ended_at, now()) - intended_at) / 3600 as cost_microusd
    from provisioner.launches;

create view provisioner.current_deployments as
    select d.id, d.name, d.model, d.generation, d.good_generation, d.replicas, d.waiting, d.status, g.spec, d.created_at,
        d.updated_at
    from provisioner.deployments d
    join provisioner.generations g on g.deployment_id = d.id and g.generation = d.generation;

create sequence provisioner.snapshots;
