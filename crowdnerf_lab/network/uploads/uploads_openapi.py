"""What OpenAPI cannot tell from code that reads tus headers itself: parameters, bodies, answers and their headers."""

from typing import Any

from crowdnerf_lab.network.api.problems import MEDIA_TYPE, PROBLEMS, declared
from crowdnerf_lab.network.uploads import tus

Schema = dict[str, Any]
_BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_BYTES: Schema = {"type": "integer", "minimum": 0, "maximum": tus.MOST_BYTES}
_BODY: Schema = {
    "description": "The next bytes of the file.",
    "content": {tus.CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
}


def _header(name: str, description: str, schema: Schema, *, required: bool = False, example: str = "") -> Schema:
    parameter = {"name": name, "in": "header", "required": required, "description": description, "schema": schema}
    return parameter | ({"example": example} if example else {})


def _path(name: str, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


_RESUMABLE = _header(
    "Tus-Resumable", "The protocol's version.", {"type": "string", "enum": [tus.VERSION]}, required=True
)
_CHECKSUM = _header(
    "Upload-Checksum",
    "Algorithm and base64 of this body's checksum; sha1 or sha256.",
    {
        "type": "string",
        "pattern": "^(?:sha1 [A-Za-z0-9+/]{26}[AEIMQUYcgkosw048]=|sha256 [A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)$",
    },
)
_CREATION = (
    _header("Upload-Length", "Bytes of the whole file.", _BYTES | {"minimum": 1}, required=True, example="48213"),
    _header(
        "Upload-Metadata",
        "Comma-separated pairs of a key and the base64 of its value: filename; filetype (media type); sha256 (of the "
        "whole file, hexadecimal); capture (JSON: time_s and, where known, focal_px, reported, gps, camera). "
        "Other keys are kept and told again.",
        {
            "type": "string",
            "maxLength": tus.METADATA_LETTERS,
            "pattern": f"^filename {_BASE64}(?:,(?:filetype|sha256|capture) {_BASE64})*$",
        },
        example="filename c3RhZ2UuanBn,filetype aW1hZ2UvanBlZw==",
    ),
    _header(
        "Idempotency-Key",
        "The same key again gives the same upload.",
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
    ),
    _CHECKSUM,
)
_TOLD: dict[str, Schema] = {
    "Tus-Resumable": {"description": "The protocol's version.", "schema": {"type": "string"}},
    "Tus-Version": {"description": "Versions that the service speaks.", "schema": {"type": "string"}},
    "Tus-Extension": {"description": "Extensions that it speaks.", "schema": {"type": "string"}},
    "Tus-Max-Size": {"description": "Most bytes of one file.", "schema": {"type": "integer"}},
    "Tus-Checksum-Algorithm": {"description": "For Upload-Checksum.", "schema": {"type": "string"}},
    "Location": {"description": "The upload's path.", "schema": {"type": "string"}},
    "Upload-Offset": {"description": "Bytes that are safe.", "schema": _BYTES},
    "Upload-Length": {"description": "Bytes of the whole file.", "schema": _BYTES},
    "Upload-Metadata": {"description": "As it was sent.", "schema": {"type": "string"}},
    "Upload-Expires": {"description": "Until when it can go on.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "no-store", "schema": {"type": "string"}},
}


def _answer(description: str, *headers: str) -> Schema:
    return {"description": description, "headers": {name: _TOLD[name] for name in ("Tus-Resumable", *headers)}}


_MISMATCH: dict[int | str, Schema] = {
    tus.CHECKSUM_MISMATCH: {
        "description": "Checksum Mismatch",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
_ALWAYS = PROBLEMS | declared(412)
_WRITING = _ALWAYS | _MISMATCH | declared(400, 408, 415, 423, 507)

OPTIONS: Schema = {
    "responses": {204: _answer("What this service speaks of tus.", *list(_TOLD)[1:5])},
    "openapi_extra": {"security": [], "parameters": [_path("event", "An event's name.")]},
}
OPTIONS_OF_ONE: Schema = {
    "responses": OPTIONS["responses"],
    "openapi_extra": {
        "security": [],
        "parameters": [_path("event", "An event's name."), _path("id", "As the creation's Location names it.")],
    },
}
CREATE: Schema = {
    "responses": _WRITING
    | {
        201: _answer(
            "The upload; the same again for a repeated request.", "Location", "Upload-Offset", "Upload-Expires"
        )
    },
    "openapi_extra": {"parameters": [_RESUMABLE, *_CREATION], "requestBody": _BODY | {"required": False}},
}
READ: Schema = {
    "responses": _ALWAYS
    | declared(410)
    | {
        200: _answer(
            "Where to go on.", "Upload-Offset", "Upload-Length", "Upload-Metadata", "Upload-Expires", "Cache-Control"
        )
    },
    "openapi_extra": {"parameters": [_RESUMABLE]},
}
PATCH: Schema = {
    "responses": _WRITING | declared(409, 410) | {204: _answer("Kept.", "Upload-Offset", "Upload-Expires")},
    "openapi_extra": {
        "parameters": [
            _RESUMABLE,
            _header("Upload-Offset", "Where the body goes on.", _BYTES, required=True, example="0"),
            _CHECKSUM,
        ],
        "requestBody": _BODY | {"required": True},
    },
}
TERMINATE: Schema = {
    "responses": _ALWAYS | declared(409, 410) | {204: _answer("Deleted.")},
    "openapi_extra": {"parameters": [_RESUMABLE]},
}
OVERRIDE: Schema = {
    "responses": PATCH["responses"] | declared(405) | {200: READ["responses"][200]},
    "openapi_extra": {
        "parameters": [
            _header(
                "X-HTTP-Method-Override",
                "The method that is meant.",
                {"type": "string", "enum": ["PATCH", "HEAD", "DELETE"]},
                required=True,
            ),
            *PATCH["openapi_extra"]["parameters"],
        ],
        "requestBody": _BODY | {"required": False},
    },
}
