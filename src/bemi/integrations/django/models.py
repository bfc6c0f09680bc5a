"""The history as a model that is only read: the view `bemi.changes`."""

from typing import Any, TypeVar

from django.contrib.postgres.fields import ArrayField
from django.core.serializers.json import DjangoJSONEncoder
from django.db import NotSupportedError, models
from django.db.models.fields.json import KeyTransform

from bemi.integrations.django import options
from bemi.integrations.reading import difference, key_text, stored_key

_Self = TypeVar("_Self", bound="ChangeQuerySet")


class ChangeQuerySet(models.QuerySet):
    """Changes, narrowed down: `Change.objects.updated().context(user_id=42).desc()`."""

    def created(self: _Self) -> _Self:
        return self.filter(operation="CREATE")

    def updated(self: _Self) -> _Self:
        return self.filter(operation="UPDATE")

    def deleted(self: _Self) -> _Self:
        return self.filter(operation="DELETE")

    def before(self: _Self, **values: Any) -> _Self:
        """Those whose row had these values before."""
        return self.filter(before__contains=values)

    def before_not(self: _Self, **values: Any) -> _Self:
        return self.exclude(before__contains=values)

    def after(self: _Self, **values: Any) -> _Self:
        """Those whose row had these values afterwards."""
        return self.filter(after__contains=values)

    def after_not(self: _Self, **values: Any) -> _Self:
        return self.exclude(after__contains=values)

    def context(self: _Self, **values: Any) -> _Self:
        """Those whose context has these members."""
        return self.filter(context__contains=values)

    def context_not(self: _Self, **values: Any) -> _Self:
        return self.exclude(context__contains=values)

    def field_changed(self: _Self, column: str) -> _Self:
        """Updates that gave the column another value, or may have: the flag `before_unknown` says
        where that is not known."""
        return self.updated().filter(_differ(column))

    def asc(self: _Self) -> _Self:
        """In the order in which the changes were committed."""
        return self.order_by("committed_at", "commit_position", "ordinal")

    def desc(self: _Self) -> _Self:
        """The latest first."""
        return self.order_by("-committed_at", "-commit_position", "-ordinal")

    def of(
        self: _Self, model: type[models.Model], key: object = None, schema: str | None = None
    ) -> _Self:
        """Those of a model's table, or of the one row of it that has, or had, this key.

        `schema`: where the table is, when its name does not say it and it is not `public`.
        """
        named, table = _table_of(model)
        found = self.filter(schema=schema or named, table=table)
        if key is None:
            return found
        parts = key if isinstance(key, tuple) else (key,)
        text = stored_key([key_text(part) for part in parts])
        return found.filter(models.Q(primary_key=text) | models.Q(previous_key=text))


class _Manager(models.Manager.from_queryset(ChangeQuerySet)):  # type: ignore[misc]
    def get_queryset(self) -> Any:
        found = super().get_queryset()
        alias = options.load().history
        return found if alias is None or self._db else found.using(alias)


class Change(models.Model):
    """One row that was created, updated or deleted. It is read, and never written."""

    OPERATIONS = (
        ("CREATE", "created"),
        ("UPDATE", "updated"),
        ("DELETE", "deleted"),
        ("TRUNCATE", "truncated"),
        ("SNAPSHOT", "there at a baseline"),
    )

    id = models.UUIDField(primary_key=True)
    database = models.TextField()
    schema = models.TextField()
    table = models.TextField()
    primary_key = models.TextField(null=True)
    previous_key = models.TextField(null=True)
    operation = models.TextField(choices=OPERATIONS)
    before = models.JSONField(encoder=DjangoJSONEncoder)
    after = models.JSONField(encoder=DjangoJSONEncoder)
    context = models.JSONField(encoder=DjangoJSONEncoder)
    committed_at = models.DateTimeField()
    queued_at = models.DateTimeField()
    created_at = models.DateTimeField()
    transaction_id = models.BigIntegerField()
    position = models.BigIntegerField()
    commit_position = models.BigIntegerField()
    ordinal = models.IntegerField()
    epoch = models.BigIntegerField()
    source = models.TextField()
    flags = ArrayField(models.TextField(), null=True)
    rules = models.IntegerField(null=True)

    objects = _Manager()

    class Meta:
        managed = False
        db_table = '"{}"."changes"'.format(options.load().schema.replace('"', '""'))
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.table} {self.primary_key}: {self.get_operation_display()}"

    def diff(self) -> dict[str, tuple[Any, Any]]:
        """The columns whose values differ, each with the value before and the one after."""
        return difference(self.before, self.after)

    def save(self, *_: Any, **__: Any) -> None:
        raise NotSupportedError("the history is only read")

    def delete(self, *_: Any, **__: Any) -> Any:
        raise NotSupportedError("the history is only read")


class HistoryMixin:
    """For a model: `todo.bemi_changes()`."""

    def bemi_changes(self) -> ChangeQuerySet:
        return bemi_changes(self)


def bemi_changes(instance: Any, schema: str | None = None) -> ChangeQuerySet:
    """The changes of an instance's row; order and narrow them down as any others."""
    changes: Any = Change.objects
    if options.load().history is None:
        changes = changes.using(instance._state.db)  # noqa: SLF001 - documented by Django
    found: ChangeQuerySet = changes.of(type(instance), instance.pk, schema)
    return found


def _table_of(model: type[models.Model]) -> tuple[str, str]:
    """Schema and name of a model's table; written as `"schema"."table"` it has a schema."""
    name = model._meta.db_table  # noqa: SLF001 - documented by Django
    schema, dot, table = name.partition('"."')
    return (schema.strip('"'), table.strip('"')) if dot else ("public", name.strip('"'))


def _differ(column: str) -> models.Func:
    return models.Func(
        KeyTransform(column, "before"),
        KeyTransform(column, "after"),
        template="(%(expressions)s)",
        arg_joiner=" IS DISTINCT FROM ",
        output_field=models.BooleanField(),
    )
