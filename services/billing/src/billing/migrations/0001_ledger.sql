-- Prices are pico-dollars a token, which is micro-dollars a million tokens. A version is never edited: what was charged
-- by it must stay explicable, and replaying the usage stream must charge the same again.
create table billing.prices (
    id uuid primary key,
    model text not null,
    region text not null default '',
    input bigint not null check (input >= 0),
    cached_input bigint not null check (cached_input >= 0),
    output bigint not null check (output >= 0),
    effective_from timestamptz not null,
    created_at timestamptz not null,
    created_by text not null,
    unique (model, region, effective_from)
);

create function billing.refuse() returns trigger language plpgsql as $$
begin
    raise exception '% of % is refused: it is append-only', tg_op, tg_table_name;
end
$$;

create trigger append_only before update or delete or truncate on billing.prices
    for each statement execute function billing.refuse();

-- The ledger: one row a request, forever unique by the request's id. A primary key of a partitioned table must contain
-- the partition key, so a table partitioned by time could only promise uniqueness of (id, time), and a record that came
-- again with another time would be charged twice. A UUIDv7 begins with its millisecond, so ranges of ids are ranges of
-- time: partitioned by id, the months still separate and the key is the id alone.
create table billing.usage (
    id uuid primary key,
    time timestamptz not null,
    tenant_id uuid not null,
    environment_id uuid not null,
    api_key_id uuid not null,
    model text not null,
    region text not null,
    node_id text,
    endpoint text not null,
    streamed boolean not null,
    outcome text not null,
    usage_source text not null,
    input_tokens bigint not null check (input_tokens >= 0),
    cached_tokens bigint not null check (cached_tokens between 0 and input_tokens),
    output_tokens bigint not null check (output_tokens >= 0),
    started_at timestamptz not null,
    first_token_at timestamptz,
    ended_at timestamptz not null,
    attempts integer not null,
    price_id uuid not null, -- no foreign key: prices are never deleted, and every insert would lock the price's row
    cost_picousd numeric(38, 0) not null check (cost_picousd >= 0),
    recorded_at timestamptz not null default now()
) partition by range (id);

create index on billing.usage (tenant_id, id desc);
create index on billing.usage (api_key_id, id desc);

-- Attached, not created as a partition: attaching lets others read and write the ledger meanwhile. The catalog is asked
-- by a query, which sees what others committed before the lock was theirs to give.
create function billing.add_partition(name text, first uuid, next uuid) returns void language plpgsql as $$
begin
    if exists (select from pg_class where relname = name and relnamespace = 'billing'::regnamespace) then
        return;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('billing.add_partition', 0));
    if exists (select from pg_class where relname = name and relnamespace = 'billing'::regnamespace) then
        return;
    end if;
    execute format('create table billing.%I (like billing.usage including all)', name);
    execute format('alter table billing.usage attach partition billing.%I for values from (%L) to (%L)',
                   name, first, next);
end
$$;

-- Sums of the ledger by the hour in which requests began, kept in the transaction that changes the ledger.
create table billing.usage_hourly (
    hour timestamptz not null,
    tenant_id uuid not null,
    environment_id uuid not null,
    api_key_id uuid not null,
    model text not null,
    region text not null,
    requests bigint not null,
    input_tokens bigint not null,
    cached_tokens bigint not null,
    output_tokens bigint not null,
    cost_picousd numeric not null,
    primary key (hour, tenant_id, environment_id, api_key_id, model, region)
);

create index on billing.usage_hourly (tenant_id, hour);
create index on billing.usage_hourly (api_key_id, hour);

-- What has yet to leave this database: changes, negative ones too, whose sum is the ledger.
create table billing.outbox (
    id bigint generated always as identity primary key,
    kind text not null check (kind = 'meter'),
    tenant_id uuid not null,
    hour timestamptz not null,
    cost_picousd numeric not null,
    requests bigint not null,
    created_at timestamptz not null default now(),
    sent_at timestamptz
);

create index on billing.outbox (id) where sent_at is null;
