"""``/metrics`` for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable


class Metrics:
    """Counts and durations of requests, the queue, and the served version.

    Args:
        waiting: returns the number of waiting searches.
        version: returns the served version.
        cached: returns the size of the cached thumbnails in bytes.
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
        """Count one response."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
