-- which weights a node serves, and whether streams may be continued from it
alter table scheduler.nodes
    add column revision text not null default '',
    add column continuation boolean not null default true;
