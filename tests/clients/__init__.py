"""Clients in other languages: what they make of statements and contexts is what Python's does."""
