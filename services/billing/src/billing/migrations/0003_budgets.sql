-- What a tenant may spend in a month of UTC. Hard ones are enforced by the gateways, others only watched.
create table billing.budgets (
    tenant_id uuid primary key,
    monthly_picousd numeric(38, 0) not null check (monthly_picousd >= 0),
    hard boolean not null,
    updated_at timestamptz not null default now(),
    updated_by text not null
);

-- Paid in advance. `spent_before` is all that the tenant had spent when its first credit was granted: credits pay for
-- what came after it.
create table billing.credits (
    id uuid primary key,
    tenant_id uuid not null,
    amount_picousd numeric(38, 0) not null check (amount_picousd > 0),
    spent_before_picousd numeric(38, 0) not null,
    reason text not null,
    expires_at timestamptz,
    created_at timestamptz not null default now(),
    created_by text not null
);

create index on billing.credits (tenant_id, id);

create trigger append_only before update or delete or truncate on billing.credits
    for each statement execute function billing.refuse();

-- The version of what gateways were told last of a tenant.
create table billing.accounts (
    tenant_id uuid primary key,
    version bigint not null
);
