"""Names of all AnnData slots that this package writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

# var: unversioned Ensembl ID, "" if unmatched, missing if not matched yet
GENE_ID: Final = "sccello_gene_id"
N_TOKENS: Final = "sccello_n_tokens"  # obs: int32, number of tokens including <cls>
# obs: bool, whether a cell has more genes than max_length allows
TRUNCATED: Final = "sccello_truncated"
EMBEDDING: Final = "X_sccello"  # obsm: float32 (n_obs, d); uns: provenance
CELL_TYPE: Final = "sccello_cell_type"  # obs: category
CONFIDENCE_SUFFIX: Final = "_confidence"  # obs: float32 in [0, 1], calibrated
# obs: category of the STATUS_* values; missing for cells without counts
STATUS_SUFFIX: Final = "_status"
STATUS_KNOWN: Final = "known"
# unlike known cells, but a specific term is supported
STATUS_NOVEL_SUBTYPE: Final = "novel_subtype"
STATUS_UNKNOWN: Final = "unknown"  # unlike known cells, and no specific term is supported
STATUSES: Final = (STATUS_KNOWN, STATUS_NOVEL_SUBTYPE, STATUS_UNKNOWN)
RUNNER_UP_SUFFIX: Final = "_runner_up"  # obs: category, most probable other term
EVIDENCE_SUFFIX: Final = "_evidence"  # obsm: DataFrame, contributions of the sources of evidence
CLUSTER_SUFFIX: Final = "_cluster"  # obs: category, prediction for the cluster of a cell
SCORES_SUFFIX: Final = "_scores"  # obsm: DataFrame, columns are CL IDs
NOVELTY: Final = "sccello_novelty"  # obs: float32, higher means less similar to any known type
MAPPED_CELL_TYPE: Final = "sccello_mapped_cell_type"  # obs: category, name of the mapped term
# obs: category, IDs of the terms named in the column without suffix
TERM_ID_SUFFIX: Final = "_ontology_term_id"
MATCH_SUFFIX: Final = "_match"  # obs: category, how each label was mapped
MARKER_SCORES: Final = "sccello_marker_scores"  # obsm: DataFrame, columns are CL IDs
MARKER_GENES: Final = "sccello_marker_genes"  # uns: in the structure of scanpy's rank_genes_groups
CONSENSUS: Final = "sccello_consensus"  # obs: category, term that several annotators agree on
AGREEMENT_SUFFIX: Final = "_agreement"  # obs: float32 in [0, 1], fraction of the votes
N_VOTES_SUFFIX: Final = "_n_votes"  # obs: int32
VOTING_SUFFIX: Final = "_voting"  # obs: category, annotators that vote
DISSENTING_SUFFIX: Final = "_dissenting"  # obs: category, those of another lineage
NEIGHBORS: Final = "sccello_neighbors"  # uns: table of reference cells
NEIGHBORS_SUFFIX: Final = "_neighbors"  # uns: the same, of an annotation
INDICES_SUFFIX: Final = "_indices"  # obsm: int64 (n_obs, n_neighbors), rows of the reference
DISTANCES_SUFFIX: Final = "_distances"  # obsm: float32 (n_obs, n_neighbors), cosine distances
PERTURBATION: Final = "sccello_perturbation"  # uns: table of groups and perturbations
# obsm: DataFrame (n_obs, n_drugs) of ln IC50 (µM); uns: groups
DRUG_RESPONSE: Final = "sccello_drug_response"
STD_SUFFIX: Final = "_std"  # obsm: DataFrame, standard deviation over an ensemble
PREDICTION: Final = "sccello_prediction"  # obs: category, label of a fine-tuned classifier

VERSION: Final = "sccello_tools_version"  # key of uns[K] that every writer records
PREFIXES: Final = ("sccello_", "X_sccello")  # keys that belong to this package
SUFFIXES: Final = (  # companion slots of a key
    CONFIDENCE_SUFFIX,
    STATUS_SUFFIX,
    RUNNER_UP_SUFFIX,
    RUNNER_UP_SUFFIX + TERM_ID_SUFFIX,
    EVIDENCE_SUFFIX,
    CLUSTER_SUFFIX,
    CLUSTER_SUFFIX + TERM_ID_SUFFIX,
    CLUSTER_SUFFIX + CONFIDENCE_SUFFIX,
    CLUSTER_SUFFIX + STATUS_SUFFIX,
    CLUSTER_SUFFIX + RUNNER_UP_SUFFIX,
    CLUSTER_SUFFIX + RUNNER_UP_SUFFIX + TERM_ID_SUFFIX,
    SCORES_SUFFIX,
    TERM_ID_SUFFIX,
    MATCH_SUFFIX,
    STD_SUFFIX,
    AGREEMENT_SUFFIX,
    N_VOTES_SUFFIX,
    VOTING_SUFFIX,
    DISSENTING_SUFFIX,
    INDICES_SUFFIX,
    DISTANCES_SUFFIX,
)
