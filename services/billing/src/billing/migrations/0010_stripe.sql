-- A tenant's customer at Stripe. `carried` is what was taken from the outbox and is in no batch yet: the pico-dollars
-- below a micro-dollar, less than nothing after a correction. At any moment, for every tenant,
--   ledger = unsent outbox + carried + what the batches count.
create table billing.stripe_customers (
    tenant_id uuid primary key,
    customer_id text not null unique,
    subscription_id text not null,
    starts_at timestamptz not null, -- of the subscription: what is metered before is on no invoice
    name text not null,
    email text not null,
    carried_picousd numeric(38, 0) not null,
    created_at timestamptz not null default now()
);

-- What the meter is told, written before it is told: a batch that may have been sent is sent again only under its own
-- identifier, and only while Stripe still knows that.
create table billing.meter_batches (
    id bigint generated always as identity primary key,
    identifier text not null unique,
    tenant_id uuid not null references billing.stripe_customers,
    hour timestamptz not null, -- of the usage
    at timestamptz not null, -- as Stripe is told, which takes no usage of a month that it has billed
    microusd bigint not null check (microusd > 0),
    counted_microusd bigint not null check (counted_microusd between 0 and microusd), -- less than all once some was lost
    state text not null default 'ready' check (state in ('ready', 'delivered', 'uncertain', 'settled')),
    tries integer not null default 0,
    first_tried_at timestamptz,
    tried_at timestamptz,
    next_try_at timestamptz not null,
    claimed_until timestamptz,
    ended_at timestamptz,
    problem text not null default '',
    created_at timestamptz not null default now()
);

create index on billing.meter_batches (next_try_at, id) where state = 'ready';
create index on billing.meter_batches (tenant_id, at);
create index on billing.meter_batches (id) where state = 'uncertain';
create index on billing.outbox (tenant_id) where sent_at is null;
