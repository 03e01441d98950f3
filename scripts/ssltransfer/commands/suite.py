"""The suite that a command is about, read as the workflow reads it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import yaml

from ssltransfer.config.config_files import naming_config_files
from ssltransfer.config.load import load_suite
from ssltransfer.config.suite import Suite
from ssltransfer.config.validation import read_yaml
from ssltransfer.errors import InputError
from ssltransfer.files import package_data
from ssltransfer.settings import parse_yaml

DEFAULT = "config/config.yaml"
"""Suite that is read if no other is named, as by the workflow."""


@dataclass(frozen=True)
class ChosenSuite:
    """A suite, and the words of a command line that choose it.

    Attributes
    ----------
    suite : Suite
    options : str
        Such as ``--configfile config/paper-v2.yaml --config data_root=/data``; empty for the default suite.
    files : tuple of path
        Its files.
    """

    suite: Suite
    options: str
    files: tuple[str | Path, ...] = ()

    @property
    def report(self) -> Path:
        """Path of the report."""
        return Path("results", self.suite.name, "report.html")

    def with_setting(self, setting: str) -> "ChosenSuite":
        """Return the same suite with one more ``KEY=VALUE`` on its command lines."""
        flag = "" if "--config " in self.options else "--config "
        return replace(self, options=f"{self.options} {flag}{setting}".strip())

    def snakemake(self, *words: str) -> str:
        """Return the command line that runs the workflow on the suite."""
        return " ".join(["uv run snakemake", *words, *filter(None, [self.options])])


def read_suite(
    config_files: Sequence[str | Path] = (), settings: Sequence[str] = (), *, check_data_root: bool = False
) -> ChosenSuite:
    """Read a suite and its tables.

    Parameters
    ----------
    config_files : sequence of path
        Suite files, of which later ones add to earlier ones; without one, the default suite.
    settings : sequence of str
        ``KEY=VALUE`` of keys of the suite.
    check_data_root : bool
        Whether the folder of the datasets has to be there (see `Suite.check_data_root`).

    Raises
    ------
    InputError
        As `config.load_suite`, or if a setting has another form.
    """
    config: dict = {}
    files = config_files or [Path(DEFAULT) if Path(DEFAULT).is_file() else package_data(DEFAULT)]
    for path in files:
        if not Path(path).is_file():
            near = get_close_matches(str(path), map(str, Path(path).parent.glob("*.yaml")), n=1)
            raise InputError(f"{path} is missing{f'; is it {near[0]}?' if near else '; correct the path'}")
        content = read_yaml(Path(path))
        if not isinstance(content, dict):
            raise InputError(f"{path}: found no keys; write a suite, such as {DEFAULT}")
        config = _merged(config, content)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise InputError(f"--config {setting}: found no '='; write KEY=VALUE")
        try:
            config[key] = parse_yaml(value)
        except yaml.YAMLError:
            config[key] = value
    words = ["--configfile", *map(str, config_files)] if config_files else []
    words += ["--config", *settings] if settings else []
    with naming_config_files(files, [setting.partition("=")[0] for setting in settings]):
        suite = load_suite(config, package_data("workflow/schemas"), package_data("."))
        if check_data_root:
            suite.check_data_root()
    return ChosenSuite(suite, shlex.join(words), tuple(files))


def _merged(old: dict, new: dict) -> dict:
    """Merge nested keys, as Snakemake merges configuration files."""
    both = {key: _merged(old[key], value) for key, value in new.items() if _is_dict(old.get(key)) and _is_dict(value)}
    return old | new | both


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)
