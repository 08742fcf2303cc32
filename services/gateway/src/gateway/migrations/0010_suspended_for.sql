-- Why a tenant is suspended, so that a payment lifts only what a missing payment has imposed. `status` says whether;
-- a row that an older version suspended names no reason and counts as suspended by an admin.
alter table gateway.tenants add column suspended_for text[] not null default '{}'
    check (suspended_for <@ array['admin', 'non_payment']);
