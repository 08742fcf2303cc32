-- Events of Stripe that were dealt with, in the transaction that did what they say: an event comes at least once.
create table billing.stripe_events (
    id text primary key,
    type text not null,
    created_at timestamptz not null, -- by Stripe
    state text not null check (state in ('applied', 'stale', 'ignored', 'parked')),
    reason text not null default '',
    body bytea, -- of one that is parked
    received_at timestamptz not null default now()
);

create index on billing.stripe_events (received_at, id) where state = 'parked';

-- The newest that is known of each invoice, whatever the order in which events came.
create table billing.stripe_invoices (
    invoice_id text primary key,
    tenant_id uuid not null references billing.stripe_customers,
    status text not null check (status in ('open', 'failed', 'uncollectible', 'paid', 'void')),
    told_at timestamptz not null, -- by the event that this is from
    failed_at timestamptz -- of the first payment that failed, while none was made
);

create index on billing.stripe_invoices (tenant_id) where failed_at is not null;

-- Tenants that are to be suspended for non-payment, written before the gateway is told; gone once they have paid and
-- the gateway knows.
create table billing.suspensions (
    tenant_id uuid primary key references billing.stripe_customers,
    decided_at timestamptz not null,
    told_at timestamptz
);

-- Credits that Stripe's invoices know of.
create table billing.stripe_grants (
    credit_id uuid primary key references billing.credits,
    grant_id text not null,
    cents bigint not null check (cents > 0),
    created_at timestamptz not null default now()
);
