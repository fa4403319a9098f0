"""Problems: what the service answers instead of what was asked for, as RFC 9457 `application/problem+json`."""

import json
import logging
import secrets
import sqlite3
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "Problem details after RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "about:blank, or the problem's name under /problems/."},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What was wrong, the value seen, what to do."},
        "instance": {"type": "string", "description": "Of an internal error: by which its log entry is found."},
    },
}


class Problem(HTTPException):
    """An answer to raise from anywhere below a route. detail: what was wrong, the value seen, the remedy.

    kind: a slug that programs may rely on ("quota-exceeded"), or about:blank when the status says it all. headers:
    beside those of every problem, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        kind: str = "about:blank",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code=status, detail=detail, headers=dict(headers or {}))
        self.title, self.kind = title, kind

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self.status_code

    def document(self) -> dict[str, Any]:
        """The body, before it is JSON."""
        kind = self.kind if self.kind == "about:blank" else f"/problems/{self.kind}"
        return {"type": kind, "title": self.title, "status": self.status, "detail": self.detail}

    def response(self) -> Response:
        """The whole answer. ASCII only, so that whatever was sent can be quoted in it."""
        return problem_response(self.document(), headers=self.headers or {})


def problem_response(document: Mapping[str, Any], *, headers: Mapping[str, str]) -> Response:
    """A problem's body with its status and headers."""
    return Response(
        json.dumps(document),
        status_code=int(document["status"]),
        headers=dict(headers) | {"Cache-Control": "no-store"},
        media_type=MEDIA_TYPE,
    )


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may answer with these problems, for its OpenAPI description."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


PROBLEMS = declared(401, 403, 404, 413, 422, 429)
"""What every route of a UE may answer; more with `PROBLEMS | declared(409, 416)`."""


def install_problems(app: FastAPI) -> None:
    """Have every error of an application answered as a problem, also those of the framework and of bugs."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(sqlite3.OperationalError, _of_database)
    app.add_exception_handler(Exception, _of_bug)


async def _of_http(request: Request, error: Exception) -> Response:
    if isinstance(error, Problem):
        return error.response()
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    details = {
        404: f"there is nothing at {request.url.path!r:.200}; /openapi.json lists what there is",
        405: f"{request.method:.20} is not for {request.url.path!r:.200}; the Allow header lists what is",
    }
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    detail = details.get(error.status_code, error.detail if isinstance(error.detail, str) else phrase)
    return Problem(error.status_code, phrase, detail, headers=headers).response()


def _allowed(request: Request) -> list[str]:
    """Methods of what is at this path."""
    matching = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in matching for method in getattr(route, "methods", None) or ()}
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if error.body is not None and media_type != "application/json" and not media_type.endswith("+json"):
        detail = f"the body is {media_type or 'of no media type'!r:.80}; send application/json"
        return Problem(415, "Unsupported Media Type", detail, headers={"Accept-Post": "application/json"}).response()
    found = error.errors()
    first = found[0] if found else {"loc": ("body",), "msg": "is not valid", "type": ""}
    where = ".".join(str(part) for part in first["loc"])
    seen = f", not {first['input']!r:.80}" if first["type"] != "missing" and "input" in first else ""
    more = f" ({len(found) - 1} more are wrong)" if len(found) > 1 else ""
    detail = f"{where}: {first['msg']}{seen}; correct it{more}"
    return Problem(422, "Unprocessable Content", detail, kind="invalid-request").response()


async def _of_database(request: Request, error: Exception) -> Response:
    """A full disk, or a lock that somebody holds for too long: nothing was changed."""
    log.error("%s %r: the database says %s", request.method, request.url.path, error)
    detail = "the service cannot write its state at the moment, nothing was changed; try again later"
    return Problem(503, "Service Unavailable", detail, kind="no-database", headers={"Retry-After": "5"}).response()


async def _of_bug(request: Request, error: Exception) -> Response:
    """Nothing of what went wrong, but for a number by which the operator finds it in the log."""
    incident = secrets.token_hex(8)
    log.error("incident %s: %s %r", incident, request.method, request.url.path, exc_info=error)
    detail = "the service failed at this request; try again, and tell its operator the instance if it stays"
    document = Problem(500, "Internal Server Error", detail).document() | {"instance": f"urn:incident:{incident}"}
    return problem_response(document, headers={})
