"""A whole run in one YAML file: data, output, devices, configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools.errors import ConfigError
from sccello_tools.training.yaml import read_yaml, refuse_unknown

from .config import PretrainConfig

if TYPE_CHECKING:
    from typing import Any, Literal

_PATHS = ("out", "validation", "checkpoint_dir")


@dataclass(frozen=True)
class RunFile:
    """What ``sccello pretrain`` reads. Paths in the file are relative to its folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sccello_tools.training.pretrain.run_file import RunFile
    >>> path = Path(tempfile.mkdtemp(), "run.yaml")
    >>> _ = path.write_text("{data: {blood: corpus}, out: model, config: {max_steps: 50}}")
    >>> RunFile.read(path).config.max_steps
    50
    """

    data: dict[str, Path]
    """Training cells by name: corpora, or h5ad files."""
    out: Path
    """Folder to write the model to."""
    config: PretrainConfig = field(default_factory=PretrainConfig)
    """Size of the model, losses, schedule."""
    validation: Path | None = None
    """Labelled cells that do not train: a corpus or an h5ad file."""
    start_from: str | None = None
    """Name or folder of a model to train further."""
    label_key: str = "cell_type_ontology_term_id"
    """Column of obs with Cell Ontology ids, in h5ad files."""
    layer: str | None = None
    """Layer with raw counts, in h5ad files; X if not given."""
    checkpoint_dir: Path | None = None
    """Folder for checkpoints; ``checkpoints`` in ``out`` if not given."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""
    devices: int | list[int] | str = "auto"
    """Devices of each node."""
    num_nodes: int = 1
    """Machines."""
    strategy: str = "auto"
    """How devices share the work: auto, ddp, fsdp."""
    n_workers: int = 0
    """Processes on each device that read a corpus ahead."""
    loggers: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ()
    """Loggers, which write to ``logs`` in ``out``."""
    weights_dtype: Literal["float32", "float16"] = "float32"
    """Precision of the weights on disk."""

    @property
    def checkpoints(self) -> Path:
        """Folder for checkpoints."""
        return self.checkpoint_dir or self.out / "checkpoints"

    @classmethod
    def read(cls, path: Path | str) -> RunFile:
        """Read a run from a YAML file.

        Raises
        ------
        ConfigError
            If the file is missing or no YAML, lacks ``data`` or ``out``, or holds a name or value that is not known.
        """
        path = Path(path)
        values = read_yaml(path)
        try:
            return cls(**_checked(cls, values, path.parent))
        except ConfigError as error:
            msg = f"{path}: {error}"
            raise ConfigError(msg) from error


def _checked(cls: type[RunFile], values: dict[str, Any], folder: Path) -> dict[str, Any]:
    refuse_unknown(values, [item.name for item in fields(cls)], "a run")
    if missing := [name for name in ("data", "out") if not values.get(name)]:
        msg = f"{' and '.join(missing)} must be given: the training cells, and the folder to write the model to"
        raise ConfigError(msg)
    given = {**values, "data": _named_paths(values["data"], folder)}
    for name in _PATHS:
        if given.get(name) is not None:
            given[name] = folder / str(given[name])
    config = given.pop("config", None) or {}
    if not isinstance(config, dict):
        msg = f"config is {config!r}; expected are names and values of PretrainConfig"
        raise ConfigError(msg)
    loggers = given.pop("loggers", None) or ()
    loggers = (loggers,) if isinstance(loggers, str) else tuple(loggers)
    if given.get("weights_dtype", "float32") not in {"float32", "float16"}:
        msg = f"weights_dtype is {given['weights_dtype']!r}; expected is 'float32' or 'float16'"
        raise ConfigError(msg)
    for name in ("checkpoint_every", "num_nodes", "n_workers"):
        least = 0 if name == "n_workers" else 1
        found = given.get(name, least)
        if not isinstance(found, int) or found < least:
            msg = f"{name} is {found!r}; expected is a whole number from {least}"
            raise ConfigError(msg)
    return {**given, "config": PretrainConfig.from_dict(config), "loggers": loggers}


def _named_paths(data: Any, folder: Path) -> dict[str, Path]:
    if isinstance(data, str):
        data = [data]
    if isinstance(data, list):
        data = {Path(str(entry)).stem: entry for entry in data}
    if not isinstance(data, dict) or not all(isinstance(entry, str) for entry in data.values()):
        msg = f"data is {data!r}; expected is a path, a list of paths, or names with a path each"
        raise ConfigError(msg)
    return {str(name): folder / entry for name, entry in data.items()}
