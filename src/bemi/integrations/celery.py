"""Tasks of Celery have the context of who asked for them.

The context travels in two headers of the task's message, and is the task's in the worker.
"""

from typing import Any

from celery import Celery, signals

from bemi.context import current, tracing

_BEFORE = "bemi_before"


def install(app: Celery) -> None:
    """Tasks that are sent take the current context along; this application's tasks run in it,
    with `job`, the name of the task, and `worker` laid over.

    To be called where the application is made, which its workers import, too. A task that is
    sent by what has no context, such as beat, has `job` and `worker` only.
    """
    app = getattr(app, "_get_current_object", lambda: app)()  # of `current_app`

    if not isinstance(app, Celery):
        raise TypeError(f"{type(app).__qualname__} is no application of Celery")

    def begin(task: Any, **_: Any) -> None:
        if task.app is app:
            _begin(task)

    def end(task: Any, **_: Any) -> None:
        if task.app is app:
            _end(task)

    signals.before_task_publish.connect(_send, weak=False, dispatch_uid="bemi")
    # One receiver for each application, however often it is installed.
    signals.task_prerun.connect(begin, weak=False, dispatch_uid=f"bemi {id(app)}")
    signals.task_postrun.connect(end, weak=False, dispatch_uid=f"bemi {id(app)}")


def _send(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """A retry, and the next task of a chain, are sent by the task, and so with its context."""
    if headers is None:
        return
    for name, value in tracing.job_headers().items():
        if name == tracing.CONTEXT:
            headers[name] = value
        else:
            headers.setdefault(name, value)  # OpenTelemetry's own instrumentation knows better


def _begin(task: Any) -> None:
    request = task.request
    # Called in place, as with `task_always_eager`, a task is in the context of its caller, and in
    # no worker but that one's.
    values: dict[str, Any] = current.current_context() if request.is_eager else {}
    values |= tracing.job_context(
        request.get(tracing.CONTEXT),
        request.get(tracing.TRACEPARENT),
        job=task.name,
        worker=None if request.is_eager else request.hostname,
    )
    setattr(request, _BEFORE, current.peek())
    current.set_context(values)


def _end(task: Any) -> None:
    before = task.request.__dict__.pop(_BEFORE, None)
    if before is not None:
        current.swap(before)
