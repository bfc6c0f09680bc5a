"""`cleanup` is the name of the command, and the job that its changes have."""

from typing import Any

from django.core.management.base import BaseCommand

from todo.models import Todo


class Command(BaseCommand):
    def handle(self, **_: Any) -> None:
        Todo.objects.filter(done=True).delete()
