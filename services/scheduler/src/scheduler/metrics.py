"""What an operator watches of the scheduler. No label comes from outside."""

from prometheus_client import Counter, Gauge

NODES = Gauge("crosslogic_nodes", "Registered nodes, as the leading replica sees them", ["state"])
LEADING = Gauge("crosslogic_scheduler_leading", "1 on the replica that polls the nodes and publishes the routes")
PROBE_FAILURES = Counter("crosslogic_probe_failures", "Looks at a node that found something wrong")
PROBES = Counter("crosslogic_probes", "Requests by which the scheduler had an engine prove itself")
PROBE_TOKENS = Counter("crosslogic_probe_tokens", "Tokens of those, billed to nobody", ["kind"])
EJECTED = Counter("crosslogic_nodes_ejected", "Nodes taken out of the routes", ["by"])
READMITTED = Counter("crosslogic_nodes_readmitted", "Nodes that came back after a probe")
LATE = Counter("crosslogic_late_outcomes", "Results of requests that a node had been sent in an earlier epoch")
DESIRED = Gauge("crosslogic_desired_replicas", "Replicas asked for, of all models together, by the leading replica")
LEASES = Gauge("crosslogic_leases", "Leases in Redis: live ones, and expired ones not yet settled")
OVERDUE = Gauge(
    "crosslogic_lease_overdue_seconds",
    "How long ago the oldest unsettled lease expired: usage at risk of not being billed; 0 when there is none",
)
REAPED = Counter("crosslogic_leases_reaped", "Expired leases settled as gateway_lost")
REVIVED = Counter("crosslogic_leases_revived", "Leases that their gateway renewed while they were being settled")
PARKED = Counter("crosslogic_leases_parked", "Expired leases whose intent could not be read")
