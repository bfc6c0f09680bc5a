"""A page on which customers see what happened to their orders, on FastAPI.

HISTORY_URL is where `bemi serve` is reached, HISTORY_KEY the private key of the embed, as JSON.
"""

import os
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

import bemi

HISTORY_URL = os.environ["HISTORY_URL"]
HISTORY_KEY = os.environ["HISTORY_KEY"]

app = FastAPI()


class Customer(NamedTuple):
    id: int
    email: str
    language: str


def customer_of(_request: Request) -> Customer:
    """An application asks its session. It never takes this from what the browser says itself."""
    return Customer(7, "grace@example.com", "en")


@app.get("/history-token")
def history_token(request: Request, response: Response) -> dict[str, str]:
    """Asked for by the page, and again whenever a token has expired."""
    customer = customer_of(request)
    response.headers["Cache-Control"] = "no-store"
    token = bemi.embed_token(
        HISTORY_KEY,
        audience=HISTORY_URL,
        tenant=customer.id,
        subject=customer.email,
        context=["user_name"],
        language=customer.language,
    )
    return {"token": token}


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>Your orders</title>
<script type="module" src="{history}/embed.js"></script>
<main>
<h1>Your orders</h1>
<bemi-history token-url="/history-token">
  <script type="application/json">{{"tables": {{"public.orders": "order"}}}}</script>
</bemi-history>
</main>
</html>
"""


@app.get("/", response_class=HTMLResponse)
def orders() -> str:
    return PAGE.format(history=HISTORY_URL)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
