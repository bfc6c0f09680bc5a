"""The HTTP API: routes over the history, and who may ask what of them."""
