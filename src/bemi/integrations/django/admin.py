"""The history in Django's admin: a list of changes, and the timeline of an object."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets, unquote
from django.core.exceptions import PermissionDenied
from django.template.response import TemplateResponse

from bemi.integrations.django import options
from bemi.integrations.django.models import Change

_LONGEST = 200


@admin.register(Change)
class ChangeAdmin(admin.ModelAdmin):
    """Read-only. Who may see it has the permission `bemi.view_change`."""

    list_display = ("committed_at", "operation", "table", "primary_key", "diff", "context")
    list_filter = ("operation", "committed_at")
    search_fields = ("=table", "=primary_key")
    search_help_text = "A table, or a key"
    ordering = ("-committed_at", "-commit_position", "-ordinal")
    show_full_result_count = False

    def has_add_permission(self, *_: object) -> bool:
        return False

    def has_change_permission(self, *_: object) -> bool:
        return False

    def has_delete_permission(self, *_: object) -> bool:
        return False


class HistoryAdmin(admin.ModelAdmin):
    """An admin whose button "History" shows the object's changes, of deleted objects too.

    It shows the fields that the object's own page shows, to those who may see that page.
    """

    def history_view(
        self, request: Any, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        instance = self.get_object(request, unquote(object_id))
        if not self.has_view_or_change_permission(request, instance):
            raise PermissionDenied
        changes: Any = Change.objects
        if options.load().history is None:
            changes = changes.using(self.get_queryset(request).db)
        key = unquote(object_id) if instance is None else instance.pk
        found = changes.of(self.model, key).desc()[:_LONGEST]
        shown = self._columns(request, instance)
        timeline = [
            (change, {name: pair for name, pair in change.diff().items() if name in shown})
            for change in found
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": f"History of {instance or object_id}",
            "opts": self.opts,
            "object": instance,
            "timeline": timeline,
            **(extra_context or {}),
        }
        return TemplateResponse(request, "bemi/history.html", context)

    def _columns(self, request: Any, instance: Any) -> set[str]:
        shown = set(flatten_fieldsets(self.get_fieldsets(request, instance)))
        return {field.column for field in self.opts.concrete_fields if field.name in shown}
