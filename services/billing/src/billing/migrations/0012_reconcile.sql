-- What engines say that they have done, as their counters were read: the last reading, and by hour what was added.
create table billing.engine_readings (
    node_id text not null,
    model text not null,
    read_at timestamptz not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    primary key (node_id, model)
);

create table billing.engine_hourly (
    hour timestamptz not null,
    node_id text not null,
    model text not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    resets bigint not null, -- a counter that began anew: what it had counted since the reading before is not known
    primary key (hour, node_id, model)
);

-- One a day, by whichever replica comes first; again if that one died before it had a result.
create table billing.reconciliations (
    day date primary key,
    began_at timestamptz not null,
    agrees boolean,
    result bytea
);
