"""Which process of how many this is, and how others are started."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, NamedTuple

from sccello_tools.errors import ConfigError, EmbeddingFilesError

from .manifest import AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable


class Place(NamedTuple):
    """One process among all."""

    rank: int
    """Its number among all, from 0."""
    world: int
    """How many there are."""
    local: int
    """Its number on its machine: that of its GPU."""
    n_local: int
    """How many there are on its machine."""


def places(devices: int, num_nodes: int) -> tuple[list[Place], bool]:
    """Find the places that this call is to fill, and whether a launcher filled the others of this machine.

    Raises
    ------
    ConfigError
        If there are several machines, or a launcher started other processes than asked for, and nothing tells which this is.
    """
    for name, value in (("devices", devices), ("num_nodes", num_nodes)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            msg = f"{name} is {value!r}; expected is a whole number of at least 1."
            raise ConfigError(msg)
    world = devices * num_nodes
    if (launched := _launched()) is not None:
        if launched.world == world:
            return [launched._replace(n_local=devices)], True
        if launched.world > 1:
            msg = (
                f"A launcher (torchrun, srun, ...) started {launched.world} processes, and devices={devices} times num_nodes={num_nodes} is "
                f"{world}. Make the two alike, or start one process on each machine and let devices start the others."
            )
            raise ConfigError(msg)
    node = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK"))
    if num_nodes > 1 and (node is None or not node.isdigit() or int(node) >= num_nodes):
        msg = (
            f"num_nodes is {num_nodes}, but NODE_RANK in the environment is {node!r}; expected is 0 to {num_nodes - 1}, another on each machine. "
            "Set it, or start the processes by srun or torchrun."
        )
        raise ConfigError(msg)
    first = int(node or 0) * devices if num_nodes > 1 else 0
    return [Place(first + i, world, i, devices) for i in range(devices)], False


def _launched() -> Place | None:
    """Read the place of this process, if one of the launchers that Lightning knows started it."""
    known = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "LSB_JOBID")
    if not any(name in os.environ for name in known):
        return None
    from lightning.fabric.plugins import environments

    for name in ("TorchElasticEnvironment", "SLURMEnvironment", "LSFEnvironment"):
        kind = getattr(environments, name)
        if kind.detect():
            try:
                found = kind()
            except RuntimeError as error:  # Lightning's own advice on what SLURM was asked for
                raise ConfigError(str(error)) from error
            return Place(found.global_rank(), found.world_size(), found.local_rank(), 1)
    return None


def run_places(work: Callable[[Place], None], here: list[Place]) -> None:
    """Do the work of each place: one in this process, several in others, each of its own.

    Raises
    ------
    EmbeddingFilesError
        If one of the processes dies. An error of one is raised when the others have finished.
    """
    if len(here) == 1:
        work(here[0])
        return
    # spawn: fork would copy the locks of HDF5 and torch in whatever state they are
    with ProcessPoolExecutor(
        len(here), mp_context=get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        running = [pool.submit(work, place) for place in here]
        wait(running)
        try:
            for future in running:
                future.result()
        except BrokenProcessPool as error:
            msg = (
                "A process died, as happens when memory runs out, when somebody kills it, or when a script starts processes without "
                f'`if __name__ == "__main__":`. {AGAIN}'
            )
            raise EmbeddingFilesError(msg) from error


def _end_with_parent() -> None:
    """See to it that a process whose parent was killed does not go on writing."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True, name="sccello-parent").start()
