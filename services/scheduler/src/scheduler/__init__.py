"""Which request may run, and where, now: nodes, their health, live leases and what becomes of expired ones."""
