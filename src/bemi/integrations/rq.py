"""Jobs of RQ have the context of who asked for them.

    queue = Queue(connection=redis, job_class="bemi.integrations.rq.Job")
    rq worker --job-class bemi.integrations.rq.Job

The context travels in the job's `meta`, and is the job's in the worker.
"""

from typing import Any

import rq.job

from bemi.context import context, tracing


class Job(rq.job.Job):
    """RQ's own, which takes the current context along when it is made, and runs in it with `job`,
    the name of its function, and `worker` laid over. A retry runs in it again."""

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> "Job":
        job = super().create(*args, **kwargs)
        job.meta = {**job.meta, **tracing.job_headers()}
        return job  # type: ignore[return-value]  # it is made of `cls`

    def perform(self) -> Any:
        values = tracing.job_context(
            self.meta.get(tracing.CONTEXT),
            self.meta.get(tracing.TRACEPARENT),
            job=self.func_name,
            worker=self.worker_name,
        )
        with context(values):
            return super().perform()
