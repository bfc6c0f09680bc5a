"""The checks of source and destination: each looks at one thing and returns one finding.

A finding says what is so, and where it is not as it should be, the exact fix. `CHECKS` lists
them in the order in which they rest on each other.
"""

from typing import Final

from bemi.capture.checks import ddl, destination, identity, postgrest, published, source
from bemi.capture.checks.finding import Check, Servers
from bemi.observed import Finding

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Servers",
    "ddl",
    "destination",
    "identity",
    "postgrest",
    "published",
    "source",
]

CHECKS: Final = (
    Check("source", source.reachable),
    Check("destination", destination.reachable),
    Check("version", source.version, ("source",)),
    Check("primary", source.primary, ("source",)),
    Check("wal_level", source.wal_level, ("source",)),
    Check("replication", source.replication_privilege, ("source",)),
    Check("free slots", source.free_slots, ("source",)),
    Check("free senders", source.free_senders, ("source",)),
    Check("source TLS", source.tls, ("source",)),
    Check("wal_sender_timeout", source.wal_sender_timeout, ("source",)),
    Check("WAL retention", source.wal_retention, ("source",)),
    Check("encoding", source.encoding, ("source",)),
    Check("tables", published.trackable, ("source",)),
    Check("rules", published.rules, ("source",)),
    Check("may publish", published.ownership, ("source",)),
    Check("publication", published.publication_whole, ("source",)),
    Check("tracked", published.all_published, ("publication",)),
    Check("slot", published.slot_usable, ("source",)),
    Check("failover", published.failover, ("slot",)),
    Check("DDL", ddl.recorded, ("source",)),
    Check("PostgREST", postgrest.contexts, ("source",)),
    Check("writable", destination.writable, ("destination",)),
    Check("destination encoding", destination.encoding, ("destination",)),
    Check("history", destination.version, ("destination",)),
    Check("destination TLS", destination.tls, ("destination",)),
    Check("identity prices", identity.prices, ("source",)),
    Check("durability", destination.durable_commits, ("destination",)),
    Check("clocks", destination.clocks, ("source", "destination")),
)
