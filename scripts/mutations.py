"""Check that tests notice deliberate mistakes: python scripts/mutations.py [pattern ...].

Each mutation replaces one piece of the package by a plausible mistake. It is applied to a copy of the repository, in which the tests
named with it must fail; without mutations they must pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sccello_tools"


class Mutation(NamedTuple):
    """A mistake and the tests that notice it."""

    name: str
    file: str
    """Relative to the package."""
    right: str
    """Occurs once in the file."""
    wrong: str
    tests: str
    """Paths relative to ``tests``, separated by spaces."""


TOKENS = "tokens/test_tokens.py pp/test_tokenize.py"
LOSSES = "nn/test_losses.py nn/test_golden.py"
ONTOLOGY = "ontology/test_similarity.py ontology/test_ranking.py"
EVIDENCE = "annotation/test_scores.py annotation/test_evidence.py annotation/test_tissues.py"
BACK_OFF = "annotation/test_scores.py annotation/test_backoff.py annotation/test_evidence.py"

MUTATIONS = (
    Mutation(
        "tokens: ties are broken by descending token",
        "tokens/_kernels.py",
        "tokens[a] < tokens[b]",
        "tokens[a] > tokens[b]",
        TOKENS,
    ),
    Mutation(
        "tokens: expression is not divided by the median",
        "tokens/_kernels.py",
        "counts[i] / medians[tokens[i]]",
        "counts[i]",
        TOKENS,
    ),
    Mutation(
        "tokens: values are normalised by the genes that are kept",
        "tokens/_kernels.py",
        "for i in range(n):\n            total += counts",
        "for i in range(n_kept):\n            total += counts",
        TOKENS,
    ),
    Mutation(
        "tokens: unmatched columns do not count in the known fraction",
        "tokens/_kernels.py",
        "if token < -1 or not data[j] > 0:",
        "if token < 0 or not data[j] > 0:",
        TOKENS,
    ),
    Mutation(
        "tokens: the last of several columns of a gene replaces the others",
        "tokens/_kernels.py",
        "counts[n_distinct - 1] += count",
        "counts[n_distinct - 1] = count",
        TOKENS,
    ),
    Mutation(
        "tokens: a cell of exactly max_length genes loses none",
        "tokens/tokenizer.py",
        "np.minimum(n_genes + np.int64(1), self.max_length)",
        "np.minimum(n_genes + np.int64(1), self.max_length + 1)",
        TOKENS,
    ),
    Mutation(
        "losses: a cell's own level is not positive",
        "nn/losses.py",
        "counted = (rank >= level)",
        "counted = (rank > level)",
        LOSSES,
    ),
    Mutation(
        "losses: ancestors are negatives",
        "nn/losses.py",
        "(rank < level) & ~ancestor_mask.bool()[:, :, None]",
        "(rank < level).expand(-1, -1, len(distinct))",
        LOSSES,
    ),
    Mutation(
        "losses: the cell is compared with itself within one pass",
        "nn/losses.py",
        "cosines.scatter(1, own[:, None], (cells * second_pass).sum(-1)[:, None])",
        "cosines",
        LOSSES,
    ),
    Mutation(
        "losses: ancestors of the label are wrong types",
        "nn/losses.py",
        "scores = scores.masked_fill(ignored, -torch.inf)",
        "scores = scores.masked_fill(ignored & False, -torch.inf)",
        LOSSES,
    ),
    Mutation(
        "losses: a fifth instead of a tenth of masked tokens is random",
        "nn/losses.py",
        "(kind >= 0.8) & (kind < 0.9)",
        "(kind >= 0.8)",
        LOSSES,
    ),
    Mutation(
        "losses: the gene head is applied to one side only",
        "nn/losses.py",
        "functional.normalize(head(word_embeddings).float(), dim=-1)",
        "functional.normalize(word_embeddings.float(), dim=-1)",
        LOSSES,
    ),
    Mutation(
        "losses: prototypes are not scaled by the temperature",
        "nn/losses.py",
        "scale = tau**-0.5",
        "scale = 1.0",
        LOSSES,
    ),
    Mutation(
        "ontology: the walk follows edges upwards only",
        "ontology/similarity.py",
        "return directed + directed.T",
        "return directed.T.tocsr()",
        ONTOLOGY,
    ),
    Mutation(
        "ontology: PageRank restarts with the damping",
        "ontology/similarity.py",
        "restart[block, np.arange(len(block))] = 1 - damping",
        "restart[block, np.arange(len(block))] = damping",
        ONTOLOGY,
    ),
    Mutation(
        "ontology: levels without the added one",
        "ontology/similarity.py",
        "np.maximum(p, _FLOOR) / _FLOOR + 1",
        "np.maximum(p, _FLOOR) / _FLOOR",
        ONTOLOGY,
    ),
    Mutation(
        "ontology: a term is not in its own ancestor mask",
        "ontology/similarity.py",
        "ontology.ancestors(ontology.current(term), include_self=True)",
        "ontology.ancestors(ontology.current(term))",
        ONTOLOGY,
    ),
    Mutation(
        "ontology: tied similarities get the lowest rank",
        "ontology/_rank_kernel.py",
        "rank = (first + last) / 2 - middle",
        "rank = first - middle",
        ONTOLOGY,
    ),
    Mutation(
        "ontology: the deepest instead of the most informative common ancestor",
        "annotation/term_space.py",
        "np.log(n / (1 + len(ontology.descendants(t))))",
        "ontology.depth(t)",
        EVIDENCE,
    ),
    Mutation(
        "evidence: t-values with one degree of freedom more",
        "annotation/_marker_kernel.py",
        "degrees = n_genes - np.float32(2)",
        "degrees = n_genes * np.float32(0.98)",
        EVIDENCE,
    ),
    Mutation(
        "evidence: markers are not centred",
        "annotation/_marker_kernel.py",
        "(work[term, k] - mean * sums[k, term])",
        "work[term, k]",
        EVIDENCE,
    ),
    Mutation(
        "evidence: marker evidence is scaled by the largest instead of the three largest",
        "annotation/marker_scores.py",
        "N_TOP: Final = 3",
        "N_TOP: Final = 1",
        EVIDENCE,
    ),
    Mutation(
        "evidence: siblings speak for a term",
        "annotation/_evidence_kernel.py",
        "value += weights[2] * best",
        "value -= weights[2] * best",
        EVIDENCE,
    ),
    Mutation(
        "evidence: a term is its own sibling",
        "annotation/term_space.py",
        "for child in ontology.children(parent)} - {term}",
        "for child in ontology.children(parent)}",
        EVIDENCE,
    ),
    Mutation(
        "evidence: specific markers are those of the term",
        "annotation/marker_scores.py",
        "np.maximum(row.data - mean, 0)",
        "np.maximum(row.data, 0)",
        EVIDENCE,
    ),
    Mutation(
        "evidence: weights of tissues are dropped",
        "annotation/known_types.py",
        "logits += log_weight",
        "logits += 0 * log_weight",
        EVIDENCE,
    ),
    Mutation(
        "evidence: the prior ignores how commonly a term is used",
        "annotation/evidence.py",
        "self.weights.depth * self.space.depth + self.weights.log_sources * sources",
        "self.weights.depth * self.space.depth",
        EVIDENCE,
    ),
    Mutation(
        "evidence: novelty with the opposite sign of the distance",
        "annotation/evidence.py",
        "self.weights.bias + self.weights.distance * cells.log_distance",
        "self.weights.bias - self.weights.distance * cells.log_distance",
        EVIDENCE,
    ),
    Mutation(
        "evidence: the usual novelty of types is not removed",
        "annotation/novelty.py",
        "np.float32(_SHARE_OF_OFFSET) * self.offsets[assigned]",
        "np.float32(0) * self.offsets[assigned]",
        EVIDENCE,
    ),
    Mutation(
        "evidence: the shift of few types is removed completely",
        "annotation/novelty.py",
        "* n**2 / (n**2 + _PRIOR_TYPES**2)",
        "",
        EVIDENCE,
    ),
    Mutation(
        "evidence: markers count fully in the assignment of known types",
        "annotation/evidence_fit.py",
        "log_p + np.float32(MARKER_SHARE) * markers[",
        "log_p + markers[",
        EVIDENCE,
    ),
    Mutation(
        "evidence: novelty of a cell is subtracted",
        "annotation/open_world.py",
        "log_sum_exp(opened) + by_cell - log_sum_exp(for_novelty)",
        "log_sum_exp(opened) - by_cell - log_sum_exp(for_novelty)",
        EVIDENCE,
    ),
    Mutation(
        "back-off: the shallowest term that reaches the threshold",
        "annotation/backoff.py",
        "return -hierarchy.depth(term), term",
        "return hierarchy.depth(term), term",
        BACK_OFF,
    ),
    Mutation(
        "back-off: the threshold must be exceeded",
        "annotation/backoff.py",
        "enough = sums >= threshold",
        "enough = sums > threshold",
        BACK_OFF,
    ),
    Mutation(
        "back-off: confidence may fall towards broader terms",
        "annotation/_decision_kernel.py",
        "most = max(most, min(summed, np.float32(1)))",
        "most = min(summed, np.float32(1))",
        BACK_OFF,
    ),
    Mutation(
        "back-off: a term is wrong for cells of a broader label",
        "annotation/backoff.py",
        "hierarchy.ancestors(term) if broader_types else frozenset()",
        "frozenset()",
        BACK_OFF,
    ),
    Mutation(
        "back-off: the finite-sample correction is missing",
        "annotation/backoff.py",
        "np.ceil((n + 1) * (1 - alpha))",
        "np.ceil(n * (1 - alpha))",
        BACK_OFF,
    ),
    Mutation(
        "back-off: only the last term of a chain is compared in conformal scores",
        "annotation/backoff.py",
        "np.maximum.accumulate(probabilities[rows] @ lineage.correct, axis=1)",
        "probabilities[rows] @ lineage.correct[:, ::-1]",
        BACK_OFF,
    ),
    Mutation(
        "back-off: a subtype is worth as much as the type",
        "annotation/coverage.py",
        "np.fill_diagonal(recall, 1)",
        "np.fill_diagonal(recall, _SUBTYPE)",
        BACK_OFF,
    ),
)


def fails(copy: Path, tests: str) -> str:
    """Run tests in a copy of the repository; returns the first failing test, or ""."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    command += [f"tests/{path}" for path in tests.split()]
    env = {**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        print(done.stdout, done.stderr)
        msg = "pytest could not run the tests"
        raise SystemExit(msg)
    found = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return found[0].split(" - ")[0].split(" ", 1)[1] if done.returncode else ""


def main() -> None:
    patterns = sys.argv[1:] or [""]
    chosen = [m for m in MUTATIONS if any(pattern in m.name for pattern in patterns)]
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("src", "tests", "pyproject.toml"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        for mutation in chosen:
            path = copy / "src" / "sccello_tools" / mutation.file
            text = path.read_text("utf-8")
            if text.count(mutation.right) != 1:
                sys.exit(f"{mutation.name}: {mutation.right!r} must occur once in {mutation.file}")
            path.write_text(text.replace(mutation.right, mutation.wrong), "utf-8")
            noticed = fails(copy, mutation.tests)
            path.write_text(text, "utf-8")
            print(f"{mutation.name}: {noticed or 'NOT NOTICED'}", flush=True)
            if not noticed:
                survived.append(mutation.name)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutations are noticed")
    raise SystemExit(bool(survived))


if __name__ == "__main__":
    main()
