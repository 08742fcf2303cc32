-- Monthly budgets of API keys, as the gateways that keep them have told: for alerts only.
create table billing.key_budgets (
    api_key_id uuid primary key,
    tenant_id uuid not null,
    monthly_picousd numeric(38, 0) not null,
    told_at timestamptz not null
);
create index on billing.key_budgets (tenant_id);
