"""What happens when Django has loaded its apps: new connections and commands are followed."""

import functools
from typing import Any

from django.apps import AppConfig
from django.core.management.base import BaseCommand
from django.db.backends.signals import connection_created

import bemi
from bemi.integrations.django import options

# What answers requests: those say themselves what they are.
_SERVERS = ("runserver", "testserver")


class BemiConfig(AppConfig):
    name = "bemi.integrations.django"
    label = "bemi"
    verbose_name = "History"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        options.load()  # a wrong one is told at the start
        connection_created.connect(_follow, dispatch_uid="bemi")
        if not hasattr(BaseCommand.execute, "__wrapped__"):
            BaseCommand.execute = _with_job(BaseCommand.execute)
        from django.contrib.auth.signals import user_logged_in

        user_logged_in.connect(_logged_in, dispatch_uid="bemi")


def _follow(connection: Any, **_: object) -> None:
    """A connection was opened, or came out of a pool, where it may have been followed before."""
    if connection.vendor != "postgresql":
        return
    driver = connection.connection
    sending = options.load().sending()
    if type(driver).__module__.startswith("psycopg2"):
        from bemi.integrations.django import psycopg2

        psycopg2.install(connection, **sending)
    elif not hasattr(driver, "bemi_sender"):
        from bemi.integrations import psycopg

        psycopg.install(driver, **sending)


def _with_job(execute: Any) -> Any:
    """A command's own context comes over this one; a command inside of a command names itself."""

    @functools.wraps(execute)
    def execute_with_job(command: BaseCommand, /, *arguments: Any, **named: Any) -> Any:
        job = type(command).__module__.rpartition(".")[2]
        if job in _SERVERS:
            return execute(command, *arguments, **named)
        with bemi.context(job=job):
            return execute(command, *arguments, **named)

    return execute_with_job


def _logged_in(user: Any, **_: object) -> None:
    """Who logs in was nobody when the request began, and a session may be written by now."""
    if "request_id" in bemi.current_context():
        bemi.merge_context(user_id=user.pk)
