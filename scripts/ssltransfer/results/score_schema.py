"""Form of score files: its version and schema."""

from ssltransfer.files import package_data

SCHEMA = package_data("workflow/schemas/score.schema.yaml")
SCHEMA_VERSION = 2
"""Version of the form of score files; those of version 1 do not name it, and have neither coverage nor run."""
