"""The training engine: the same losses however it is interrupted, and with however many loading processes."""

import multiprocessing
import os
import pickle
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from source_imports import SCRIPTS
from torch import nn

from ssltransfer import training, training_batches
from ssltransfer.errors import InputError
from ssltransfer.files import read_json
from ssltransfer.precision import computing_in
from ssltransfer.settings import config_schema
from ssltransfer.training import seed_step, train, train_members
from ssltransfer.training_batches import batch_rows, iterate_batches
from ssltransfer.training_state import Curve, DivergedError, FinishedRuns, Member, Run, resumable, run_key
from workflow import REPOSITORY

ROWS = np.arange(100, 123)
CPU = torch.device("cpu")


def example(row, step, random):
    return torch.tensor([row, *random.normal(size=3)], dtype=torch.float32)


def run(
    part, steps=10, key="key", lr=0.1, workers=0, precision="float32", before_step=lambda step: None, pause=0, **options
):
    """A small regression whose examples, dropped units and order are all random."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    kinds = []

    def paused(*arguments):
        time.sleep(pause)
        return example(*arguments)

    def loss(batch, step):
        before_step(step)
        output = module(batch[:, 1:])
        kinds.append(output.dtype)
        return (output.squeeze(1) - batch[:, 0] / 100).square().mean()

    curve = train(
        module,
        loss,
        lambda first: iterate_batches(
            paused, batch_rows(ROWS, 5, 7, first, steps), seed=7, workers=workers, collate=torch.stack, device=CPU
        ),
        torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9),
        lambda step: 1 - step / steps,
        steps,
        Run(part, key, "config: protocols.test", **options),
        interval=4,
        precision=precision,
    )
    assert curve.interval == 4
    return curve.losses, module.state_dict(), kinds


def same(found, expected):
    return found[0] == expected[0] and all(torch.equal(found[1][k], expected[1][k]) for k in expected[1])


def test_a_step_draws_alike_whatever_was_drawn_before():
    seed = int(np.random.SeedSequence([3, 7]).generate_state(1)[0])
    expected = torch.rand(4, generator=torch.Generator().manual_seed(seed))
    for _ in range(2):
        returned = seed_step(3, 7)
        assert torch.equal(torch.rand(4), expected)
    seed_step(3, 7)
    assert torch.equal(torch.rand(4, generator=returned), expected)
    seed_step(3, 8)
    assert not torch.equal(torch.rand(4), expected)


def test_losses_are_means_of_intervals_and_fall(tmp_path):
    losses, *_ = run(tmp_path)
    assert len(losses) == 3 and losses[-1] < losses[0]


def test_the_learning_rate_follows_the_schedule(tmp_path):
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    train(
        module,
        lambda batch, step: module.weight.sum(),
        lambda first: range(first, 3),
        optimiser,
        lambda step: [1, 0.1, 0.01][step],
        3,
        Run(tmp_path, "key", "here"),
        interval=1,
        precision="float32",
    )
    assert module.weight.item() == pytest.approx(-0.5 * 1.11)


def test_an_interrupted_run_ends_as_if_nothing_had_happened(tmp_path, caplog):
    whole = run(tmp_path / "whole")

    def interrupt(step):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", before_step=interrupt, save_seconds=0)
    caplog.set_level("INFO")
    assert same(run(tmp_path / "part"), whole)
    assert "resuming at step 6" in caplog.text


@pytest.mark.parametrize(("writing", "save_seconds", "states"), [(1, 60, 34), (20, 60, 4), (20, 5, 4), (0.1, 5, 240)])
def test_states_that_take_long_to_write_are_written_less_often(tmp_path, monkeypatch, writing, save_seconds, states):
    """A step takes 10 seconds: a state follows every 60, or, where writing takes 20, every 600."""
    now, saved = [0.0], []

    def save(self):
        saved.append(now[0])
        now[0] += writing

    def step(number):
        now[0] += 10

    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training.State, "save", save)
    run(tmp_path, steps=240, before_step=step, save_seconds=save_seconds)
    assert len(saved) == states and saved[0] == save_seconds // 10 * 10 + 10
    assert writing * (states - 1) <= now[0] / 30


@pytest.mark.parametrize(
    ("megabytes", "save_seconds", "apart", "gigabytes"),
    [
        (1, 60, 60, 0.3),
        (330, 60, 330, 18.2),  # a detector of the paper's size, five hours on a GPU
        (330, 600, 600, 10.3),
        (330, 20, 110, 54.5),
        (7500, 60, 900, 150),  # 40 members of a grid of ResNet-50
    ],
)
def test_large_states_are_written_less_often(tmp_path, monkeypatch, megabytes, save_seconds, apart, gigabytes):
    """The first one follows after a minute, so that its size and time are known before a SLURM job ends.

    One of five hours is simulated.
    """
    now, saved = [0.0], []

    def step(number):
        now[0] += 2

    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training.State, "save", lambda self: saved.append(now[0]))
    monkeypatch.setattr(training.State, "size", lambda self: megabytes * 1e6)
    run(tmp_path, steps=1800, before_step=step, save_seconds=save_seconds)
    assert saved[0] == pytest.approx(min(save_seconds, 60), abs=2)
    assert np.diff(saved) == pytest.approx(apart, abs=2)
    assert 5 * len(saved) * megabytes / 1000 == pytest.approx(gigabytes, rel=0.05)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads
def test_a_killed_process_resumes_from_its_last_state(tmp_path):
    """SIGKILL leaves no time for anything: what was saved before must be whole."""
    whole = run(tmp_path / "whole", steps=300)
    child = os.fork()
    if child == 0:
        run(
            tmp_path / "part",
            steps=300,
            before_step=lambda step: time.sleep(60 if step == 40 else 0.01),
            save_seconds=0,
        )
        os._exit(0)
    while not (tmp_path / "part/state.pt").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert 0 < torch.load(tmp_path / "part/state.pt")["step"] < 300
    assert same(run(tmp_path / "part", steps=300), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_state_and_ends_with_one_line(tmp_path, number):
    whole, before = run(tmp_path / "whole"), signal.getsignal(number)

    def ask(step):
        if step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(InputError, match="protocols.test: asked to end at step 4 of 10; run again to go on"):
        run(tmp_path / "part", before_step=ask)
    assert signal.getsignal(number) == before
    assert same(run(tmp_path / "part"), whole)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_leaves_the_loading_ones_to_the_main_one(tmp_path, number):
    """What a cluster and Ctrl-C send, here while the main process waits for examples."""
    whole, begun = run(tmp_path / "whole"), tmp_path / "begun"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            run(tmp_path / "part", workers=2, pause=0.1, before_step=lambda step: begun.touch())
        except InputError as error:
            code = 7 if "asked to end" in str(error) else 2
        finally:
            os._exit(code)
    while not begun.exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the child ended early"
        time.sleep(0.01)
    os.killpg(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert 0 < torch.load(tmp_path / "part/state.pt")["step"] < 10
    assert same(run(tmp_path / "part"), whole)


def test_the_end_of_a_slurm_job_is_seen_coming(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 30))
    with pytest.raises(InputError, match="asked to end at step 1 of 10"):
        run(tmp_path)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    run(tmp_path)


def test_a_state_that_takes_long_to_write_is_begun_earlier(tmp_path, monkeypatch):
    """Before the end of a SLURM job, a minute and twice the time that the last state took are left."""
    save, written = training.State.save, []

    def slow(self):
        now[0] += 50
        written.append(self.step)
        save(self)

    def step(number):
        now[0] += 10

    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training.time, "time", lambda: now[0])
    monkeypatch.setattr(training.State, "save", slow)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "500")
    # States take 50 s and steps 10; the job ends at 500 s, so the last state begins after 330 s.
    with pytest.raises(InputError, match="asked to end at step 29 of 100"):
        run(tmp_path, steps=100, before_step=step, save_seconds=5)
    assert written == [1, 29]


def test_a_step_that_would_end_too_late_is_not_begun(tmp_path, monkeypatch):
    """On a CPU a step of a whole grid of networks takes many minutes; here 200 s, and the job ends at 1000 s."""

    def step(number):
        now[0] += 200

    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training.time, "time", lambda: now[0])
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000")
    with pytest.raises(InputError, match="asked to end at step 4 of 10"):
        run(tmp_path, before_step=step)


def test_every_training_saves_as_often_as_the_suite_says(tmp_path):
    rules = "".join(path.read_text() for path in (REPOSITORY / "workflow/rules").glob("*.smk"))
    scripts = [path for path in SCRIPTS.glob("*.py") if "resumable(" in path.read_text()]
    trainings = [path for path in scripts if path.stem != "evaluate_attention"]  # which saves finished groups of masks
    assert len(trainings) == 6
    for path in trainings:
        assert "save_seconds=snakemake.resources" in path.read_text() or "save_seconds=save_seconds" in path.read_text()
        body = rules.partition(f"rule {path.stem}:")[2].partition("script:")[0]
        assert 'save_seconds=SUITE.config["save_seconds"]' in body
    with resumable(tmp_path / "output", "key", "here", save_seconds=7) as run:
        assert run.save_seconds == 7
    assert config_schema()["properties"]["save_seconds"]["default"] == Run.save_seconds


def test_the_state_of_another_run_is_left_alone(tmp_path, caplog):
    expected = run(tmp_path / "clean")
    run(tmp_path / "part", key="other", lr=0.01, save_seconds=0)
    caplog.set_level("INFO")
    assert same(run(tmp_path / "part"), expected)
    assert "starting from the beginning" in caplog.text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps({"key": print})])
def test_a_state_that_cannot_be_read_is_one_line(tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"state\.pt .*; delete it") as error:
        run(tmp_path)
    assert "\n" not in str(error.value)


def test_a_loss_that_is_not_finite_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"protocols.test: the loss is (inf|nan) between steps 1 and 4; write a"):
        run(tmp_path, lr=1e30)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_loading_processes_change_nothing(tmp_path):
    assert same(run(tmp_path / "two", workers=2), run(tmp_path / "none"))


def leave_free(monkeypatch, mebibytes):
    """Make shared memory have so many MiB free."""
    free = int(mebibytes * 2**20)
    monkeypatch.setattr(training_batches.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


@pytest.mark.parametrize(
    ("free", "fitting"), [(0, 0), (0.5, 0), (3.9, 0), (4, 1), (7, 2), (12.9, 3), (13, 4), (1000, 4)]
)
def test_processes_are_as_many_as_the_shared_memory_holds_batches_for(monkeypatch, caplog, free, fitting):
    """A batch of 1 MiB in two tensors; each process may have three under way, and 1 MiB is for all else."""
    monkeypatch.setattr(training_batches, "SHARED_MEMORY", Path("/"))
    leave_free(monkeypatch, free)
    batch = {
        "images": [torch.zeros(2**17, dtype=torch.float32)],
        "labels": (torch.zeros(2**16, dtype=torch.float64), 3),
    }
    assert training_batches.fitting_workers(4, batch) == fitting
    assert bool(caplog.messages) == (fitting < 4)


def test_no_shared_memory_to_ask_for(monkeypatch, tmp_path):
    monkeypatch.setattr(training_batches, "SHARED_MEMORY", tmp_path / "none")
    assert training_batches.fitting_workers(4, [torch.zeros(3)]) == 4


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("free", [0, 10_000])
def test_a_small_shared_memory_changes_nothing(tmp_path, monkeypatch, free):
    leave_free(monkeypatch, free)
    assert same(run(tmp_path / "two", workers=2), run(tmp_path / "none"))


def stuck(row, step, generator):
    """An example whose process does not go on: what full shared memory leads to."""
    if step:
        time.sleep(60)
    return torch.zeros(1)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_processes_that_make_no_batch_are_given_up_and_ended(monkeypatch):
    monkeypatch.setattr(training_batches, "LOADER_SECONDS", 1)
    batches = iterate_batches(
        stuck, ((step, ROWS[:2]) for step in range(3)), seed=0, workers=2, collate=torch.stack, device=CPU
    )
    next(batches)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"the 2 processes .* failed \(.*timed out"):
        next(batches)
    assert time.monotonic() - start < 20
    assert not multiprocessing.active_children()


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(tmp_path):
    losses, state, kinds = run(tmp_path / "mixed", precision="bfloat16")
    exact, *_ = run(tmp_path / "exact")
    assert set(kinds) == {torch.bfloat16} and {t.dtype for t in state.values()} == {torch.float32}
    np.testing.assert_allclose(losses, exact, rtol=0.05)


def test_batches_pass_over_all_rows_again_and_again():
    steps = list(batch_rows(ROWS, 5, 1, 0, 23))
    assert [step for step, _ in steps] == list(range(23))
    rows = np.concatenate([rows for _, rows in steps]).reshape(5, len(ROWS))
    assert all(sorted(one) == list(ROWS) for one in rows) and not np.array_equal(rows[0], rows[1])
    for (step, rows), (expected, wanted) in zip(batch_rows(ROWS, 5, 1, 9, 23), steps[9:], strict=True):
        assert step == expected and np.array_equal(rows, wanted)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 2, 1), (2, 2, 1), (5, 3, 2), (3, 4, 3), (3, 2, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_in_bfloat16_are_those_of_float32_where_a_map_is_narrower_than_the_stride(
    kernel, stride, side, layout
):
    torch.manual_seed(0)
    convolution = nn.Conv2d(32, 32, kernel, stride, kernel // 2).to(memory_format=layout)
    images, gradients = torch.randn(32, 32, side, side).contiguous(memory_format=layout), {}
    for _ in range(5):  # the unset memory that was taken for a gradient may happen to hold zeros
        junk = [torch.full((10**power,), torch.nan) for power in range(3, 7)]
        del junk
        for precision in ("float32", "bfloat16"):
            with computing_in(precision, CPU):
                output = convolution(images)
                call = nn.functional.conv2d(
                    images, convolution.weight, convolution.bias, stride=(stride, stride), padding=kernel // 2
                )
            assert output.dtype == call.dtype == getattr(torch, precision) and torch.equal(output, call)
            (output.float().square().sum() + call.float().square().sum()).backward()
            gradients[precision] = convolution.weight.grad
            convolution.weight.grad = None
        exact, near = gradients["float32"], gradients["bfloat16"]
        assert (near - exact).norm() < 0.02 * exact.norm()


def test_weights_that_the_last_step_spoils_are_noticed(tmp_path):
    """The loss of the step is finite, and there is no further one."""
    module = nn.Linear(1, 1, bias=False)
    steps = []

    def loss(batch, step):
        steps.append(step)
        value = module.weight.square().sum()
        return value + (0 * value).sqrt() if len(steps) == 3 else value

    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    circumstances = Run(tmp_path, "key", "config: protocols.test")
    with pytest.raises(DivergedError, match="weights are not finite after step 3; write a learning_rate below 0.1"):
        train(
            module, loss, lambda first: range(3), optimiser, lambda step: 1.0, 3, circumstances,
            interval=10, precision="float32",
        )  # fmt: skip
    assert len(steps) == 3


def test_narrow_maps_of_frozen_kernels_stay_in_bfloat16():
    """So that features, whose gradients nobody takes, are those of earlier releases."""
    torch.manual_seed(0)
    convolution, images = nn.Conv2d(8, 8, 3, 2, 1).requires_grad_(False), torch.randn(4, 8, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        plain = convolution(images)
    with computing_in("bfloat16", CPU):
        assert torch.equal(convolution(images), plain)
    with torch.inference_mode(), computing_in("bfloat16", CPU):
        assert torch.equal(convolution.requires_grad_(True)(images), plain)


def test_a_batch_may_be_larger_than_the_data():
    ((_, rows),) = batch_rows(ROWS[:3], 8, 1, 0, 1)
    assert len(rows) == 8 and set(rows) == set(ROWS[:3])


def test_curves_are_json(tmp_path):
    Curve(4, [1.23456789, 0.5]).save(tmp_path / "deep/curve.json")
    assert read_json(tmp_path / "deep/curve.json") == {"interval": 4, "losses": [1.23457, 0.5]}


def test_the_resume_folder_of_a_job_stays_until_its_outputs_are_written(tmp_path):
    output = tmp_path / "network.safetensors"
    for error in (InputError, KeyboardInterrupt):
        with pytest.raises(error), resumable(output, "key", "here", workers=3) as run:
            assert (run.key, run.config_path, run.workers) == ("key", "here", 3)
            (run.resume_dir / "state.pt").touch()
            raise error
        assert run.resume_dir == tmp_path / "network.safetensors.part" and run.resume_dir.is_dir()
    with resumable(output, "key", "here") as run:
        assert list(run.progress([1, 2], 2)) == [1, 2]
    assert not run.resume_dir.exists()


def test_the_key_of_a_run_is_that_of_earlier_releases():
    params = SimpleNamespace(arch="resnet50", norm="none", version=2)
    assert run_key(params) == '["resnet50", "none", 2]'
    assert run_key(params, {"source": "x"}, {"mask": 3}) == '["resnet50", "none", 2, {"source": "x"}, {"mask": 3}]'


def test_the_state_of_a_single_run_is_that_of_earlier_releases(tmp_path):
    run(tmp_path, save_seconds=0)
    state = torch.load(tmp_path / "state.pt")
    assert set(state) == {"key", "module", "optimiser", "step", "losses", "total"}


def regressions(part, rates=(0.1, 0.01, 1e30), stop=None, steps=12, save_seconds=0, ask=None):
    """Three regressions on the same batches, of which the last diverges."""
    members = []
    for rate in rates:
        torch.manual_seed(0)
        module = nn.Linear(3, 1)

        def loss(batch, step, module=module):
            if step == stop:
                raise KeyboardInterrupt
            if step == ask:
                os.kill(os.getpid(), signal.SIGTERM)
            return (module(batch[:, 1:]).squeeze(1) - batch[:, 0] / 100).square().mean()

        members.append(Member(module, loss, torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9)))

    def batches(first):
        rows = batch_rows(ROWS, 5, 7, first, steps)
        return iterate_batches(example, rows, seed=7, workers=0, collate=torch.stack, device=CPU)

    options = {"interval": 4, "precision": "float32"}
    run = Run(part, "key", "here", save_seconds=save_seconds)
    curves = train_members(members, batches, lambda step: 1.0, steps, run, **options)
    return curves, [member.module.weight.detach().clone() for member in members]


def test_members_train_as_if_alone_and_one_that_diverges_stops(tmp_path):
    curves, weights = regressions(tmp_path / "all")
    assert isinstance(curves[2], DivergedError) and "the loss is" in str(curves[2])
    for number, rate in enumerate((0.1, 0.01)):
        (alone,), (weight,) = regressions(tmp_path / str(rate), (rate,))
        assert alone == curves[number] and torch.equal(weight, weights[number])


@pytest.mark.parametrize(("rates", "loss"), [((0.1, 0.01, 0.001), r"\d"), ((1e30, 1e30, 1e30), "nan|inf")])
def test_a_step_of_many_networks_says_its_losses_before_it_ends(tmp_path, monkeypatch, caplog, rates, loss):
    """A network takes 22 seconds, as a batch of 64 images with a ResNet-50 on one core."""
    now, lines = [0.0], []
    backward = torch.Tensor.backward

    def slowly(value):
        now[0] += 22
        backward(value)

    caplog.set_level("INFO")
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(torch.Tensor, "backward", slowly)
    regressions(tmp_path, rates, save_seconds=600)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("step")]
    assert re.fullmatch(r"step 1 of 12, network 1 of 3: loss \d+\.\d+", lines[0])
    assert re.match(r"step 1 of 12, network 2 of 3", lines[1])
    assert any(re.search(f"network 1 of 3: loss ({loss})", line) for line in lines[2:5])


@pytest.mark.parametrize("stop", [2, 9])
def test_members_resume_together_with_what_has_diverged(tmp_path, stop):
    curves, weights = regressions(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        regressions(tmp_path / "part", stop=stop)
    resumed, found = regressions(tmp_path / "part")
    assert resumed[:2] == curves[:2] and isinstance(resumed[2], DivergedError)
    assert all(map(torch.equal, found[:2], weights[:2]))


@pytest.mark.parametrize("rates", [(1e30,), (1e30, 1e25)])
@pytest.mark.parametrize("ask", [None, 1])
def test_a_state_in_which_all_have_diverged_is_not_written(tmp_path, rates, ask):
    """Inside an interval of losses, where only the writing of a state notices it."""
    results, _ = regressions(tmp_path, rates, steps=300, save_seconds=-1, ask=ask)
    assert [type(result) for result in results] == [DivergedError] * len(rates)
    saved = torch.load(tmp_path / "state.pt") if (tmp_path / "state.pt").exists() else {"module": {}}
    assert "module" in saved


def test_divergence_of_all_in_a_resumed_run_ends_it(tmp_path):
    """The first diverges at once, the second in the resumed part: both are known, none raises."""
    with pytest.raises(KeyboardInterrupt):
        regressions(tmp_path, (1e30, 1e10), steps=300, stop=2, save_seconds=-1)
    assert torch.load(tmp_path / "state.pt")["step"] == 2
    results, _ = regressions(tmp_path, (1e30, 1e10), steps=300, save_seconds=-1)
    assert [type(result) for result in results] == [DivergedError] * 2


def test_a_single_run_that_diverges_while_its_state_is_written_is_one_line(tmp_path):
    with pytest.raises(
        DivergedError, match=r"protocols.test: the loss is (inf|nan) between steps 1 and [1-3]; write a"
    ):
        run(tmp_path, lr=1e30, save_seconds=-1)


def test_results_of_finished_runs_are_read_again(tmp_path):
    finished = FinishedRuns(tmp_path, "key")
    assert finished.read("first") is None
    finished.record("first", losses=np.arange(3.0))
    assert {name: list(values) for name, values in finished.read("first").items()} == {"losses": [0, 1, 2]}
    assert FinishedRuns(tmp_path, "other").read("first") is None
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match=file.name):
        finished.read("first")


def test_the_log_tells_losses_and_divergence_before_an_interval_ends(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training, "LOG_SECONDS", -1)
    with caplog.at_level("INFO"):
        losses, *_ = run(tmp_path / "a", steps=6)
    lines = [line for line in caplog.messages if line.startswith("step ")]
    assert len(lines) == 6 and lines[0].startswith("step 1 of 6: loss ")
    assert lines[3].endswith(f"loss {losses[0]:.4f}") and lines[5].endswith(f"loss {losses[1]:.4f}")
    with pytest.raises(InputError, match=r"the loss is (inf|nan) between steps 1 and [1-3];"):
        run(tmp_path / "b", lr=1e30)
