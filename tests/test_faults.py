"""Kills, full disks, read-only folders and second runs: a one-line error or the same numbers, never other ones."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time

import interruptions
import numpy as np
import pytest

from workflow import command, environment, numbers, snakemake, succeed, workspace

pytestmark = pytest.mark.slow

#: All stages of the suite for one model that is trained.
TARGETS = [f"results/scores/toy-{kind}/toy-simclr/digits.json" for kind in ("linear", "fewshot", "calibration")]


def test_killed_runs_end_with_the_same_numbers(finished, tmp_path):
    folder = workspace(tmp_path / "killed")
    kills = list(interruptions.interrupt(command(*TARGETS), folder, 3, 8.0, seed=1))
    assert kills and any(kill.rules for kill in kills)
    ours, theirs = numbers(folder), numbers(finished)
    assert set(ours) == set(TARGETS)
    assert all(values == theirs[name] for name, values in ours.items())
    assert not list((folder / "results").rglob("*.part"))


def test_a_left_lock_is_explained_and_a_second_run_refused(tmp_path):
    folder = workspace(tmp_path / "two runs")
    words = command("results/datasets/digits/resize16.npy")
    first = interruptions.start(words, folder)
    try:
        while not any(lock.stat().st_size for lock in (folder / ".snakemake/locks").glob("*.output.lock")):
            assert first.poll() is None
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGSTOP)  # or it might be done before the second looks
        second = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "Directory cannot be locked" in second.stderr
    finally:
        interruptions.kill(first)
    again = snakemake(folder, "results/datasets/digits/resize16.npy")
    assert again.returncode == 1
    assert "It can be removed with the --unlock argument" in " ".join(again.stdout.split())
    interruptions.unlock(words, folder)
    succeed(folder, "results/datasets/digits/resize16.npy")


def test_a_missing_checkpoint_keeps_no_other_from_being_made(finished, tmp_path):
    folder = workspace(tmp_path / "missing")
    shutil.copytree(finished / "results", folder / "results", copy_function=shutil.copy2)
    table = folder / "config/models.tsv"
    table.write_text(
        table.read_text() + "net\tNet\tnone\tresnet50\tfile:no.pth\ttorchvision\t\timagenet\t\ttoy\tMIT\t\n"
    )
    (folder / "results/checkpoints/toy-random.safetensors").unlink()
    done = snakemake(folder, "checkpoints", "--keep-going")
    assert done.returncode == 1
    assert "Error in rule fetch_checkpoint" in done.stdout and "no.pth" in done.stdout
    assert not (folder / "results/toy/checkpoints.tsv").exists()
    made = {path.stem for path in folder.glob("results/checkpoints/*.safetensors")}
    assert made == {"toy-random", "toy-simclr", "toy-supervised"}


@contextlib.contextmanager
def mounted(folder, *options):
    """A small file system of its own at `folder`, which is otherwise hard to fill without harm."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        (folder / "kept").touch()  # Snakemake would remove the empty folder
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def small(size):
    return ("-t", "tmpfs", "-o", f"size={size}", "none")


def one_line(output, message):
    """Whether a run failed for this reason, said in one line and without a traceback."""
    assert "Traceback" not in output, output[-3000:]
    lines = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert lines and all(message in line for line in lines), output[-3000:]
    return True


def test_full_disk_during_images(finished, tmp_path):
    folder = workspace(tmp_path / "full")
    target = "results/datasets/digits/resize16.npy"
    with mounted(folder / "results/datasets/digits", *small("6M")):
        done = snakemake(folder, target)
        assert done.returncode == 1 and one_line(done.stdout, os.strerror(errno.ENOSPC))
        assert not (folder / target).exists()
        subprocess.run(["mount", "-o", "remount,size=20M", str((folder / target).parent)], check=True)
        succeed(folder, target)
        assert np.array_equal(np.load(folder / target), np.load(finished / target))


def test_full_disk_during_features(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "full", copy_function=shutil.copy2)
    shutil.rmtree(folder / "results/features/toy-simclr")
    target = "results/features/toy-simclr/digits/resize16.none.npy"
    with mounted((folder / target).parent, *small("300K")):
        done = snakemake(folder, target)
        assert done.returncode == 1 and one_line(done.stdout, os.strerror(errno.ENOSPC))
        assert not (folder / target).exists()
        subprocess.run(["mount", "-o", "remount,size=20M", str((folder / target).parent)], check=True)
        succeed(folder, target)
        assert np.array_equal(np.load(folder / target), np.load(finished / target))


def test_full_disk_during_download(tmp_path):
    """From a source of 1 MB to a disk of 200 kB (over http: test_download.py)."""
    folder = workspace(tmp_path / "full")
    (folder / "net.pth").write_bytes(os.urandom(1 << 20))
    table = folder / "config/models.tsv"
    row = "net\tNet\tnone\tresnet50\tfile:net.pth\ttorchvision\t\timagenet\t\ttoy\tMIT\t\n"
    table.write_text(table.read_text() + row)
    target = "results/checkpoints/net.manifest.json"
    with mounted(folder / "resources/checkpoints/net", *small("200K")):
        done = snakemake(folder, target)
        assert done.returncode == 1 and one_line(done.stdout, os.strerror(errno.ENOSPC))
        assert not (folder / target).exists() and [
            path.name for path in (folder / "resources/checkpoints/net").iterdir()
        ] == ["kept"]
        subprocess.run(["mount", "-o", "remount,size=20M", str(folder / "resources/checkpoints/net")], check=True)
        succeed(folder, target)


def test_read_only_results(finished, tmp_path):
    """What is finished is seen as such; what is missing fails in one line and changes nothing."""
    folder = shutil.copytree(finished, tmp_path / "published", copy_function=shutil.copy2)
    shutil.rmtree(folder / "results/features/toy-simclr/textures")
    (folder / "results/scores/toy-linear/toy-simclr/digits.json").unlink()
    (folder / "results/kept").touch()
    before = sorted((folder / "results").rglob("*"))
    with mounted(folder / "results", "--bind", str(folder / "results")):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder / "results")], check=True)
        assert "Nothing to be done" in succeed(folder, "results/scores/toy-linear/toy-random/digits.json")
        for target, message in (
            ("results/scores/toy-linear/toy-simclr/digits.json", "Write-protected output files"),
            ("results/features/toy-simclr/textures/resize16.none.npy", "Read-only file system: 'results/features"),
        ):
            done = snakemake(folder, target)
            assert done.returncode == 1 and message in done.stdout and "Traceback" not in done.stdout, done.stdout
    assert sorted((folder / "results").rglob("*")) == before
