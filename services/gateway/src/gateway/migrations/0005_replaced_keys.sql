-- Which key took the place of one that was rotated.
alter table gateway.api_keys add column replaced_by uuid references gateway.api_keys;
