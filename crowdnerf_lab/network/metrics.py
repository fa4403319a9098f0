"""Metrics: what the service counts and times, in Prometheus' text format. Each API process answers for itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper ends of the latency histogram; 1 s is the use case's bound."""


class Metrics:
    """Counters, gauges and histograms of one service, in a registry of their own. Labels never name a UE."""

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
            "crowdnerf_selections",
            "Models selected, by where inference happens then.",
            ("inference",),
            registry=registry,
        )
        self.uploads = Counter("crowdnerf_uploads", "Uploads, by what became of them.", ("outcome",), registry=registry)
        self.upload_bytes = Counter("crowdnerf_upload_bytes", "Bytes of captures received.", registry=registry)
        self.views = Counter("crowdnerf_views", "Views, by how they were answered.", ("outcome",), registry=registry)
        self.view_seconds = Histogram(
            "crowdnerf_view_seconds", "Stages of a view.", ("stage",), buckets=SECONDS, registry=registry
        )
        self.ues = Gauge("crowdnerf_ues", "UEs present.", ("event",), registry=registry)
        self.contributions = Gauge(
            "crowdnerf_contributions", "Contributions, by state.", ("event", "state"), registry=registry
        )
        self.unfinished = Gauge("crowdnerf_unfinished_uploads", "Uploads under way.", ("event",), registry=registry)
        self.versions = Gauge("crowdnerf_latest_version", "Latest version.", ("event",), registry=registry)
        self.restarts = Counter("crowdnerf_restarts", "Parts started again.", ("part",), registry=registry)
