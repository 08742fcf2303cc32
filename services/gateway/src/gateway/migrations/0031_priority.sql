-- In which class a tenant's requests wait where nodes are full, and its share beside others of that class.
alter table gateway.tenants
    add column priority text not null default 'normal' check (priority in ('high', 'normal', 'low')),
    add column weight double precision not null default 1 check (weight >= 0.01 and weight <= 100);
