"""Libraries of Ruby, each in a program of its own: packages/ruby/conformance."""

import functools
from collections.abc import Sequence
from typing import Any

from tests.conformance.clients import process
from tests.conformance.clients.client import Client
from tests.support import ruby


def _command(library: str) -> Sequence[str]:
    return [ruby.ruby(), "-W1", str(ruby.PACKAGE / "conformance/run.rb"), library]


def _client(name: str, library: str, **about: Any) -> Client:
    return process.client(name, functools.partial(_command, library), pools=True, **about)


PG = _client("ruby-pg", "pg")

ACTIVE_RECORD = _client("Active Record", "active_record", values_in_text=True)
SEQUEL = _client("Sequel", "sequel", values_in_text=True)

CLIENTS = (PG, ACTIVE_RECORD, SEQUEL)
