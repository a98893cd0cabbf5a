"""``scripts/verify_published.py`` on stand-ins of the published weights and evaluation sets, from a local hub."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sccello_tools.errors import DownloadError
from sccello_tools.ontology import CellOntology, published_labels
from sccello_tools.tokens import CLS_ID

SCRIPT = Path(__file__).parents[2] / "scripts" / "verify_published.py"
REVISION = "e59304e" + "2" * 33


@pytest.fixture(scope="module")
def script():
    if not SCRIPT.is_file():
        pytest.skip("not a checkout")
    spec = importlib.util.spec_from_file_location("verify_published", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def unseen_types():
    """Three types that the published model does not know."""
    ontology, known = CellOntology.load(), set(published_labels())
    return [t for t in sorted(ontology.descendants("CL:0000066")) if t not in known][:3]


def evaluation_set(types):
    """120 cells in the columns of the published sets, each type with genes of its own; two of them without a usable label."""
    generator, rows = np.random.default_rng(0), []
    for i in range(120):
        genes = 100 * (i % len(types)) + generator.permutation(60)[:40] + 2
        rows.append([CLS_ID, *genes.tolist()])
    ontology = CellOntology.load()
    labels = [ontology.name(types[i % len(types)]) for i in range(120)]
    labels[0], labels[3] = "no cell type at all", "T cell"
    return pa.table({
        "gene_token_ids": rows,
        "cell_type": labels,
        "cell_dataset_id": [f"study {i // 60}" for i in range(120)],
    })  # fmt: skip


@pytest.fixture
def published(hub, published_files, unseen_types, script, monkeypatch):
    hub.add("katarinayuan/scCello-zeroshot", published_files, commit_id=REVISION)
    shards = {}
    whole = evaluation_set(unseen_types)
    for i in range(2):
        buffer = io.BytesIO()
        pq.write_table(whole.slice(60 * i, 60), buffer, row_group_size=25)
        shards[f"data/train-{i:05d}-of-00002.parquet"] = buffer.getvalue()
    hub.add("katarinayuan/scCello_ood_celltype_data1", shards | {"README.md": b"# Data"})
    bundled = script.bundled_cells
    monkeypatch.setattr(
        script,
        "bundled_cells",
        lambda: [
            c._replace(
                tokens=c.tokens.take(np.arange(0, 560, 8)).truncate(64), labels=c.labels[:560:8],
                batches=c.batches[:560:8], adata=c.adata[:560:8].copy(),
            )
            for c in bundled()
        ],
    )  # fmt: skip
    return hub


def rows_of(page, section):
    lines = page.split(f"## {section}\n")[1].split("\n## ")[0].splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*variables repeat a gene:UserWarning")
def test_the_whole_run(published, script, tmp_path, capsys, unseen_types):
    out = tmp_path / "docs" / "page.md"
    script.main(
        [
            "--evaluation-sets",
            "celltype_data1",
            "--max-cells",
            "118",
            "--device",
            "cpu",
            "--out",
            str(out),
        ]
    )
    page = out.read_text()
    printed = capsys.readouterr().out
    for section in (
        "Weights",
        "Tokens",
        "Embeddings",
        "Annotation",
        "Cell-type separation",
        "Novel cell types",
    ):
        assert f"## {section}" in page
        assert f"## {section}" in printed
    weights = dict(row[:2] for row in rows_of(page, "Weights"))
    assert REVISION in weights["source"]
    assert weights["labels"].startswith("398, of which 395 are distinct")
    annotated = rows_of(page, "Annotation")[2:]
    assert [row[1] for row in annotated] == ["embedding", "embedding, ontology, markers"] * 2
    assert all(int(row[2]) > 0 and 0 <= float(row[3]) <= 1 for row in annotated)
    quality = {row[0]: row[1:] for row in rows_of(page, "Cell-type separation")}
    assert quality["celltype_data1"][:2] == ["118", "5"]
    assert quality["**paper, unseen types**"][2] == "0.687"
    assert all(0 <= float(value) <= 1 for value in quality["celltype_data1"][2:7])
    novel = [row for row in rows_of(page, "Novel cell types") if row[0] == "celltype_data1"]
    assert [row[1] for row in novel] == ["10 %", "25 %", "50 %", "75 %", "100 %"]
    assert "of 118 cells evaluated" in page
    model = script.sccello.models.load("sccello-zeroshot", device="cpu", offline=True)
    assert model.sha256 in page


@pytest.mark.filterwarnings("ignore:.*variables repeat a gene:UserWarning")
def test_the_weights_alone(published, script, tmp_path):
    out = tmp_path / "page.md"
    script.main(["--device", "cpu", "--out", str(out)])
    assert "paper" not in "".join(map(str, rows_of(out.read_text(), "Cell-type separation")))
    assert "## Novel cell types" not in out.read_text()
    assert not [path for _, path, _ in published.requests if "datasets" in path]


def test_genes_of_a_type_separate_it(script, published, unseen_types):
    """The drawn cells keep their labels: each type has its own range of genes."""
    cells = script.evaluation_set("celltype_data1", max_cells=50)
    assert len(cells.tokens) == len(cells.labels) == len(cells.batches) == 50
    names = {CellOntology.load().name(t): i for i, t in enumerate(unseen_types)}
    for i, label in enumerate(cells.labels):
        if label in names:
            assert (np.asarray(cells.tokens[i][1:]) // 100 == names[label]).all()
    assert set(cells.batches) == {"study 0", "study 1"}


def test_without_network_nothing_is_written(hub, script, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError):
        script.main(["--device", "cpu", "--out", str(tmp_path / "page.md")])
    assert not (tmp_path / "page.md").exists()


def test_unknown_sets_are_listed(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--evaluation-sets", "celltype_data3"])
    assert "celltype_data1" in capsys.readouterr().err
