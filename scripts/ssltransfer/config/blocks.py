"""Named settings blocks of protocols: the shared ones and those of a suite."""

from collections.abc import Mapping
from pathlib import Path

from ssltransfer.config.validation import check_schema, read_yaml
from ssltransfer.errors import InputError, known_names
from ssltransfer.files import package_data
from ssltransfer.settings import complete, config_schema


def named_blocks(config: dict, path: Path, schema: dict) -> dict[str, dict]:
    """Return the shared settings blocks and those of the suite, with defaults; a name has one meaning."""
    shared = read_yaml(path) or {}
    check_schema(shared, schema["properties"]["protocols"] | {"$defs": schema["$defs"]}, str(path))
    blocks = {name: complete(block) for name, block in shared.items()}
    for name, block in config["protocols"].items():
        own, known = complete(block), blocks.get(name)
        if known is not None and own != known:
            key = next(key for key in (*own, *known) if own.get(key) != known.get(key))
            raise InputError(
                f"config: protocols.{name}.{key}: found {own.get(key)!r}, but the block of this name in {path} has "
                f"{known.get(key)!r}; give your block another name"
            )
        blocks[name] = own
    return blocks


def read_blocks(own: Mapping[str, Mapping]) -> dict[str, dict]:
    """Return the library's shared settings blocks and `own` ones, complete; InputError if one is not valid."""
    schema = config_schema()
    blocks = {name: dict(block) for name, block in own.items()}
    part = {"properties": {"protocols": schema["properties"]["protocols"]}, "$defs": schema["$defs"]}
    check_schema({"protocols": blocks}, part, "config")
    return named_blocks({"protocols": blocks}, package_data("config/protocols.yaml"), schema)


def other_backend(blocks: dict[str, dict], protocol: str, backend: str) -> str | None:
    """Return the block of this detection backend that is otherwise equal to a protocol's; None if there is none.

    A protocol whose own block has the backend, or is not one of detection, is returned as it is.
    """
    block = blocks.get(protocol, {})
    if block.get("kind") != "detection" or block["backend"] == backend:
        return protocol
    return next((name for name, other in blocks.items() if other == block | {"backend": backend}), None)


def restricted(config: dict) -> dict:
    """Return tasks and models_of with the protocols of the kinds `only` alone, and whose `of` has one of them.

    Raises
    ------
    InputError
        If there is no such kind, or no task is left.
    """
    blocks, kinds = config["protocols"], [kind.strip() for kind in config["only"].split(",")]
    known = sorted(
        set(config_schema()["properties"]["protocols"]["additionalProperties"]["properties"]["kind"]["enum"])
    )
    if unknown := [kind for kind in kinds if kind not in known]:
        raise InputError(f"config: only: found {unknown[0]!r}; {known_names(unknown[0], known, 'kinds of protocols')}")

    def wanted(protocol: str) -> bool:
        block = blocks.get(protocol, {})
        of = blocks.get(block.get("of", ""), block)
        return block.get("kind") in kinds and of.get("kind") in kinds

    tasks = {protocol: names for protocol, names in config["tasks"].items() if wanted(protocol)}
    if not tasks:
        there = sorted({blocks[protocol]["kind"] for protocol in config["tasks"] if protocol in blocks})
        raise InputError(
            f"config: only: no task is left of {config['only']!r}; kinds of this suite: {', '.join(there)}"
        )
    models_of = {p: models for p, models in config["models_of"].items() if p in tasks or p not in config["tasks"]}
    return {"tasks": tasks, "models_of": models_of}


def with_backend(config: dict) -> dict:
    """Return tasks and models_of with every detection block replaced by its equal of the backend `detection`."""
    backend, blocks = config["detection"], config["protocols"]
    changed: dict[str, dict] = {"tasks": {}, "models_of": {}}
    for key, values in changed.items():
        for protocol, names in config[key].items():
            name = other_backend(blocks, protocol, backend)
            if name is None:
                raise InputError(
                    f"config: detection: found {backend!r}, but no settings block is equal to {protocol!r} of "
                    f"{key} with backend: {backend}; add one to protocols"
                )
            values[name] = list(dict.fromkeys([*values.get(name, []), *names]))
    return changed
