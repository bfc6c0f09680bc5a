"""What Prometheus gets. Labels are routes, methods, classes of status and sources: never more than
there are of those."""

from collections.abc import Iterator
from typing import Any, Final

import psycopg
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bemi.api.archive import Archive
from bemi.errors import BemiError
from bemi.store import reader

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Metrics:
    """Of one server."""

    def __init__(self, archive: Archive) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "bemi_http_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "bemi_http_request_seconds",
            "Seconds until an answer was sent whole.",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.streams = Gauge(
            "bemi_http_streams", "Live streams that are open.", registry=self._registry
        )
        self._registry.register(_Sources(archive))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Sources(Collector):
    """Asked anew each time."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def describe(self) -> Iterator[Any]:
        return iter(())

    def collect(self) -> Iterator[Any]:
        up = GaugeMetricFamily("bemi_history_readable", "Whether the history could be read.")
        age = GaugeMetricFamily(
            "bemi_checkpoint_age_seconds",
            "Seconds since a source's checkpoint was written.",
            labels=["source"],
        )
        gaps = GaugeMetricFamily(
            "bemi_gaps", "Gaps of a source that nobody accepted.", labels=["source"]
        )
        dropped = GaugeMetricFamily(
            "bemi_contexts_dropped", "Contexts that could not be read.", labels=["source"]
        )
        try:
            with self._archive.connected() as conn:
                sources = reader.status(conn, self._archive.schema)
        except (BemiError, psycopg.Error):
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        for each in sources:
            if each.removed_at is not None:
                continue
            if each.age is not None:
                age.add_metric([each.source], each.age)
            gaps.add_metric([each.source], len(each.unaccepted))
            dropped.add_metric([each.source], each.dropped)
        yield from (up, age, gaps, dropped)
