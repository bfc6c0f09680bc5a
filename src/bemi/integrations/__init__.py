"""Sends the current context through the libraries that applications use: one module each."""
