"""The libraries that contexts go through, each as an application would use it.

A module a library. The rules in `test_rules.py` are the same for all of them.
"""

from tests.conformance.clients import asyncpg, piccolo, psycopg3, tortoise
from tests.conformance.clients.client import Client

CLIENTS: tuple[Client, ...] = (
    psycopg3.SYNC,
    psycopg3.ASYNC,
    asyncpg.CLASS,
    asyncpg.INSTALLED,
    tortoise.CLIENT,
    piccolo.CLIENT,
)
