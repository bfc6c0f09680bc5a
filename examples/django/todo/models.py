"""What is to be done."""

from django.db import models


class Todo(models.Model):
    task = models.TextField()
    done = models.BooleanField(default=False)

    class Meta:
        db_table = "todo"
