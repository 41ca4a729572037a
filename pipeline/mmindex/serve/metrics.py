"""``/metrics``: what a Prometheus server reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable


class Metrics:
    """Counts and times of requests, the queue, and the version served.

    Args:
        waiting: how many searches wait now.
        version: the version served now.
        cached: bytes of thumbnails kept.
    """

    def __init__(
        self, waiting: Callable[[], int], version: Callable[[], int], cached: Callable[[], int]
    ) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mmindex_serve_requests",
            "Completed requests.",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "mmindex_serve_request_seconds",
            "Time from request to response.",
            ("route",),
            registry=self._registry,
        )
        for name, text, value in (
            ("mmindex_serve_queue", "Active and waiting searches.", waiting),
            ("mmindex_serve_version", "The version of the store that is served.", version),
            ("mmindex_serve_thumbnail_bytes", "Size of the cached thumbnails.", cached),
        ):
            Gauge(name, text, registry=self._registry).set_function(value)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
