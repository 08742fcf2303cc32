-- Requests that began ahead of this server's clock, when they were charged: few, and a new price must begin after them.
create index usage_ahead on billing.usage (model, started_at) where started_at > recorded_at;
