"""A page on which customers see what happened to one of their orders, in Django.

HISTORY_URL is where `bemi serve` is reached, HISTORY_KEY the private key of the embed, as JSON.
"""

import os
from wsgiref.simple_server import make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template import engines
from django.urls import path
from django.utils.cache import add_never_cache_headers

import bemi

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of an example",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    HISTORY_URL=os.environ["HISTORY_URL"],
    HISTORY_KEY=os.environ["HISTORY_KEY"],
)
django.setup()

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>Order {{ order }}</title>
<script type="module" src="{{ history }}/embed.js"></script>
<main>
<h1>Order {{ order }}</h1>
<bemi-history token-url="{% url 'history-token' order %}"></bemi-history>
</main>
</html>
"""


def customer_of(_request: HttpRequest) -> int:
    """An application asks `request.user`, and never what the browser says itself."""
    return 7


def require_order(customer: int, order: int) -> None:
    """An application looks into its database. Bemi shows what was the customer's all the same."""
    if customer != 7 or order not in (1, 2):
        raise Http404


def show(request: HttpRequest, order: int) -> HttpResponse:
    require_order(customer_of(request), order)
    page = engines["django"].from_string(PAGE)
    return HttpResponse(page.render({"order": order, "history": settings.HISTORY_URL}, request))


def history_token(request: HttpRequest, order: int) -> JsonResponse:
    """Asked for by the page, and again whenever a token has expired."""
    customer = customer_of(request)
    require_order(customer, order)
    token = bemi.embed_token(
        settings.HISTORY_KEY,
        audience=settings.HISTORY_URL,
        tenant=customer,
        tables={"public.orders": ["status", "total"]},
        record=("public.orders", order),
        context=["user_name"],
        language="de",
    )
    response = JsonResponse({"token": token})
    add_never_cache_headers(response)
    return response


urlpatterns = [
    path("orders/<int:order>/", show),
    path("orders/<int:order>/history-token", history_token, name="history-token"),
]


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    make_server("127.0.0.1", port, get_wsgi_application()).serve_forever()
