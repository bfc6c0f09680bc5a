"""Libraries of JavaScript, each in a program of node's: packages/js/conformance."""

import functools
from collections.abc import Sequence
from typing import Any

from tests.conformance.clients import process
from tests.conformance.clients.client import Client
from tests.support import javascript


def _command(library: str) -> Sequence[str]:
    package = javascript.generated() if library == "prisma" else javascript.built()
    return ["node", str(package / "conformance/run.mjs"), library]


def _client(name: str, library: str, **about: Any) -> Client:
    return process.client(name, functools.partial(_command, library), pools=True, **about)


PG = _client("node-postgres", "pg")
KNEX = _client("Knex", "knex", copies=False)
KYSELY = _client("Kysely", "kysely", copies=False)
DRIZZLE = _client("Drizzle", "drizzle", copies=False)
SEQUELIZE = _client("Sequelize", "sequelize", copies=False)
TYPEORM = _client("TypeORM", "typeorm", copies=False)
MIKRO_ORM = _client(
    "MikroORM",
    "mikro-orm",
    copies=False,
    # Its statements have the values of their parameters in their text.
    options=frozenset(("functions", "check_at_commit")),
)
PRISMA = _client("Prisma", "prisma", copies=False)

CLIENTS = (PG, KNEX, KYSELY, DRIZZLE, SEQUELIZE, TYPEORM, MIKRO_ORM, PRISMA)
