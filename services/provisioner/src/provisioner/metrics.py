"""What an operator watches of the provisioner. No label comes from outside."""

from prometheus_client import Counter

REQUESTS = Counter("crosslogic_scale_requests", "Requests to scale, each counted once")
