"""Asks the history: what was. Reads the store, and knows nothing of capture."""
