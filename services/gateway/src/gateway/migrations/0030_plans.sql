-- The plans that there are, as billing's tables name them. What was called otherwise never meant anything to billing.
update gateway.tenants set plan = 'pay_as_you_go'
where plan not in ('pay_as_you_go', 'prepaid', 'free', 'committed');
alter table gateway.tenants
    add constraint tenants_plan_check check (plan in ('pay_as_you_go', 'prepaid', 'free', 'committed'));
