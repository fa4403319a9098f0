"""The service's description: OpenAPI with every problem declared, and a page of it that needs no other server."""

from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from crowdnerf_lab.network.api.problems import PROBLEM_SCHEMA, declared

METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A UE's token, from joining an event; or the operator's.",
}
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "h2{margin-top:2.5rem}summary{cursor:pointer}code,pre{font:13px/1.4 ui-monospace,monospace}"
    "b{display:inline-block;min-width:4.5rem}td{padding:0 1rem .2rem 0;vertical-align:top}pre{overflow:auto}"
)


def describe(application: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application; made once."""
    if application.openapi_schema is None:
        document = get_openapi(
            title=application.title,
            version=application.version,
            description=application.description,
            routes=application.routes,
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = PROBLEM_SCHEMA
        document["components"]["securitySchemes"] = {"bearer": BEARER}
        for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own; problems are sent instead
            schemas.pop(unused, None)
        for operations in document["paths"].values():
            for method, operation in operations.items():
                if method in METHODS:
                    if "401" in operation["responses"]:
                        operation["security"] = [{"bearer": []}]
                    operation["responses"] = _with_problems(operation)
        application.openapi_schema = document
    return application.openapi_schema


def page_of(document: dict[str, Any]) -> str:
    """An OpenAPI document as a page of plain HTML, without scripts."""
    operations = [
        (path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    ]
    tags = dict.fromkeys(tag for _, _, operation in operations for tag in operation.get("tags", ["service"]))
    sections = [
        f"<h2>{escape(tag)}</h2>"
        + "".join(_operation(*each) for each in operations if tag in each[2].get("tags", ["service"]))
        for tag in tags
    ]
    schemas = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_schema(schema)}</details>'
        for name, schema in sorted(document["components"]["schemas"].items())
    )
    title = escape(document["info"]["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1><p>{escape(document['info'].get('description', ''))} "
        f'<a href="/openapi.json">openapi.json</a></p>{"".join(sections)}<h2>Documents</h2>{schemas}'
    )


def _with_problems(operation: dict[str, Any]) -> dict[str, Any]:
    """The declared responses, those to malformed requests as problems, and for all others a problem too."""
    statuses = (400, 413, 415, 422) if "requestBody" in operation else (400, 413)
    problems = {str(status): response for status, response in declared(*statuses).items()}
    own = {status: response for status, response in operation["responses"].items() if not _is_frameworks(response)}
    if "422" in operation["responses"]:
        problems |= {str(status): response for status, response in declared(422).items()}
    rest = declared(500)[500] | {"description": "Any other problem."}
    return dict(sorted((problems | own).items())) | {"default": rest}


def _is_frameworks(response: dict[str, Any]) -> bool:
    return "HTTPValidationError" in str(response.get("content", ""))


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        (escape(f"{parameter['in']} {parameter['name']}"), escape(parameter.get("description", "")))
        for parameter in operation.get("parameters", ())
    ]
    bodies = operation.get("requestBody", {}).get("content", {})
    rows += [(f"body {escape(media_type)}", _reference(content)) for media_type, content in bodies.items()]
    for status, response in operation["responses"].items():
        contents = " ".join(
            f"{escape(media_type)} {_reference(content)}" for media_type, content in response.get("content", {}).items()
        )
        rows.append((escape(str(status)), f"{escape(response['description'])} {contents}"))
    table = "".join(f"<tr><td><code>{name}</code><td>{words}" for name, words in rows)
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code></summary>"
        f"<p>{escape(operation.get('description', ''))}</p><table>{table}</table></details>"
    )


def _schema(schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{_reference({'schema': each})} {escape(each.get('description', ''))}"
        for name, each in schema.get("properties", {}).items()
    )
    return f"<p>{escape(schema.get('description', ''))}</p><table>{rows}</table>"


def _reference(content: dict[str, Any]) -> str:
    schema = content.get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#{escape(name)}">{escape(name)}</a>' if name else escape(str(schema.get("type", "")))
