-- The audit log: appended to, never changed; each row carries the hash of the one before.
create table gateway.audit (
    seq bigint primary key,
    id uuid not null unique,
    time timestamptz not null,
    actor text not null,
    action text not null,
    target text not null,
    tenant_id uuid,
    -- null: the call is about to be forwarded; its outcome is a later row of the same request_id
    status integer,
    count integer not null check (count > 0),
    address text not null,
    request_id text not null,
    before_sha256 text,
    after_sha256 text,
    prev_hash text not null,
    hash text not null
);
create index on gateway.audit (tenant_id, seq);
create index on gateway.audit (actor, seq);

create function gateway.audit_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'gateway.audit is append-only' using errcode = 'insufficient_privilege';
end
$$;
create trigger append_only before update or delete on gateway.audit
    for each row execute function gateway.audit_is_append_only();
create trigger no_truncate before truncate on gateway.audit
    for each statement execute function gateway.audit_is_append_only();
-- the owner too; a superuser passes both, and is found by the chain
revoke update, delete, truncate on gateway.audit from public, current_user;

-- How far the log has been published: one row, whose lock makes one gateway the publisher.
create table gateway.audit_published (
    only_row boolean primary key default true check (only_row),
    seq bigint not null,
    hash text not null
);
insert into gateway.audit_published (seq, hash) values (0, repeat('0', 64));
