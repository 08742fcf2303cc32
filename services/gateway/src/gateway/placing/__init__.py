"""Which node a request should go to: filter → score → pick. Pure; what must be exact is picked in Redis, the same way.

A score is a load in requests: those that are live, the tokens that are pending, and a bias for what else speaks against
a node; divided by the node's weight. The least wins, or the preferred node while its load is within a bound.
"""
