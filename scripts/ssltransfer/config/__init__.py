"""Suites and their tables, read and validated.

Only the standard library, PyYAML and jsonschema are imported, because every job of a cluster run imports this package.
"""
