"""Resume folders: one job at a time, and two that meet all the same never mix their work."""

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from ssltransfer import part_folder as module
from ssltransfer.datasets import images
from ssltransfer.datasets.images import prepare_images
from ssltransfer.errors import InputError
from ssltransfer.part_folder import part_folder
from ssltransfer.training_state import resumable


@pytest.fixture
def output(tmp_path):
    return tmp_path / "a.npy"


def change_lock(output, **entries):
    """Let the lock name another job."""
    lock = output.with_name("a.npy.part") / "lock"
    lock.parent.mkdir(exist_ok=True)
    content = json.loads(lock.read_text()) if lock.exists() else {"token": "other", "host": "far", "machine": "far"}
    lock.write_text(json.dumps(content | entries))
    return lock


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("hold", [part_folder, lambda output: resumable(output, "key", "here")])
def test_a_second_job_is_refused_while_the_first_is_alive(output, hold):
    with hold(output):
        refusal = rf"a\.npy\.part: another job \(process {os.getpid()} on .*\)"
        with pytest.raises(InputError, match=refusal) as error, hold(output):
            pytest.fail("two jobs in one folder")
        assert "\n" not in str(error.value)
    assert not list(output.parent.iterdir())
    with hold(output):
        pass


def test_the_folder_stays_after_an_error_and_is_free(output):
    with pytest.raises(KeyboardInterrupt), part_folder(output) as part:
        (part.path / "state").touch()
        raise KeyboardInterrupt
    assert [path.name for path in part.path.iterdir()] == ["state"]
    with pytest.raises(KeyboardInterrupt), part_folder(output.with_name("b.npy")):
        raise KeyboardInterrupt
    assert not output.with_name("b.npy.part").exists(), "nothing was in it"


@pytest.mark.parametrize("gone", [{"pid": dead_process}, {"started": lambda: "1"}])
def test_the_lock_of_a_process_that_is_gone_is_taken_over(output, gone):
    """Killed, or its number now belongs to another process."""
    with part_folder(output) as first:
        lock = change_lock(output, **{key: value() for key, value in gone.items()})
        with part_folder(output) as second:
            assert json.loads(lock.read_text())["token"] == second.token != first.token


def test_the_lock_of_another_machine_is_taken_over_once_it_gives_no_sign_of_life(output, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setattr(module, "HEARTBEAT", 0.1)
    lock = change_lock(output, pid=1, started="1", job="77")
    alive = threading.Event()

    def beat():
        while not alive.wait(0.05):
            os.utime(lock)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(InputError, match="process 1 on far, SLURM job 77"), part_folder(output):
            pass
    finally:
        alive.set()
        thread.join()
    with part_folder(output) as part:
        assert json.loads(lock.read_text())["token"] == part.token
        time.sleep(0.3)
        assert lock.stat().st_mtime > time.time() - 0.25, "and gives signs of its own"
    lock = change_lock(output)
    os.utime(lock, (0, 0))
    monkeypatch.setattr(module, "PATIENCE", 1e6)
    with part_folder(output):
        pass


def test_a_job_that_slurm_queued_again_is_not_its_own_rival(output, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    change_lock(output, job="77")
    with part_folder(output):
        pass


@pytest.mark.parametrize("content", ["", "{", '{"token": 1, "more": 2}'])
def test_a_lock_that_was_cut_is_taken_over_in_time(output, monkeypatch, content):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    change_lock(output).write_text(content)
    with part_folder(output):
        pass


@pytest.fixture
def names(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "BLOCK", 4)
    generator = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(generator.integers(1, 256, (20, 20, 3), np.uint8)).save(tmp_path / f"{number}.png")
    return [f"{number}.png" for number in range(24)]


def passing(count, action):
    """Progress that calls `action` once `count` rows are done."""

    def progress(rows, total):
        for number, row in enumerate(rows):
            if number == count:
                action()
            yield row

    return progress


def killed():
    raise KeyboardInterrupt


def test_two_jobs_at_one_array_of_images(tmp_path, names, output):
    """The first one outlives its Snakemake; both are killed in the end; the third takes up what is there.

    With one array and one record for both, it ended with rows that nobody had written, and without an error.
    """

    def second():
        # Without the lock (deleted by hand, or a clock that is wrong); with it, the second job is refused.
        (output.with_name("a.npy.part") / "lock").unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            prepare_images(tmp_path, names, "resize16", output, progress=passing(3, killed))

    steps = iter([second, killed])

    def progress(rows, total):
        for number, row in enumerate(rows):
            if number in (2, 17):  # before its first record, and after several
                next(steps)()
            yield row

    with pytest.raises((KeyboardInterrupt, InputError)):
        prepare_images(tmp_path, names, "resize16", output, progress=progress)
    prepare_images(tmp_path, names, "resize16", output)
    prepare_images(tmp_path, names, "resize16", tmp_path / "whole.npy")
    assert np.array_equal(np.load(output), np.load(tmp_path / "whole.npy"))
    assert not list(tmp_path.glob("*.part"))


def test_a_second_job_for_the_same_images_is_refused(tmp_path, names, output):
    def second():
        with pytest.raises(InputError, match="another job"):
            prepare_images(tmp_path, names, "resize16", output)

    prepare_images(tmp_path, names, "resize16", output, progress=passing(9, second))
    prepare_images(tmp_path, names, "resize16", tmp_path / "whole.npy")
    assert np.array_equal(np.load(output), np.load(tmp_path / "whole.npy"))


def test_black_images_pass_and_rows_that_were_not_written_do_not(tmp_path, names, output, monkeypatch):
    for name in names[:3]:
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    prepare_images(tmp_path, names, "resize16", output)
    assert not np.load(output)[:3].any()
    write = images.ArrayFile.write
    monkeypatch.setattr(images.ArrayFile, "write", lambda file, row, values: row == 5 or write(file, row, values))
    with pytest.raises(InputError, match="1 of 24 rows were never written, first 5"):
        prepare_images(tmp_path, names, "resize16", tmp_path / "b.npy")
    assert not (tmp_path / "b.npy").exists()
