"""Django: connections that send the current context, requests that say who and where, and the
history as a model, on an instance and in the admin.

    INSTALLED_APPS = ["bemi.integrations.django", ...]
    MIDDLEWARE = [..., "bemi.integrations.django.ContextMiddleware"]

Models are in `models`, the admin's mixin is in `admin`: they can be imported once the apps are
loaded.
"""

from bemi.integrations.django.middleware import ContextMiddleware

__all__ = ["ContextMiddleware"]
