-- What a plan grants, by version; and which plan a tenant is on, from which hour. Nothing is ever edited: what was owed
-- must stay explicable. Without a row a plan grants nothing, and a tenant pays as it goes.
create table billing.plans (
    id uuid primary key,
    plan text not null check (plan in ('pay_as_you_go', 'prepaid', 'free', 'committed')),
    free_monthly_picousd numeric(38, 0) not null check (free_monthly_picousd >= 0),
    unit_hour_picousd numeric(38, 0) not null check (unit_hour_picousd >= 0),
    effective_from timestamptz not null check (extract(epoch from effective_from)::bigint % 3600 = 0),
    created_at timestamptz not null,
    created_by text not null
);

create trigger append_only before update or delete or truncate on billing.plans
    for each statement execute function billing.refuse();

create table billing.assignments (
    id uuid primary key,
    tenant_id uuid not null,
    plan text not null check (plan in ('pay_as_you_go', 'prepaid', 'free', 'committed')),
    units integer not null check (units >= 0),
    effective_from timestamptz not null check (extract(epoch from effective_from)::bigint % 3600 = 0),
    created_at timestamptz not null,
    created_by text not null
);

create index on billing.assignments (tenant_id);

create trigger append_only before update or delete or truncate on billing.assignments
    for each statement execute function billing.refuse();

-- Prices for one plan only; '' is any.
alter table billing.prices
    add column plan text not null default ''
        check (plan in ('', 'pay_as_you_go', 'prepaid', 'free', 'committed')),
    drop constraint prices_model_region_effective_from_key,
    add unique (model, region, plan, effective_from);

-- A credit pays for usage from the hour in which it was granted, by when requests began: what had been recorded by then
-- says nothing of that, and is no longer written.
alter table billing.credits
    add column kind text not null default 'paid' check (kind in ('promotional', 'paid')),
    alter column spent_before_picousd set default 0;
