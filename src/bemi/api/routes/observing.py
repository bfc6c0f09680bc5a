"""What those ask who look after the server: whether it runs, whether it can answer, its figures."""

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from bemi.api.access import VIEWER
from bemi.api.metrics import MEDIA_TYPE
from bemi.api.problems import answer
from bemi.api.routing import told
from bemi.api.serving import Served

router = APIRouter(tags=["observing"])


class Fine(BaseModel):
    status: str


@router.get("/healthz", **told(Fine))
async def healthz() -> Response:
    """The process runs."""
    # Not in a thread: while all of them wait for the destination, it runs all the same.
    return _fine()


@router.get("/readyz", **told(Fine))
def readyz(serving: Served) -> Response:
    """The history can be read; else 503."""
    error = serving.readiness.error()
    return answer(error) if error else _fine()


@router.get("/metrics", dependencies=[VIEWER], **told(("text/plain",)))
def metrics(serving: Served) -> Response:
    """For Prometheus. A token that may see no table will do."""
    return Response(serving.metrics.text(), media_type=MEDIA_TYPE)


def _fine() -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")
