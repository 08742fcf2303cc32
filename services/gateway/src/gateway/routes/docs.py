"""The API's description: `/openapi.json`, and a page at `/docs` that needs nothing from elsewhere."""

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.plugins import JsonRenderPlugin

from common.errors import NotFound
from gateway import openapi

FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>CrossLogic API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = b'SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", deepLinking: true, persistAuthorization: true})\n'
POLICY = {"content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"}
DAY = {"cache-control": "public, max-age=86400"}


class Whole(JsonRenderPlugin):
    """Litestar's document, completed."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # Any: Litestar's
        return msgspec.json.encode(openapi.complete(openapi_schema))


def handlers() -> list[HTTPRouteHandler]:
    @get("/docs", include_in_schema=False, sync_to_thread=False)
    def page() -> Response[str]:
        return Response(PAGE, media_type=MediaType.HTML, headers=POLICY)

    @get("/docs/{name:str}", include_in_schema=False, sync_to_thread=False)
    def file(name: str) -> Response[bytes]:
        if name == "start.js":
            return Response(START, media_type="text/javascript")
        if name not in FILES:
            raise NotFound(f"no such file: {name}")
        return Response(_asset(name), media_type=FILES[name], headers=DAY)

    return [page, file]


@functools.cache
def _asset(name: str) -> bytes:
    # found, not imported: the package's own code would load a templating engine
    spec = find_spec("swagger_ui")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return (Path(spec.submodule_search_locations[0]) / "static" / name).read_bytes()
