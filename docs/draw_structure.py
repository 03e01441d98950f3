"""Write docs/structure.md, the rules and the modules as graphs: `uv run python docs/draw_structure.py`."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "structure.md"
PACKAGE = ROOT / "scripts" / "ssltransfer"
#: Imported by nearly everything, which would only hide the rest.
EVERYWHERE = {"errors", "files", "jobs", "versions"}


def rule_graph(*arguments: str) -> list[str]:
    """Mermaid lines of the rules of a suite, as Snakemake sees them."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--rulegraph", "mermaid-js", "--forceall"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", printed))
    arrows = {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", printed)}
    return graph(arrows)


def import_graph() -> list[str]:
    """Mermaid lines of the rooms of the library: an arrow points to the room that imports."""
    arrows = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ssltransfer"):
                inner = node.module.split(".")[1:2] or [alias.name for alias in node.names]
                arrows |= {(other, room) for other in inner if other != room and not {other, room} & EVERYWHERE}
    return graph(arrows)


def graph(arrows: set[tuple[str, str]]) -> list[str]:
    """Mermaid lines of a graph without the arrows that a detour says as well."""
    following: dict[str, set[str]] = {}
    for start, end in arrows:
        following.setdefault(start, set()).add(end)

    def reachable(start: str) -> set[str]:
        found, open_ends = set(), list(following.get(start, ()))
        while open_ends:
            node = open_ends.pop()
            if node not in found:
                found.add(node)
                open_ends += following.get(node, ())
        return found

    short = {(a, b) for a, b in arrows if not any(b in reachable(c) for c in following[a] - {b})}
    return ["```mermaid", "flowchart TB", *(f"    {a} --> {b}" for a, b in sorted(short)), "```"]


def page() -> str:
    """Text of docs/structure.md."""
    return "\n".join(
        [
            "# Structure",
            "",
            "Written by `docs/draw_structure.py`. Arrows that a longer path implies are left out.",
            "",
            "## Rules",
            "",
            "The rules of the demo suite; an arrow points to the rule that needs the output.",
            "",
            *rule_graph(),
            "",
            "The rules of the paper's second version, with the list of checkpoints.",
            "",
            *rule_graph("all", "checkpoints", "--configfile", "config/paper-v2.yaml"),
            "",
            "## Modules",
            "",
            "Files and folders of `scripts/ssltransfer/`; an arrow points to the one that imports the other. Left out:",
            f"{', '.join(sorted(EVERYWHERE))}, which nearly all import.",
            "",
            *import_graph(),
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
