-- What these tenants owe is not the sum of their usage, which is all that a meter can be told: they are invoiced by us.
create view billing.unmetered as
    select distinct tenant_id from billing.assignments where plan in ('free', 'committed');
