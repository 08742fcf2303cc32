-- Months whose lines are in a file and no longer here. Their ids stay taken: a record of such a month is never charged
-- again, since nobody could tell whether it has been. Sums and invoices stay.
create table billing.archived (
    name text primary key,
    first uuid not null,
    next uuid not null, -- the first id after it
    lines bigint not null,
    cost_picousd numeric(38, 0) not null,
    sha256 text not null, -- of the file
    archived_at timestamptz not null default now()
);

create trigger append_only before update or delete or truncate on billing.archived
    for each statement execute function billing.refuse();

create or replace function billing.add_partition(name text, first uuid, next uuid) returns void language plpgsql as $$
begin
    if exists (select from pg_class where relname = name and relnamespace = 'billing'::regnamespace) then
        return;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('billing.add_partition', 0));
    if exists (select from pg_class where relname = name and relnamespace = 'billing'::regnamespace)
        or exists (select from billing.archived where archived.name = add_partition.name) then
        return;
    end if;
    execute format('create table billing.%I (like billing.usage including all)', name);
    execute format('alter table billing.usage attach partition billing.%I for values from (%L) to (%L)',
                   name, first, next);
end
$$;

-- Forget the lines of a month that is in a file. Refused where a line is not in the sums that the meter is told from, or
-- the meter has not been told yet.
create function billing.drop_partition(
    part text, first_id uuid, next_id uuid, first_hour timestamptz, next_hour timestamptz,
    filed_lines bigint, filed_cost numeric, filed_sha256 text
) returns void language plpgsql as $$
declare
    found_lines bigint;
    found_cost numeric;
begin
    perform pg_advisory_xact_lock(hashtextextended('billing.add_partition', 0));
    execute format('lock table billing.%I in access exclusive mode', part);
    execute format('select count(*), coalesce(sum(cost_picousd), 0) from billing.%I', part)
        into found_lines, found_cost;
    if (found_lines, found_cost) is distinct from (filed_lines, filed_cost) then
        raise exception using errcode = 'P0001', message = format(
            '%s has %s lines, the file %s: it was charged to meanwhile', part, found_lines, filed_lines);
    end if;
    if exists (select from billing.outbox where sent_at is null and hour >= first_hour and hour < next_hour)
        or exists (select from billing.meter_batches where state in ('ready', 'uncertain')
                   and hour >= first_hour and hour < next_hour) then
        raise exception using errcode = 'P0001', message = format('%s is not billed yet', part);
    end if;
    insert into billing.archived (name, first, next, lines, cost_picousd, sha256)
    values (part, first_id, next_id, filed_lines, filed_cost, filed_sha256);
    execute format('alter table billing.usage detach partition billing.%I', part);
    execute format('drop table billing.%I', part);
end
$$;
