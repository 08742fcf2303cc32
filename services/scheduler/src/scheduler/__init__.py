"""Which request may run, and where, now."""
