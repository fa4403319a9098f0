"""Routes that a whole crowd asks at once: their usual requests skip what takes longer than the answer itself."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

QuickAnswer = Callable[[Request], Coroutine[Any, Any, Response | None]]
_QUICK: dict[str, QuickAnswer] = {}


class CrowdRoute(APIRoute):
    """A route that may have a quick answer. A request that is not quite usual is left to FastAPI, whose reading and
    checking of every parameter takes longer than a download."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The quick answer first, where the operation has one."""
        thorough, operation = super().get_route_handler(), self.operation_id or ""

        async def answered(request: Request) -> Response:
            quick = _QUICK.get(operation)
            return (quick and await quick(request)) or await thorough(request)

        return answered


def answers_quickly(operation: str) -> Callable[[QuickAnswer], QuickAnswer]:
    """Decorates the quick answer of an operation; it returns None for a request that it leaves to FastAPI."""

    def register(answer: QuickAnswer) -> QuickAnswer:
        _QUICK[operation] = answer
        return answer

    return register
