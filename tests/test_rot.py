"""Files that changed on the disk after they were written: one line instead of other numbers."""

import json

import numpy as np
import pytest
import torch

from ssltransfer.datasets.index import Index, read_index, write_index
from ssltransfer.errors import InputError
from ssltransfer.files import read_json, write_json
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.feature_file import load_features
from ssltransfer.models.resnet import build_resnet
from ssltransfer.results.prediction_file import load_predictions
from ssltransfer.results.score_reader import read_score
from ssltransfer.results.tensor_file import load_tensors, save_tensors
from ssltransfer.results.tensor_header import read_provenance
from ssltransfer.row_file import ArrayFile, open_array, read_array, save_array
from ssltransfer.training_state import Member, Run, State

ARCH = "resnet-1x1x1x1-w4"


def overwrite(path, position, content):
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


def flip(path, position, bit=0):
    content = path.read_bytes()
    overwrite(path, position, bytes([content[position] ^ 1 << bit]))
    return content


def refused(read, path):
    """The error of reading a damaged file: one line that names it and says what to do."""
    with pytest.raises(InputError) as error:
        read(path)
    text = str(error.value)
    assert path.name in text and "delete it" in text and "\n" not in text
    return text


def test_four_kilobytes_of_zeros_in_features(tmp_path):
    path = tmp_path / "f.npy"
    save_array(path, np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32))
    overwrite(path, 40_960, bytes(4096))
    assert np.isfinite(np.load(path)).all()
    assert "row 159" in refused(lambda path: load_features(path, 500), path)


def test_sixty_four_kilobytes_of_zeros_in_prepared_images(tmp_path):
    path = tmp_path / "images.npy"
    save_array(path, np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8))
    overwrite(path, 131_072, bytes(65_536))
    for read in (read_array, open_array):
        assert "row 10 " in refused(read, path)
    images = ArrayFile(path)
    assert len(images[:10]) == 10 and len(images[16:]) == 24, "sound rows can be read"
    refused(lambda path: images[8:16], path)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_no_byte_of_an_array_file_changes_unnoticed(tmp_path, dtype):
    path, values = tmp_path / "a.npy", np.arange(6, dtype=dtype).reshape(3, 2)
    save_array(path, values)
    for position in range(path.stat().st_size):
        content = flip(path, position, bit=position % 8)
        try:
            found = read_array(path)
        except InputError as error:
            assert "\n" not in str(error) and "delete it" in str(error)
        else:
            # Of the second header, whose padding and spelling mean nothing.
            assert found.dtype == dtype and np.array_equal(found, values)
            assert position >= 128 + values.nbytes
        path.write_bytes(content)


@pytest.mark.parametrize("length", [0, 5, 100, 140, 152, 160, 281, 290])
def test_cut_array_files(tmp_path, length):
    path = tmp_path / "a.npy"
    save_array(path, np.arange(6, dtype=np.float32).reshape(3, 2))
    assert path.stat().st_size == 128 + 24 + 128 + 12
    path.write_bytes(path.read_bytes()[:length])
    if length == 152:  # exactly the array, as an older release wrote it
        assert len(read_array(path)) == 3
    else:
        refused(read_array, path)


def test_files_of_the_first_release_are_read(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "a.npy", values)
    for read in (read_array, open_array, lambda path: load_features(path, 3)):
        assert np.array_equal(read(tmp_path / "a.npy"), values)
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_one_bit_of_a_converted_checkpoint(tmp_path):
    path, state = tmp_path / "m.safetensors", build_resnet(ARCH, seed=0).state_dict()
    save_tensors(state, path, {"source": "http://host/file", "files": '{"a": "0"}'})
    assert read_provenance(path) == {"files": '{"a": "0"}', "source": "http://host/file"}
    found = load_backbone(path, ARCH).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    content = flip(path, path.read_bytes().index(state["conv1.weight"].numpy().tobytes()) + 5)
    assert "tensors" in refused(lambda path: load_backbone(path, ARCH), path)
    path.write_bytes(content)
    flip(path, path.read_bytes().index(b"http://host") + 7)
    for read in (read_provenance, load_tensors):
        assert "header" in refused(read, path)
    for length in (0, 4, 200, len(content) - 1):
        path.write_bytes(content[:length])
        for read in (read_provenance, load_tensors):
            refused(read, path)


def test_tensors_of_all_kinds_have_a_checksum(tmp_path):
    state = {"a": torch.tensor(3), "b": torch.ones(2, 3).bfloat16(), "c": torch.empty(0, 4), "d": torch.ones(4, 2).T}
    save_tensors(state, tmp_path / "t.safetensors", {})
    found = load_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_no_byte_of_an_index_changes_unnoticed(tmp_path):
    path = tmp_path / "index.parquet"
    index = Index(
        ["a.png", "b.png", "c.png"], ["train", "train", "test"], [0, 1, 1], ["cat", "dog"], {"x": [1.5, 2, 3]}
    )
    write_index(path, index)
    assert read_index(path) == index
    wrong = 0
    for position in range(path.stat().st_size):
        content = flip(path, position)
        try:
            assert read_index(path) == index
        except InputError as error:
            wrong += 1
            assert "index.parquet" in str(error) and "delete it" in str(error) and "\n" not in str(error)
        path.write_bytes(content)
    assert wrong > 100
    path.write_bytes(content[:-9])
    refused(read_index, path)


def test_a_score_that_changed(tmp_path):
    path = tmp_path / "s.json"
    value = {"metric": "accuracy", "setting": "", "value": 72.65, "unit": "percent"}
    write_json(path, {"model": "m", "dataset": "d", "protocol": "p", "kind": "linear", "values": [value]})
    assert read_score(path)["values"][0]["value"] == 72.65
    content = path.read_text()
    path.write_text(content.replace("72.65", "72.15"))
    refused(read_score, path)
    path.write_text(json.dumps(json.loads(content), indent=4, sort_keys=True))
    assert read_score(path)["values"][0]["value"] == 72.65, "another layout is the same content"
    for length in (0, 20, len(content) - 3):
        path.write_text(content[:length])
        refused(read_score, path)


def test_json_with_any_keys(tmp_path):
    write_json(tmp_path / "a.json", {2: "two", 10: [1.5, None], "ü": {"b": 1e-300}})
    assert read_json(tmp_path / "a.json") == {"2": "two", "10": [1.5, None], "ü": {"b": 1e-300}}


def test_predictions_that_changed(tmp_path):
    """The zip format has checksums of its own."""
    path, values = tmp_path / "p.npz", np.random.default_rng(0).normal(size=(40, 5))
    np.savez(path, a=values)
    flip(path, path.read_bytes().index(values.tobytes()) + 100)
    refused(load_predictions, path)


def test_the_state_of_an_unfinished_run_that_changed(tmp_path):
    network = torch.nn.Linear(20, 20)
    member = Member(network, lambda batch, step: network(batch).sum(), torch.optim.SGD(network.parameters(), lr=1))
    state = State([member], 10, Run(tmp_path, "key", "here"))
    state.save()
    state.resume()
    flip(state.path, state.path.read_bytes().index(network.weight.detach().numpy().tobytes()) + 9)
    assert "checksum" in refused(lambda path: state.resume(), state.path)
