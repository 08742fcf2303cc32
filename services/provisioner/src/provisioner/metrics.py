"""What an operator watches of the provisioner. No label comes from outside."""

from prometheus_client import Counter, Gauge

REQUESTS = Counter("crosslogic_scale_requests", "Requests to scale, each counted once")
LEADING = Gauge("crosslogic_provisioner_leading", "1 while this replica starts and ends machines")
MACHINES = Gauge("crosslogic_machines", "Launches that have not ended", ["state"])
STARTED = Counter("crosslogic_launches_started", "Launches that were intended")
FAILED = Counter("crosslogic_launches_failed", "Launches that ended without a node, or too soon after it", ["failure"])
LEAKED = Counter("crosslogic_machines_leaked", "Machines found after their launch had ended, and ended again")
STRANGE = Gauge("crosslogic_machines_unknown", "Machines that the launchers list and nobody here knows")
