"""`bemi trace`: what one request did."""

from bemi.cli.options import ConfigFlags, ListFlags, OfTraceFlags, Required


def command(
    id: Required,
    /,
    *,
    filters: OfTraceFlags = OfTraceFlags(),  # noqa: B008 - frozen
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    form: ListFlags = ListFlags(),  # noqa: B008 - frozen
) -> int:
    """List what one request or trace did, over all sources, in the order of the commits.

    It is what has this id as `request_id` or as `trace_id` in its context.

        bemi trace 4bf92f3577b34da6a3ce929d0e0e4736

    Parameters
    ----------
    id
        A request_id or trace_id, as contexts have it.
    """
    history = connection.history()

    from bemi.cli import listing

    listing.echo(filters)
    return listing.show(history, filters.filters(trace=id, oldest_first=True), form)
