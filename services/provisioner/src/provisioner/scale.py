"""Which of several requests for a model's capacity holds, and which can never be met. Pure."""

from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec

from common.errors import Unprocessable
from common.events import ScaleRequested

LONGEST_REASON = 2000
LAST_EPOCH = 2**63 - 1


class Shared(msgspec.Struct, frozen=True):
    """A deployment as one of those that a model's replicas are shared between."""

    id: UUID
    weight: float
    least: int
    most: int


_decoder = msgspec.json.Decoder(ScaleRequested)


def read(body: bytes) -> ScaleRequested:
    """Raises Unprocessable with a reason for operators."""
    try:
        request = _decoder.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Unprocessable(f"not a request to scale: {error}") from error
    if request.epoch > LAST_EPOCH:
        raise Unprocessable(f"epoch {request.epoch} is above {LAST_EPOCH}")
    if len(request.reason) > LONGEST_REASON or "\0" in request.reason + request.model:
        raise Unprocessable(f"reason is longer than {LONGEST_REASON} characters, or a text contains NUL")
    return request


def latest(requests: Iterable[ScaleRequested]) -> list[ScaleRequested]:
    """The one that holds of each model, in order of model: of the highest epoch, then of the greater id."""
    found: dict[str, ScaleRequested] = {}
    for request in requests:
        known = found.get(request.model)
        if known is None or (request.epoch, request.id) > (known.epoch, known.id):
            found[request.model] = request
    return [found[model] for model in sorted(found)]


def share(replicas: int, of: Sequence[Shared]) -> dict[UUID, int]:
    """A model's replicas over its deployments, by weight, each within its bounds; the largest rest gets the odd one."""
    total = sum(one.weight for one in of)
    exact = {one.id: replicas * one.weight / total for one in of}
    given = {id: int(count) for id, count in exact.items()}
    by_rest = sorted(of, key=lambda one: (given[one.id] - exact[one.id], one.id))
    for one in by_rest[: replicas - sum(given.values())]:
        given[one.id] += 1
    return {one.id: min(max(given[one.id], one.least), one.most) for one in of}
