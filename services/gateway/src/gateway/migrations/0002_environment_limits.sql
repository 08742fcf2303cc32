-- Limits of an environment, as a tenant has them: {requests_per_minute, tokens_per_minute, max_concurrency}.
alter table gateway.environments add column limits jsonb not null default '{}';
