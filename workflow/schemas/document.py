"""Write docs/configuration.md from the schemas: `uv run python workflow/schemas/document.py`."""

from pathlib import Path
from textwrap import wrap

import yaml

SCHEMAS = Path(__file__).parent
PAGE = SCHEMAS.parents[1] / "docs" / "configuration.md"
ID = "^[a-z0-9][a-z0-9-]*$"
"""Pattern whose form in words is written out; the descriptions of others say what is allowed."""
TABLES = {
    "models": "`config/models.tsv`: one row per model",
    "datasets": "`config/datasets.tsv`: one row per dataset",
    "config": "`config/*.yaml`: a suite",
    "pretraining": "`config/pretraining.yaml`: one block per recipe",
}


def describe(spec: dict, definitions: dict) -> str:
    """One line on a key: what it means, and which values it takes."""
    if "$ref" in spec:
        spec = definitions[spec["$ref"].rpartition("/")[2]] | {k: v for k, v in spec.items() if k != "$ref"}
    text = " ".join(str(spec.get("description", "")).split())
    if spec.get("pattern") == ID:
        text += f" ({spec['form']})"
    values = [repr(value) if value == "" else f"`{value}`" for value in spec.get("enum", [])]
    if values:
        text += f" ({', '.join(values)})"
    if "default" in spec:
        default = str(spec["default"]).lower() if isinstance(spec["default"], bool) else spec["default"]
        text += f"; default `{default}`" if default != "" else "; default empty"
    return text.strip()


def paragraph(text: str) -> list[str]:
    """Lines of a paragraph."""
    return wrap(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def table(schema: dict, definitions: dict) -> list[str]:
    """Markdown table of the properties of a schema."""
    required = schema.get("required", [])
    rows = ["| key | required | meaning |", "| --- | --- | --- |"]
    for key, spec in schema["properties"].items():
        if "const" not in spec:
            meaning = describe(spec, definitions).replace("|", "\\|")
            rows.append(f"| `{key}` | {'yes' if key in required else ''} | {meaning} |")
    return rows


def parts(schema: dict, path: str, definitions: dict, level: int = 4) -> list[str]:
    """Tables of the keys that are blocks themselves."""
    lines = []
    for key, spec in schema["properties"].items():
        if "properties" in spec:
            lines += [f"{'#' * level} `{path}{key}`", "", *table(spec, definitions), ""]
            lines += parts(spec, f"{path}{key}.", definitions, level)
    return lines


def page() -> str:
    """Text of docs/configuration.md."""
    lines = ["# Configuration", "", "Written by `workflow/schemas/document.py` from the schemas beside it.", ""]
    for name, heading in TABLES.items():
        schema = yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())
        definitions = schema.get("$defs", {})
        row = schema if "properties" in schema else schema["additionalProperties"]
        lines += [f"## {heading}", "", *paragraph(schema["description"]), ""]
        lines += [*table(row, definitions), "", *parts(row, "", definitions, level=3)]
        for kind, block in definitions.items():
            if block.get("properties"):
                title = "`head` of method" if name == "pretraining" else "Settings block of kind"
                lines += [f"### {title} `{kind}`", "", *paragraph(block["description"]), ""]
                lines += [*table(block, definitions), "", *parts(block, f"{kind}.", definitions)]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
