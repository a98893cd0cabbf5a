"""What became of the inputs of a corpus, summed up from its shards."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from sccello_tools.corpus.manifest import InputReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sccello_tools.corpus.manifest import CorpusManifest, ShardRecord

    from .corpus_plan import InputPlan


def report_of(plan: InputPlan) -> InputReport:
    """Start the report of one input."""
    return InputReport(
        source=plan.source,
        path=str(plan.path),
        fingerprint=plan.fingerprint,
        n_cells=plan.n_cells,
        n_genes_matched=plan.gene_match.n_matched,
        labels_left_out=plan.labels_left_out,
    )


def finished_manifest(manifest: CorpusManifest, shards: Sequence[ShardRecord]) -> CorpusManifest:
    """Sum up what became of the inputs."""
    cell_types: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    left_out: dict[str, Counter[str]] = {report.source: Counter() for report in manifest.inputs}
    for shard in shards:
        cell_types.update(shard.cell_types)
        kept[shard.source] += shard.n_cells
        left_out[shard.source].update(shard.left_out)
    reports = tuple(
        replace(
            report,
            n_kept=kept[report.source],
            left_out=dict(sorted(left_out[report.source].items())),
        )
        for report in manifest.inputs
    )
    ranked = sorted(cell_types.items(), key=lambda item: (-item[1], item[0]))
    return replace(
        manifest, inputs=reports, complete=True, cell_types=dict(ranked), shards=tuple(shards)
    )
