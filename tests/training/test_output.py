from __future__ import annotations

import pytest

from sccello_tools.errors import OutputExistsError
from sccello_tools.training.output import check_model_folder, remove_model


def test_a_new_folder_and_one_with_other_files_are_allowed(tmp_path):
    (tmp_path / "logs").mkdir()
    assert check_model_folder(tmp_path, overwrite=False) == tmp_path
    assert not check_model_folder(tmp_path / "a" / "b", overwrite=False).exists()


def test_a_file_is_refused_even_with_overwrite(tmp_path):
    path = tmp_path / "m"
    path.write_text("x")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match=str(path)):
            check_model_folder(path, overwrite=overwrite)
    assert path.read_text() == "x"


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "metadata.json"])
def test_a_model_is_replaced_on_request_only(tmp_path, file):
    for name in (file, "classifier.safetensors", "annotation.safetensors", "mine.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        check_model_folder(tmp_path, overwrite=False)
    check_model_folder(tmp_path, overwrite=True)
    remove_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
