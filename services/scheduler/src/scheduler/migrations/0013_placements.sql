-- how the requests of a model are placed, where that is not by default; and how likely a node is to be taken away
create table scheduler.placements (
    model text primary key,
    policy jsonb not null,
    updated_at timestamptz not null default now()
);
alter table scheduler.nodes add column risk double precision not null default 0 check (risk >= 0 and risk <= 1);
