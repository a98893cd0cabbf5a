"""A whole pretraining run in one YAML file: data, output, devices, configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sccello_tools._validation import Config, NonNegativeInt, PositiveInt, read_yaml
from sccello_tools.errors import ConfigError

from .config import PretrainConfig

if TYPE_CHECKING:
    from typing import Any

LoggerName = Literal["csv", "tensorboard", "wandb"]
_PATHS = ("out", "validation", "checkpoint_dir")


class RunFile(Config):
    """Content of the file that ``sccello pretrain`` reads. Paths in the file are relative to its folder.

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
    """Training cells by name: corpora or h5ad files."""
    out: Path
    """Output folder for the model."""
    config: PretrainConfig = Field(default_factory=PretrainConfig)
    """Model size, losses, schedule."""
    validation: Path | None = None
    """Labelled cells that are not trained on: a corpus or an h5ad file."""
    start_from: str | None = None
    """Name or folder of a model to continue training."""
    label_key: str = "cell_type_ontology_term_id"
    """Column of obs with Cell Ontology ids, in h5ad files."""
    layer: str | None = None
    """Layer with raw counts in h5ad files, or raw.X; X by default."""
    gene_ids: str | None = None
    """Column of var with gene names in h5ad files; var_names by default."""
    counts: Literal["check", "trust"] = "check"
    """check accepts integer counts only, trust also fractions."""
    min_matched: NonNegativeInt = 500
    """Minimum number of matched genes in h5ad files."""
    checkpoint_dir: Path | None = None
    """Folder for checkpoints; ``checkpoints`` in ``out`` by default."""
    checkpoint_every: PositiveInt = 200
    """Steps between two checkpoints."""
    devices: int | list[int] | str = "auto"
    """Devices of each node."""
    num_nodes: PositiveInt = 1
    """Number of machines."""
    strategy: str = "auto"
    """Distribution over devices: auto, ddp, fsdp."""
    n_workers: NonNegativeInt = 0
    """Processes per device that read a corpus ahead."""
    loggers: tuple[LoggerName, ...] = ()
    """Loggers, which write to ``logs`` in ``out``."""
    weights_dtype: Literal["float32", "float16"] = "float32"
    """Precision of the saved weights."""

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
            If the file is missing or not YAML, lacks ``data`` or ``out``, or a name or value is invalid.
        """
        path = Path(path)
        values = read_yaml(path)
        try:
            return cls(**_prepare(values, path.parent))
        except ConfigError as error:
            msg = f"{path}: {error}"
            raise ConfigError(msg) from error


def _prepare(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve paths, build the configuration and explain settings at the wrong level."""
    settings = values.get("config") or {}
    if not isinstance(settings, dict):
        msg = f"config must contain names and values of PretrainConfig, got {settings!r}"
        raise ConfigError(msg)
    of_run, of_config = set(RunFile.model_fields), set(PretrainConfig.model_fields)
    if misplaced := [name for name in values if name in of_config - of_run]:
        msg = f"{', '.join(misplaced)} must be placed under config:"
        raise ConfigError(msg)
    if misplaced := [name for name in settings if name in of_run - of_config]:
        msg = f"{', '.join(misplaced)} must be placed at the top level, not under config:"
        raise ConfigError(msg)
    prepared = {**values, "config": PretrainConfig(**settings)}
    if "data" in values:
        prepared["data"] = _named_paths(values["data"], folder)
    for name in _PATHS:
        if values.get(name) is not None:
            prepared[name] = folder / str(values[name])
    start = values.get("start_from")
    if isinstance(start, str) and (folder / start).is_dir():  # otherwise the name of a model
        prepared["start_from"] = str(folder / start)
    loggers = values.get("loggers") or []
    loggers = [loggers] if isinstance(loggers, str) else loggers
    prepared["loggers"] = tuple(loggers) if isinstance(loggers, list) else loggers
    return prepared


def _named_paths(data: Any, folder: Path) -> dict[str, Path]:
    if isinstance(data, str):
        data = [data]
    if isinstance(data, list):
        data = {Path(str(entry)).stem: entry for entry in data}
    if not isinstance(data, dict) or not all(isinstance(entry, str) for entry in data.values()):
        msg = f"data must be a path, a list of paths, or names with one path each, got {data!r}"
        raise ConfigError(msg)
    return {str(name): folder / entry for name, entry in data.items()}
