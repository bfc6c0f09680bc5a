"""Test states: a pytest plugin that knows what a test changed, and takes it back.

`plugin` is what pytest loads of every installed Bemi: it loads nothing else until a fixture is
asked for. The history itself is kept by a process beside the tests (`keeper`).
"""
