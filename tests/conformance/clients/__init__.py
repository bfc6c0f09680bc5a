"""The libraries that contexts go through, each as an application would use it.

A module a library. The rules in `test_rules.py` are the same for all of them.
"""

from tests.conformance.clients import (
    asyncpg,
    django5,
    javascript,
    peewee,
    piccolo,
    psycopg2,
    psycopg3,
    ruby,
    sqlalchemy,
    tortoise,
)
from tests.conformance.clients.client import Client

CLIENTS: tuple[Client, ...] = (
    psycopg3.SYNC,
    psycopg3.ASYNC,
    psycopg2.FACTORY,
    psycopg2.INSTALLED,
    asyncpg.CLASS,
    asyncpg.INSTALLED,
    peewee.PSYCOPG2,
    peewee.PSYCOPG,
    tortoise.CLIENT,
    piccolo.CLIENT,
    sqlalchemy.PSYCOPG,
    sqlalchemy.ASYNC_PSYCOPG,
    sqlalchemy.PSYCOPG2,
    sqlalchemy.ASYNCPG,
    django5.PSYCOPG,
    django5.SERVER_BINDING,
    django5.PSYCOPG2,
    *javascript.CLIENTS,
    *ruby.CLIENTS,
)
