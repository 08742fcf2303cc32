"""For schemathesis: of the bodies that it makes up, the good ones ask for a model that is served, briefly."""

import os
from typing import Any

import schemathesis

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if not isinstance(body, dict) or not isinstance(body.get("model"), str) or not body["model"]:
        return body
    brief = {name: min(body[name], 20) for name in LIMITS if isinstance(body.get(name), int)}
    return {**body, **brief, "model": os.environ["SERVED_MODEL"]}
