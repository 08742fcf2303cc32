"""What an operator watches of billing. No label comes from outside."""

from prometheus_client import Counter, Gauge, Histogram

RECORDED = Counter("crosslogic_usage_recorded", "Usage records that changed the ledger")
REPEATED = Counter("crosslogic_usage_repeated", "Usage records that the ledger had already, or a better one of")
UNPRICED = Counter("crosslogic_usage_unpriced", "Usage records parked because no price was in force")
BATCH_SECONDS = Histogram(
    "crosslogic_usage_batch_seconds",
    "From a batch in hand to its commit",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)
LAG = Gauge("crosslogic_usage_lag", "Usage events that are published and not charged or parked yet")
METER_DELIVERED = Counter("crosslogic_meter_delivered", "Batches that Stripe's meter has")
METER_FAILED = Counter("crosslogic_meter_failed", "Tries to tell Stripe's meter that failed", ["why"])
METER_LOST = Counter("crosslogic_meter_lost_microusd", "Micro-dollars told to Stripe that had not arrived, told again")
METER_LAG = Gauge("crosslogic_meter_lag_seconds", "Age of the oldest change that Stripe's meter has not been told")
METER_UNCERTAIN = Gauge("crosslogic_meter_uncertain", "Batches of which it is not known whether Stripe has them")
NOTICES = Counter("crosslogic_notices", "Tries to send a notice", ["kind", "outcome"])
WEBHOOKS = Counter("crosslogic_stripe_events", "Webhooks of Stripe by what became of them", ["state"])
LEAK = Gauge("crosslogic_leak_ratio", "Of the tokens that engines made yesterday, those that nobody was charged for")
UNRECONCILED = Gauge("crosslogic_unreconciled_hours", "Hours of tenants of yesterday in which Stripe's meter differs")
