-- Sums of the ledger by month and price version: what an invoice's lines are made of. Kept, as the hourly ones are, in
-- the transaction that changes the ledger.
create table billing.usage_monthly (
    tenant_id uuid not null,
    month timestamptz not null,
    model text not null,
    region text not null,
    price_id uuid not null,
    requests bigint not null,
    input_tokens bigint not null,
    cached_tokens bigint not null,
    output_tokens bigint not null,
    cost_picousd numeric not null,
    primary key (tenant_id, month, model, region, price_id)
);

insert into billing.usage_monthly
select tenant_id, date_trunc('month', started_at, 'UTC'), model, region, price_id,
    count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(cost_picousd)
from billing.usage group by 1, 2, 3, 4, 5;
