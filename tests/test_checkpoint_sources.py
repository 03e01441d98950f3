"""Sources of checkpoints: parsed, fetched, pinned once they were read, and replaced by copies in other formats."""

import os
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from ssltransfer.checkpoints.convert import convert, read_published
from ssltransfer.checkpoints.fetch import fetch, fetch_if_possible, manifest_files, pin_tensors, write_pin
from ssltransfer.checkpoints.sources import (
    Location,
    local_files,
    local_state,
    parse_alternatives,
    parse_checkpoint_source,
    source_with_state,
)
from ssltransfer.errors import InputError
from ssltransfer.files import file_hash, read_json, write_json
from ssltransfer.models.model_row import check_weights
from ssltransfer.models.resnet import build_resnet
from ssltransfer.results.tensor_file import tensor_hash
from ssltransfer.results.tensor_header import read_provenance
from workflow import snakemake, succeed, workspace

ARCH, FEATURES = "resnet-2x1x1x2-w4", 128


@pytest.fixture
def state():
    return build_resnet(ARCH, seed=0).state_dict()


def test_sources():
    one, several = parse_checkpoint_source("https://host/a%20b.pth?dl=1 https://h/m.{index,data-00000-of-00001}")
    assert one == [Location("https://host/a%20b.pth?dl=1", "a b.pth")]
    assert [location.name for location in several] == ["m.index", "m.data-00000-of-00001"]
    [[hub]] = parse_checkpoint_source("hf:owner/repo/folder/w.pth")
    assert hub == Location("https://huggingface.co/owner/repo/resolve/main/folder/w.pth", "w.pth")
    [[hub]] = parse_checkpoint_source("hf:owner/repo@v1.0/folder/w.pth")
    assert hub == Location("https://huggingface.co/owner/repo/resolve/v1.0/folder/w.pth", "w.pth")
    [[weights]] = parse_checkpoint_source("timm:vit_small_patch16_224.dino")
    assert weights.address == "https://huggingface.co/timm/vit_small_patch16_224.dino/resolve/main/model.safetensors"
    [[weights]] = parse_checkpoint_source("timm:vit_huge_patch14_gap_224.in1k_ijepa")  # not on the hub
    assert weights.address == "https://dl.fbaipublicfiles.com/ijepa/IN1K-vit.h.14-300e.pth.tar"
    [[vision]] = parse_checkpoint_source("torchvision:ResNet50_Weights.IMAGENET1K_V1")
    assert vision.name == "resnet50-0676ba61.pth"


@pytest.mark.parametrize(
    "source",
    [
        "https://h/%2e%2e",
        "file:/x/..",
        "https://h/a%0Ab.pth",
        "https://h/a%00",
        "https://[h/w.pth",
        "https://h/{a,b}/w",
    ],
)
def test_sources_that_name_no_file_of_their_own_are_refused(source):
    with pytest.raises(InputError, match="source '") as error:
        parse_checkpoint_source(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "source",
    ["hf:owner/repo@v1/../../../other/repo/resolve/main/w.pth", "hf:owner/repo/../../w.pth", "hf:../../w.pth"]
    + ["hf:owner/repo", "hf:owner/repo@main", "hf:owner/@v1/w", "ftp://h/x", "w.pth", "https://host/"]
    + ["torchvision:ResNet51.V1"],
)
def test_unknown_sources_are_refused(source):
    with pytest.raises(InputError, match="source '"):
        parse_checkpoint_source(source)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_small_patch16_224", ["tag is missing", "timm:vit_small_patch16_224.dino"]),
        ("vit_small_patch16_224.dyno", ["'dyno'", "dino"]),
        ("vit_smal_patch16_224.dino", ["nearest names", "vit_small_patch16_224"]),
        ("nothing-alike", ["nothing-alike"]),
    ],
)
def test_unknown_weights_of_timm_name_the_nearest(name, words):
    with pytest.raises(InputError, match=f"source timm:{name}") as error:
        parse_checkpoint_source(f"timm:{name}")
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


PLAIN, QUICK = "timm:vit_base_patch32_clip_224", "timm:vit_base_patch32_clip_quickgelu_224"


@pytest.mark.parametrize(
    ("source", "arch", "right"),
    [
        ("timm:vit_base_patch32_clip_224.openai", PLAIN, QUICK),
        ("timm:vit_base_patch32_clip_quickgelu_224.openai", PLAIN, QUICK),
        ("https://host/x hf:timm/vit_base_patch32_clip_224.openai@main/model.safetensors", PLAIN, QUICK),
        ("timm:vit_base_patch32_clip_224.laion2b", QUICK, PLAIN),
    ],
)
def test_weights_and_arch_have_one_activation(source, arch, right):
    check_weights(source, right)
    with pytest.raises(InputError, match=f"QuickGELU|GELU.*write arch {right}$"):
        check_weights(source, arch)


def test_weights_that_timm_does_not_list_have_any_activation():
    for source in ("hf:me/clip/model.safetensors", "https://host/x", "file:/x", "timm:vit_small_patch16_224.dino"):
        check_weights(source, "timm:vit_small_patch16_224")
    check_weights("timm:nonsense", "resnet50")


@pytest.fixture
def local(tmp_path):
    (tmp_path / "original.pth").write_bytes(b"weights")
    return lambda checksum="", source="": fetch(
        source or f"file:{tmp_path}/original.pth", checksum, tmp_path / "folder", tmp_path / "pins" / "m.json"
    )


ELSEWHERE = "http://127.0.0.1:9/original.pth"
"""A source that answers nothing, for a file that was placed by hand."""


def place(tmp_path, content=b"weights"):
    (tmp_path / "folder").mkdir(exist_ok=True)
    (tmp_path / "folder/original.pth").write_bytes(content)
    return tmp_path / "folder/original.pth"


def test_files_are_pinned_once_they_were_read_and_later_changes_are_errors(tmp_path, local):
    copy, pin = place(tmp_path), tmp_path / "pins" / "m.json"
    manifest = local(source=ELSEWHERE)
    before = file_hash(copy)
    assert manifest["files"][0]["sha256"] == before and manifest["pin"] == str(pin) and not pin.exists()
    write_pin(manifest)
    assert read_json(pin) == {"files": manifest["files"]}
    assert manifest_files(manifest, tmp_path / "folder") == [copy]
    assert local(source=ELSEWHERE) == {"files": manifest["files"]}
    now = file_hash(place(tmp_path, b"other weights"))
    with pytest.raises(InputError, match=rf"{now}.*{before}.*m\.json"):
        local(source=ELSEWHERE)
    write_pin(manifest)
    assert read_json(pin) == {"files": manifest["files"]}
    with pytest.raises(InputError, match="expected"):
        manifest_files(manifest, tmp_path / "folder")


def test_files_of_this_machine_are_pinned_only_with_a_checksum(tmp_path, local):
    original = tmp_path / "original.pth"
    manifest = local()
    status = original.stat()
    assert manifest["local"] == {str(original): [status.st_size, int(status.st_mtime)]} and "pin" not in manifest
    original.write_bytes(b"other weights")
    assert local()["files"][0]["sha256"] == file_hash(original)
    assert "pin" in local(file_hash(original)[:8])
    write_pin(local(file_hash(original)[:8]))
    before = file_hash(original)
    original.write_bytes(b"weights")
    with pytest.raises(InputError, match=rf"expected {before}.*m\.json"):
        local()


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\nsize 9\n", b"<html>", b"{}"])
def test_what_stands_for_a_file_is_neither_copied_nor_pinned(tmp_path, local, content):
    (tmp_path / "original.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"original\.pth") as error:
        local()
    assert "\n" not in str(error.value) and not list((tmp_path / "folder").iterdir())
    place(tmp_path, content)
    with pytest.raises(InputError, match=r"folder/original\.pth"):
        local(source=ELSEWHERE)
    (tmp_path / "original.pth").write_bytes(b"weights")
    assert local()["files"][0]["size"] == 7


@pytest.mark.slow
def test_the_workflow_notices_a_changed_local_file(tmp_path, state):
    """A pointer is refused and not remembered; the file behind it, and a later one, are converted."""
    folder = workspace(tmp_path)
    table = folder / "config" / "models.tsv"
    table.write_text(table.read_text() + f"own\t\t\t{ARCH}\tfile:own.pth\n")
    target, pin = "results/checkpoints/own.safetensors", folder / "resources" / "checkpoint-pins" / "own.json"
    (folder / "own.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 9\n")
    refused = snakemake(folder, target)
    assert refused.returncode != 0
    assert len([line for line in refused.stdout.splitlines() if line.startswith("Error: own.pth is a git-lfs")]) == 1
    torch.save(state, folder / "own.pth")
    succeed(folder, target)
    assert read_provenance(folder / target)["prefix"] == ""
    assert "Nothing to be done" in succeed(folder, target, "--dry-run")
    torch.save({"model": build_resnet(ARCH, seed=1).state_dict()}, folder / "own.pth")
    assert "rule convert_checkpoint:" in succeed(folder, target, "--dry-run")
    succeed(folder, target)
    assert read_provenance(folder / target)["prefix"] == "model."
    assert not pin.exists()


@pytest.mark.slow
def test_the_workflow_notices_an_older_local_file(tmp_path, state):
    """As after ``cp -p`` or ``rsync -t``: Snakemake alone looks for newer files only."""
    folder = workspace(tmp_path)
    table = folder / "config" / "models.tsv"
    row = ["own", "Own", "x", ARCH, "file:own.pth", "torchvision", "", "none", "", "toy", "", ""]
    table.write_text(table.read_text() + "\t".join(row) + "\n")
    older = time.time() - 10_000

    def place(seed, age):
        torch.save(build_resnet(ARCH, seed=seed).state_dict(), folder / "own.pth")
        os.utime(folder / "own.pth", (older - age, older - age))

    place(0, 0)
    target = "results/checkpoints/own.safetensors"
    succeed(folder, target)
    assert "Nothing to be done" in succeed(folder, target, "--dry-run")
    place(1, 1000)
    assert "rule fetch_checkpoint:" in succeed(folder, target, "--dry-run")
    succeed(folder, target)
    assert "Nothing to be done" in succeed(folder, target, "--dry-run")


def test_manifests_of_the_first_release_are_compared_by_size_alone(tmp_path, local):
    manifest, original = tmp_path / "m.json", tmp_path / "original.pth"
    source = f"file:{original}"
    state = [source, local_state(source)]
    assert source_with_state(source, manifest) == state
    write_json(manifest, local())
    assert source_with_state(source, manifest) == state
    write_json(manifest, {"files": local()["files"]})
    assert source_with_state(source, manifest) == source
    original.write_bytes(b"other weights")
    assert source_with_state(source, manifest) == [source, local_state(source)]
    assert source_with_state("https://h/x.pth", manifest) == "https://h/x.pth"


def flip(path, position):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_torch_file_that_differs_from_its_own_checksums_is_neither_pinned_nor_converted(tmp_path, local):
    state = build_resnet(ARCH, seed=0).state_dict()
    file = tmp_path / "original.pth"
    torch.save(state, file)
    values = state["layer1.0.conv2.weight"].numpy().tobytes()
    flip(file, file.read_bytes().index(values) + 6)
    changed = torch.load(file, weights_only=True)["layer1.0.conv2.weight"]
    assert not torch.equal(changed, state["layer1.0.conv2.weight"]), "torch reads it all the same"
    for read in (local, lambda: read_published([file], "torchvision", ARCH)):
        with pytest.raises(InputError, match=r"original\.pth.*checksum") as error:
            read()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "pins").exists()


def test_a_cut_or_empty_torch_file_is_one_line(tmp_path):
    file = tmp_path / "a.pth"
    for zipped in (True, False):
        torch.save(build_resnet(ARCH, seed=0).state_dict(), file, _use_new_zipfile_serialization=zipped)
        content = file.read_bytes()
        for length in (0, 3, 1000, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:length])
            with pytest.raises(InputError, match=r"a\.pth") as error:
                read_published([file], "torchvision", ARCH)
            assert "\n" not in str(error.value)


def test_a_copy_outlives_its_original(tmp_path, local):
    manifest = local(file_hash(tmp_path / "original.pth")[:8])
    write_pin(manifest)
    (tmp_path / "original.pth").unlink()
    assert local()["files"] == manifest["files"]
    place(tmp_path, b"other weights")
    with pytest.raises(InputError, match="sha256 is .*, expected"):
        local()


def test_a_source_that_changed_is_left_for_the_next(tmp_path, local):
    manifest = local(file_hash(tmp_path / "original.pth")[:8])
    write_pin(manifest)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "original.pth").write_bytes(b"other weights")
    good, bad = f"file:{tmp_path}/original.pth", f"file:{tmp_path}/other/original.pth"
    assert local(source=f"{bad} {good}")["files"] == manifest["files"]
    assert local(source=f"file:{tmp_path}/unknown.pth {good}")["files"] == manifest["files"]


UNPINNED = '{"files": [{"name": "original.pth", "sha256": "", "size": 7, "source": "x", "date": "x"}]}'
"""Every file would pass."""


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": []}', '{"files": [{"name": "original.pth"}]}', "<<<<", UNPINNED]
)
def test_damaged_pins_are_one_line(tmp_path, local, content):
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "m.json").write_text(content)
    with pytest.raises(InputError, match=r"m\.json"):
        local()


def test_a_pinned_file_keeps_its_origin(tmp_path, local):
    manifest = local(file_hash(tmp_path / "original.pth"))
    write_pin(manifest)
    assert local(source=ELSEWHERE)["files"] == manifest["files"]


def test_local_files_of_a_source():
    assert local_files("https://h/x file:a.pth file:/b/m.{index,data}") == ["a.pth", "/b/m.index", "/b/m.data"]


def test_local_files_may_start_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUN", "one")
    assert local_files("file:~/a.pth file:$HOME/$RUN/m.{index,data}") == [
        f"{tmp_path}/{name}" for name in ("a.pth", "one/m.index", "one/m.data")
    ]
    assert parse_checkpoint_source("file:~/a.pth") == [[(f"file:{tmp_path}/a.pth", "a.pth")]]


def test_published_checksums(tmp_path, local):
    local(file_hash(tmp_path / "original.pth")[:8])
    local("md5:" + file_hash(tmp_path / "original.pth", "md5")[:8])
    with pytest.raises(InputError, match="sha256 is .*, expected 00000000"):
        local("00000000")


def test_a_file_placed_by_hand_needs_no_network(tmp_path, local):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "w.pth").write_bytes(b"by hand")
    [file] = local(source="http://127.0.0.1:9/w.pth")["files"]
    assert file["source"] == "placed by hand"


def test_a_failed_optional_fetch_is_noted(tmp_path):
    manifest = fetch_if_possible(f"file:{tmp_path}/none.pth", "", tmp_path / "folder", tmp_path / "pin.json")
    assert manifest["files"] == [] and "none.pth" in manifest["absent"]


def test_alternatives_and_their_failures(tmp_path, local, monkeypatch):
    monkeypatch.setattr("ssltransfer.download.ATTEMPTS", 1)
    [file] = local(source=f"file:{tmp_path}/none.pth file:{tmp_path}/original.pth")["files"]
    assert file["source"].endswith("original.pth")
    with pytest.raises(InputError, match=r"none\.pth.* \| .*w\.pth") as error:
        local(source=f"file:{tmp_path}/none.pth http://127.0.0.1:9/folder/w.pth")
    assert "\n" not in str(error.value)


# --- The same weights in another format ---


@pytest.fixture
def mirror(tmp_path, state):
    """A server of this machine whose first address is gone: the same weights in another format, and other ones."""
    (tmp_path / "served").mkdir()
    torch.save(
        {"state_dict": {**state, "fc.weight": torch.zeros(2, FEATURES), "fc.bias": torch.zeros(2)}},
        tmp_path / "served/same.pth",
    )
    torch.save({"state_dict": build_resnet(ARCH, seed=1).state_dict()}, tmp_path / "served/other.pth")
    handler = partial(QuietHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def take(address, tmp_path, alternative):
    """Fetch, convert and pin as the jobs do; the manifest and the provenance."""
    folder, pin = tmp_path / "folder", tmp_path / "pin.json"
    manifest = fetch(f"{address}/w.pth", "", folder, pin, alternative and f"state-dict={address}/{alternative}")
    converted, provenance = convert(manifest, folder, {"format": "torchvision", "arch": ARCH, "version": 1}, "m")
    write_pin(manifest)
    pin_tensors(manifest, pin, tensor_hash(converted))
    return manifest, provenance


def test_a_dead_address_is_replaced_by_a_copy_in_another_format(mirror, tmp_path):
    manifest, provenance = take(mirror, tmp_path, "same.pth")
    assert manifest["format"] == "state-dict" and provenance["converter"] == "state-dict 1"
    assert provenance["source"] == f"{mirror}/same.pth"
    assert manifest["files"][0]["name"] == "state-dict/same.pth"
    pin = read_json(tmp_path / "pin.json")
    assert pin["files"] == manifest["files"] and len(pin["tensors"]) == 64
    assert take(mirror, tmp_path, "same.pth")[0] == {"files": manifest["files"], "format": "state-dict"}


def test_a_copy_in_another_format_has_the_tensors_of_the_pin_or_is_refused(mirror, tmp_path, state):
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "served/w.pth")
    manifest, _ = take(mirror, tmp_path, "")
    assert "format" not in manifest
    pin = read_json(tmp_path / "pin.json")
    (tmp_path / "served/w.pth").unlink()
    (tmp_path / "folder/w.pth").unlink()
    assert take(mirror, tmp_path, "same.pth")[0]["format"] == "state-dict"
    with pytest.raises(InputError, match=rf"other\.pth: its tensors .* differ from those of .*{pin['tensors'][:12]}"):
        take(mirror, tmp_path, "other.pth")
    assert read_json(tmp_path / "pin.json") == pin
    write_json(tmp_path / "pin.json", {"files": pin["files"]})
    with pytest.raises(InputError, match=r"no entry for state-dict/same\.pth, nor a hash of tensors to compare"):
        take(mirror, tmp_path, "same.pth")


def test_an_original_that_is_back_has_the_tensors_of_its_pinned_copy_or_is_refused(mirror, tmp_path, state):
    take(mirror, tmp_path, "same.pth")
    pin = read_json(tmp_path / "pin.json")
    torch.save(state, tmp_path / "served/w.pth")
    (tmp_path / "served/same.pth").unlink()
    assert "format" not in take(mirror, tmp_path, "same.pth")[0]
    (tmp_path / "folder/w.pth").unlink()
    torch.save(build_resnet(ARCH, seed=1).state_dict(), tmp_path / "served/w.pth")
    with pytest.raises(InputError, match=r"w\.pth: its tensors .* other weights; if it is meant, delete .*pin\.json"):
        take(mirror, tmp_path, "same.pth")
    assert read_json(tmp_path / "pin.json") == pin


@pytest.mark.slow
def test_the_workflow_takes_a_copy_in_another_format_and_reruns_nothing_for_it(mirror, tmp_path):
    folder = workspace(tmp_path)
    table, target = folder / "config" / "models.tsv", "results/checkpoints/own.safetensors"
    text = table.read_text().splitlines()
    columns = [*text[0].split("\t"), "alternatives"]
    row = {"model": "own", "arch": ARCH, "source": f"{mirror}/w.pth", "format": "torchvision"}
    row["alternatives"] = f"state-dict={mirror}/none.pth state-dict={mirror}/same.pth"

    def write():
        lines = ["\t".join(columns), *text[1:], "\t".join(row.get(column, "") for column in columns)]
        table.write_text("\n".join(lines) + "\n")

    write()
    succeed(folder, target)
    assert read_provenance(folder / target)["source"] == f"{mirror}/same.pth"
    assert len(read_json(folder / "resources/checkpoint-pins/own.json")["tensors"]) == 64
    row["alternatives"] = ""
    write()
    assert "Nothing to be done" in succeed(folder, target, "--dry-run")


def test_an_earlier_pin_gains_the_hash_of_its_tensors(tmp_path, state):
    (tmp_path / "folder").mkdir()
    torch.save(state, tmp_path / "folder/w.pth")
    manifest, _ = take("http://127.0.0.1:9", tmp_path, "")
    pin = read_json(tmp_path / "pin.json")
    write_json(tmp_path / "pin.json", {"files": manifest["files"]})
    take("http://127.0.0.1:9", tmp_path, "")
    assert read_json(tmp_path / "pin.json") == pin


def test_weights_without_a_file_leave_an_earlier_pin_as_it_is(tmp_path, state):
    earlier = {"files": [{"name": "w.pth", "sha256": "0" * 64, "size": 1, "source": "s", "date": "d"}]}
    write_json(tmp_path / "pin.json", earlier)
    pin_tensors({"files": []}, tmp_path / "pin.json", tensor_hash(state))
    assert read_json(tmp_path / "pin.json") == earlier


def test_tensors_are_compared_without_their_counters(state):
    counted = {k: v + 5 if k.endswith("num_batches_tracked") else v for k, v in state.items()}
    assert tensor_hash(counted) == tensor_hash(dict(reversed(state.items())))
    changed = {k: v.nextafter(v + 1) if k == "conv1.weight" else v for k, v in state.items()}
    assert tensor_hash(changed) != tensor_hash(state)


def test_alternatives_are_kept_apart():
    assert parse_alternatives("moco=https://x.org/a.pth?dl=1 torchvision=hf:o/n@v1/a.pth") == [
        ("moco", [("https://x.org/a.pth?dl=1", "moco/a.pth")]),
        ("torchvision", [("https://huggingface.co/o/n/resolve/v1/a.pth", "torchvision/a.pth")]),
    ]
    wrong = ("https://x.org/a.pth?dl=1", "moco=", "moco=file:a.pth", "moco=https://x.org/a moco=https://y.org/a")
    wrong += ("moco=module:own",)  # which would be the weights that a new network begins with
    outside = ("=https://x.org/a.pth", "..=https://x.org/a.pth", ".=https://x.org/a.pth")  # of the folder of the model
    for text in (*wrong, *outside):
        with pytest.raises(InputError, match="alternatives: "):
            parse_alternatives(text)
