"""A todo list in Django: a view that is synchronous, one that is not, and a command."""

import os
import sys

import django
from django.conf import settings
from django.core.management import call_command
from django.http import HttpRequest, JsonResponse
from django.test import Client
from django.urls import path
from psycopg import conninfo

import bemi

_address = conninfo.conninfo_to_dict(os.environ["DATABASE_URL"])

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "bemi.integrations.django",
        "todo",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "bemi.integrations.django.ContextMiddleware",
    ],
    # Sessions in cookies, so that the only tables that change are the application's.
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    SECRET_KEY="of an example",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _address["dbname"],
            "USER": _address["user"],
            "PASSWORD": _address.get("password", ""),
            "HOST": _address["host"],
            "PORT": _address["port"],
        }
    },
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402 - models come after the settings
from django.db import connection  # noqa: E402
from todo.models import Todo  # noqa: E402


def add(request: HttpRequest) -> JsonResponse:
    todo = Todo.objects.create(task=request.POST["task"])
    return JsonResponse({"id": todo.pk})


async def complete(_: HttpRequest, key: int) -> JsonResponse:
    todo = await Todo.objects.aget(pk=key)
    todo.done = True
    await todo.asave()
    return JsonResponse({"id": todo.pk})


urlpatterns = [path("todo/", add), path("todo/<int:key>/complete/", complete)]


def make_tables() -> None:
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Todo)
    User.objects.create_user("ada")


def take_requests() -> None:
    client = Client()
    with bemi.context(job="sign in"):
        client.force_login(User.objects.get(username="ada"))
    for task in ("Buy milk", "Call Ada"):
        client.post("/todo/", {"task": task}, headers={"X-Request-ID": f"req-{task[0]}"})
    client.post("/todo/1/complete/")
    call_command("cleanup")


if __name__ == "__main__":
    make_tables() if sys.argv[1:] == ["tables"] else take_requests()
