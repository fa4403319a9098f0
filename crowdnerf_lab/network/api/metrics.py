"""Metrics: what the service counts and times, in Prometheus' text format. Each API process answers for itself.

Counts of contributions, UEs and versions are the same from every process; requests and views are its own.
"""

import time
from collections.abc import Callable, Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper ends of the latency histogram; 1 s is the use case's bound."""
Sample = tuple[dict[str, str], float]
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
disable_created_metrics()  # two lines less for each series
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """Counters and histograms of one API process, in a registry of their own. Labels never name a UE."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "crowdnerf_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.seconds = Histogram(
            "crowdnerf_request_seconds",
            "From the request's headers to the answer's last byte.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self.sent = Counter("crowdnerf_model_bytes", "Bytes of models sent.", ("coding",), registry=registry)
        self.selections = Counter(
            "crowdnerf_selections", "Selections, by where inference happens then.", ("inference",), registry=registry
        )
        self.restarts = Counter("crowdnerf_restarts", "Parts that were started again.", ("part",), registry=registry)

    def observe(self, name: str, words: str, *, read: Callable[[], Iterable[Sample]], counts: bool = False) -> None:
        """Add a figure that is read whenever somebody asks for the metrics. counts: it only ever grows."""
        self.registry.register(_Read(name, words, read, counts))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class _Read:
    """A family of samples that are read when asked for (prometheus_client's Collector)."""

    def __init__(self, name: str, words: str, read: Callable[[], Iterable[Sample]], counts: bool) -> None:
        self._name, self._words, self._read, self._counts = name, words, read, counts

    def describe(self) -> Iterable[Metric]:
        """Nothing is read when it is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        samples = list(self._read())
        family = CounterMetricFamily if self._counts else GaugeMetricFamily
        metric = family(self._name, self._words, labels=list(samples[0][0]) if samples else [])
        for labels, value in samples:
            metric.add_metric(list(labels.values()), value)
        yield metric


class RequestMetrics:
    """ASGI middleware: counts and times requests by the template of their route."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        self._of = cache(self._labelled)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in METHODS else "other"
            count, seconds = self._of(method, route, status)
            count.inc()
            seconds.observe(time.perf_counter() - started)

    def _labelled(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """The counter and the histogram of these labels: as many as there are routes, methods and statuses."""
        return self.metrics.requests.labels(method, route, str(status)), self.metrics.seconds.labels(route)
