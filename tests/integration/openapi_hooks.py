"""For schemathesis: what it makes up asks for a model that is served, briefly, and for a tenant that there is."""

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


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    if isinstance(path_parameters, dict) and "tenant_id" in path_parameters:
        return {**path_parameters, "tenant_id": os.environ["TENANT"]}
    return path_parameters
