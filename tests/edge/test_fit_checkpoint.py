"""An exact fit that is killed goes on to the same bits, whatever solves it; what it leaves in its folder is whole."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import sys
import threading
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import torchlogit.fit
from contracts.problems import FOR_MANY_CLASSES, PRECONDITIONERS, classification
from torchlogit import class_curvature
from torchlogit.checkpoint import read_tree
from torchlogit.errors import InputError
from torchlogit.fit import Fit, Problem
from torchlogit.fit_checkpoint import FitCheckpoint, OtherPurposeError, Pace
from torchlogit.guide import guide_for, short_guide_for
from torchlogit.hessian_factors import HessianCholesky
from torchlogit.journal import SweepJournal
from torchlogit.kept_values import KEPT, as_tree, from_tree
from torchlogit.kernels import numba_cpu, shortened, torch_device
from torchlogit.losses import loss_for
from torchlogit.penalties import ElasticNet
from torchlogit.plan import WarmStart, start_of
from torchlogit.preconditioners import CentredDiagonal, HandedOn
from torchlogit.problem import Block, FitOptions, RowStats, Status
from torchlogit.purpose import FileMark, Purpose
from torchlogit.row_space import RowInverse
from torchlogit.shared_checkpoint import SharedKeeper
from torchlogit.solvers import LBFGS, Guided, Newton
from torchlogit.solvers.base import State
from torchlogit.sources import MemorySource

TIMES = {"seconds", "rows_per_second", "bytes_per_second"}
ALWAYS = Pace(minutes=0.0, share=1e9)
PURPOSE = Purpose({"--C": 1.0, "--weight": None})


class Killed(BaseException):
    """Stands for whatever ends a process."""


class Blocks(MemorySource):
    """Rows in blocks of fifty, of which only so many can be read before the process is killed."""

    left: float = np.inf
    read = 0

    def blocks(self, rows=None):
        return self.blocks_from(rows, 0)

    def blocks_from(self, rows, first):
        for block in islice(super().blocks(50), first, None):
            Blocks.left -= 1
            Blocks.read += 1
            if Blocks.left < 0:
                raise Killed
            yield block


@pytest.fixture(autouse=True)
def alive(monkeypatch, request):
    if "disk" not in request.node.name:
        monkeypatch.setattr("os.fsync", lambda handle: None)  # thousands of small files
    Blocks.left, Blocks.read = np.inf, 0


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem and what solves it; None leaves that to the plan."""

    classes: int = 2
    l2: tuple[float, ...] = (1e-3,)
    solver: object = None  # of (objective, tol)
    warm: bool = False
    tol: float = 1e-8
    max_iter: int = 1000
    separated: bool = False
    offset: bool = False
    kernel: str = "auto"
    rounded: bool = False  # rows in few bits are solved first, and guide the solver
    given: bool = False  # the plan has built what the guide is preconditioned by
    integers: bool = False  # those of many classes are integers
    few: bool = False  # directions in which the rows are noticed are looked for

    def source(self):
        rng = np.random.default_rng(5)
        X, y = classification(rng, rows=520, columns=5, classes=self.classes, noise=0.5)
        if self.separated:
            y = (X[:, 2] > np.median(X[:, 2])).astype(int)
        offset = torch.from_numpy(rng.normal(size=(520, 1, 1))) if self.offset else None
        return Blocks(Block(torch.from_numpy(y), dense=torch.from_numpy(X), offset=offset))

    def fit(self, keeper=None):
        loss, penalties = loss_for(self.classes), [ElasticNet(l2=l2) for l2 in self.l2]
        problem = Problem(self.source(), loss, penalties, has_offset=self.offset, kernel=self.kernel)
        return Fit(problem, FitOptions(self.tol, self.max_iter), keeper=keeper)


def _with(name, solver):
    build = PRECONDITIONERS[name]
    classes = 4 if name in FOR_MANY_CLASSES else 2
    return Case(classes, solver=lambda objective, tol: solver(build(objective), tol))


CASES = {
    "as planned": Case(),
    "as planned, four classes": Case(4),
    "no penalty": Case(l2=(0.0,)),
    "no penalty, four classes": Case(4, l2=(0.0,)),
    "separated": Case(l2=(0.0,), separated=True),
    "nearly separated": Case(l2=(1e-9,), separated=True),
    "out of budget": Case(tol=1e-12, max_iter=3),
    "out of precision": Case(tol=1e-300),
    "an offset": Case(offset=True),
    "compiled loops": Case(kernel="numba", warm=True),
    "rounded rows": Case(kernel="numba", rounded=True),
    "rounded rows, a plan's curvature": Case(kernel="numba", rounded=True, given=True),
    "rounded rows, nine classes": Case(9, l2=(100.0,), kernel="torch", rounded=True),
    "integers, nine classes": Case(9, l2=(100.0,), kernel="torch", rounded=True, integers=True),
    "few directions, nine classes, two lanes": Case(
        9,
        l2=(0.6, 3.0),
        few=True,
        solver=lambda objective, tol: Newton(class_curvature.ClassCholesky(objective.source), tol, patience=3.0),
    ),
    "three lanes": Case(l2=(1e-3, 1e-1, 10.0)),
    "warm": Case(warm=True),
    "warm, four classes": Case(4, warm=True),
    "warm, three lanes": Case(l2=(1e-3, 1e-1, 10.0), warm=True),
    "last resort": Case(
        4,
        l2=(1e-6,),
        solver=lambda objective, tol: Newton(
            class_curvature.ClassCholesky(objective.source), tol, patience=3.0, last_resort_products=4.0,
            last_resort=Newton(HessianCholesky(), tol),
        ),
    ),
    "diagonal, then classes, then whole": Case(
        4,
        l2=(1e-6,),
        solver=lambda objective, tol: Newton(
            CentredDiagonal(), tol, patience=2.0, last_resort_products=3.0, last_resort=Newton(
                class_curvature.ClassCholesky(objective.source), tol, patience=3.0, last_resort_products=4.0,
                last_resort=Newton(HessianCholesky(), tol),
            ),
        ),
    ),
    "diagonal, then whole, then Newton": Case(
        l2=(1e-9,),
        separated=True,
        solver=lambda objective, tol: LBFGS(
            CentredDiagonal(), tol, last_resort=LBFGS(
                HessianCholesky(rounded=True), tol, last_resort=Newton(HessianCholesky(), tol)
            ),
        ),
    ),
    "a subsample's, then Newton": Case(
        l2=(1e-9,),
        warm=True,
        solver=lambda objective, tol: LBFGS(
            HessianCholesky(objective.source.subsample(0.2, 0)), tol, last_resort=Newton(HessianCholesky(), tol)
        ),
    ),
    **{f"lbfgs, {name}": _with(name, LBFGS) for name in PRECONDITIONERS},
    **{f"newton, {name}": _with(name, Newton) for name in PRECONDITIONERS},
}  # fmt: skip


@pytest.fixture
def case(request, monkeypatch):
    chosen = CASES[request.param]
    plan = torchlogit.fit.choose
    if chosen.few:
        monkeypatch.setattr(class_curvature, "_LEADING_COLUMNS", 1)
        monkeypatch.setattr("torchlogit.leading._FEW", 0.5)
    if chosen.rounded:
        monkeypatch.setattr(numba_cpu, "_KEPT_COLUMNS", 1)
        for module in (torch_device, shortened):
            monkeypatch.setattr(module, "coarse_dtype", lambda: torch.bfloat16)
        monkeypatch.setattr("torchlogit.guide.has_integer_products", lambda: chosen.integers)

    def choose(objective, options, *others):
        choice = plan(objective, options, *others)
        if chosen.solver is not None:
            choice = dataclasses.replace(choice, solver=chosen.solver(objective, options.tol))
        if chosen.rounded:
            guide = (guide_for if chosen.classes == 2 else short_guide_for)(objective)
            rows = guide.objective
            if chosen.classes == 2:
                handed = HandedOn(CentredDiagonal())
                if chosen.given:
                    handed.give(CentredDiagonal().build(rows, rows.zeros(), rows.all_lanes()))
                solver = Guided(handed, options.tol, rows, LBFGS(CentredDiagonal(), options.tol))
            else:
                blocks = HandedOn(class_curvature.ClassCholesky(rows.source, rows.kernel))
                solver = Newton(blocks, options.tol, patience=3.0, guide=rows)
            choice = dataclasses.replace(choice, solver=solver, warm=start_of(guide, solver, options))
        if chosen.warm:
            sample = objective.source.subsample(0.3, options.seed)
            brief = FitOptions(1e-4, 15)
            start = WarmStart(objective.on(sample), Newton(HessianCholesky(), 1e-4), brief)
            choice = dataclasses.replace(choice, warm=start)
        return choice

    monkeypatch.setattr(torchlogit.fit, "choose", choose)
    return chosen


def bits(fit):
    for _ in fit.steps():
        pass
    records = [{key: value for key, value in record.items() if key not in TIMES} for record in fit.trace]
    results = []
    for result in fit.results():
        values = dataclasses.asdict(result)
        results.append({k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in values.items()})
    return results, records


class Sometimes(FitCheckpoint):
    """Writes after one block of four, whatever the pace."""

    draws = np.random.default_rng(11)

    def _affordable(self):
        return bool(self.draws.random() < 0.25)


def kept(folder, kind=FitCheckpoint, **options):
    return kind(folder, PURPOSE, resume=True, **{"pace": ALWAYS, **options})


def killed(case, folder, blocks, **options):
    """A fit in the folder that reads so many blocks: whether it came to its end, and what it came to."""
    Blocks.left = blocks
    checkpoint = kept(folder, **options)
    try:
        return True, bits(case.fit(checkpoint))
    except Killed:
        return False, None
    finally:
        Blocks.left = np.inf
        checkpoint.close()


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_killed_at_any_block_it_goes_on_to_the_same_bits(case, tmp_path):
    reference = bits(case.fit())
    whole = Blocks.read
    moments = Blocks.read = 0
    case.fit()
    moments, Blocks.read = Blocks.read, 0
    rng = np.random.default_rng(3)
    for number in sorted(rng.choice(np.arange(moments, whole), 3, replace=False).tolist()):
        folder = tmp_path / str(number)
        finished, _ = killed(case, folder, number, kind=Sometimes)
        assert not finished
        finished, result = killed(case, folder, np.inf, kind=Sometimes)
        assert finished
        assert result == reference
        assert sorted(path.suffix for path in folder.iterdir()) == ["", ".checkpoint", ".checkpoint"]


@pytest.mark.parametrize("case", ["as planned", "warm, four classes", "lbfgs, centred diagonal"], indirect=True)
def test_killed_again_and_again_it_arrives_all_the_same(case, tmp_path):
    """No process reads more than a pass and a half, so nothing but the cursor brings the fit to its end."""
    reference = bits(case.fit())
    for attempt in range(200):
        finished, result = killed(case, tmp_path / "kept", 16 if attempt else 30)
        if finished:
            break
    assert finished
    assert attempt > 3
    assert result == reference


@pytest.mark.parametrize("case", ["as planned", "separated", "three lanes"], indirect=True)
def test_a_finished_fit_is_there_at_once(case, tmp_path):
    reference = bits(case.fit())
    assert killed(case, tmp_path / "kept", np.inf) == (True, reference)
    Blocks.read = 0
    assert killed(case, tmp_path / "kept", np.inf) == (True, reference)
    assert Blocks.read == 0


@pytest.mark.parametrize("case", ["as planned"], indirect=True)
def test_a_pass_is_not_read_twice(case, tmp_path):
    """Of twelve blocks of the second sweep eight are known: four more bring it to its first state."""
    case.fit()
    killed(case, tmp_path / "kept", Blocks.read + 12 + 8)
    assert _latest(tmp_path / "kept") == (None, [(12, True), (8, False)])
    killed(case, tmp_path / "kept", 4)
    assert _latest(tmp_path / "kept") == (0, [])


def _latest(folder):
    """Number of the state that is kept, and how much is known of each sweep since."""
    tree = from_tree(read_tree(max(folder.glob("fit-*")), "torchlogit fit checkpoint"))
    run = tree["progress"].run
    return run and run["iterations"], [(sweep.blocks, sweep.whole) for sweep in tree["sweeps"].values()]


@pytest.mark.parametrize("case", ["as planned"], indirect=True)
def test_slow_writing_does_not_slow_the_fit_down(case, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    checkpoint = kept(tmp_path / "kept", pace=Pace(minutes=5.0, share=0.1))
    write, written = checkpoint._put, []

    def slow(*arguments):
        clock[0] += 2.0
        written.append(clock[0])
        write(*arguments)

    monkeypatch.setattr(checkpoint, "_put", slow)
    fit = case.fit(checkpoint)
    for _ in fit.steps():
        clock[0] += 1.0
    assert len(fit.trace) < 20
    assert len(written) == 2  # the first and the last
    checkpoint.close()


def test_a_long_pass_is_kept_by_the_clock(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    checkpoint = kept(tmp_path / "kept", pace=Pace(minutes=1.0))
    fit = Case().fit(checkpoint)
    assert fit.run.state is None
    numbers = []
    journal = checkpoint.journal
    journal.open("question")
    for _ in range(20):
        clock[0] += 25.0
        journal.add(RowStats(1, torch.ones(1)))
        numbers.append(max(int(path.stem[4:]) for path in (tmp_path / "kept").glob("fit-*")))
    assert numbers == [1, 1] + [1 + i // 3 for i in range(3, 21)]
    checkpoint.close()


class Ranks:
    """Two threads that stand for two processes: what one gives all, and failures that reach all."""

    def __init__(self):
        self.barrier, self.given, self.failed = threading.Barrier(2), None, None

    def of(self, rank):
        return SimpleNamespace(
            from_first=lambda work: self._meet(rank, work)[0], together=lambda work: self._meet(rank, work)[rank]
        )

    def _meet(self, rank, work):
        if self.barrier.wait() == 0:
            self.given, self.failed = {}, None
        self.barrier.wait()
        try:
            self.given[rank] = work()
        except Exception as error:
            self.failed = error
        self.barrier.wait()
        if self.failed is not None:
            raise InputError(str(self.failed))
        return dict(self.given)


def _two_ranks(case, folder, blocks):
    """What both fits come to: bits, or what ended them."""
    ranks, ends = Ranks(), [None, None]
    Blocks.left = blocks
    checkpoint = kept(folder)

    def fitted(rank):
        try:
            ends[rank] = bits(case.fit(SharedKeeper(checkpoint if rank == 0 else None, ranks.of(rank))))
        except (Killed, InputError, threading.BrokenBarrierError) as end:
            ends[rank] = end
            if not isinstance(end, InputError):
                ranks.barrier.abort()

    threads = [threading.Thread(target=fitted, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    checkpoint.close()
    Blocks.left = np.inf
    return ends


@pytest.mark.parametrize("case", ["as planned", "lbfgs, centred diagonal"], indirect=True)
def test_one_of_two_processes_is_killed(case, tmp_path, monkeypatch):
    reference = bits(case.fit())
    whole = 2 * Blocks.read
    for share in (0.3, 0.6, 0.9):
        ends = _two_ranks(case, tmp_path / str(share), int(share * whole))
        assert all(isinstance(end, (Killed, threading.BrokenBarrierError)) for end in ends)
        assert _two_ranks(case, tmp_path / str(share), np.inf) == [reference, reference]
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", lambda *arguments: (_ for _ in ()).throw(OSError(28, "full")))
        ends = _two_ranks(case, tmp_path / "full", np.inf)
    assert [str(end).split(":")[0] for end in ends] == [
        f"the checkpoint {tmp_path / 'full' / 'fit-000001.checkpoint'} cannot be written (full), and there is no "
        "earlier one"
    ] * 2


# -- what is in the folder ------------------------------------------------------------------------------------------


def _two(folder):
    """A folder with two checkpoints of an unfinished fit."""
    finished, _ = killed(Case(), folder, 66)
    assert not finished
    return sorted(folder.glob("fit-*.checkpoint"))


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    reference = bits(Case().fit())
    for name, damage in (
        ("cut short", lambda content: content[: len(content) // 2]),
        ("empty", lambda content: b""),
        ("a flipped bit", lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]),
        ("something else", lambda content: b"hello"),
    ):
        folder = tmp_path / name
        before, latest = _two(folder)
        latest.write_bytes(damage(latest.read_bytes()))
        said = []
        finished, result = killed(Case(), folder, np.inf, say=said.append)
        assert (finished, result) == (True, reference), name
        assert said[0].startswith(str(latest))
        assert said[0].endswith("going on from the one before")
        assert said[1:] == [f"going on from step 1 of the fit, as kept in {folder}"]


def test_no_checkpoint_that_can_be_used(tmp_path):
    for path in _two(tmp_path / "kept"):
        path.write_bytes(b"{}")
    with pytest.raises(InputError, match=r"no checkpoint in .*kept can be used .* delete the folder and start anew"):
        kept(tmp_path / "kept")


def test_nothing_there_yet(tmp_path):
    said = []
    kept(tmp_path / "kept", say=said.append).close()
    assert said == [f"there is no checkpoint in {tmp_path / 'kept'} yet; starting from the beginning"]


def test_what_is_there_is_not_overwritten(tmp_path):
    _two(tmp_path / "kept")
    with pytest.raises(InputError, match=r"kept holds the checkpoint of a fit: add --resume to go on from it, or name"):
        FitCheckpoint(tmp_path / "kept", PURPOSE)


def test_one_process_at_a_time(tmp_path):
    first = kept(tmp_path / "kept")
    with pytest.raises(InputError, match="another process keeps its fit in"):
        kept(tmp_path / "kept")
    first.close()
    kept(tmp_path / "kept").close()


@pytest.mark.parametrize("name", ["a file", "missing/folder"])
def test_a_folder_that_cannot_be_one(tmp_path, name):
    (tmp_path / "a file").write_text("here")
    with pytest.raises(InputError, match=r"cannot be made or written to .*; name another with --checkpoint"):
        kept(tmp_path / name)


def test_what_a_killed_write_leaves_is_removed(tmp_path):
    folder = tmp_path / "kept"
    _two(folder)
    (folder / ".0a1b2c3d.partial.checkpoint").write_bytes(b"half")
    finished, _ = killed(Case(), folder, np.inf)
    assert finished
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("failing", ["pathlib.Path.write_bytes", "os.fsync"])
def test_a_full_disk(tmp_path, monkeypatch, failing):
    reference = bits(Case().fit())
    folder = tmp_path / "kept"
    before = [path.read_bytes() for path in _two(folder)]

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, full)
        with pytest.raises(InputError, match=r"cannot be written \(No space left on device\), and .* is good"):
            killed(Case(), folder, np.inf)
    assert [path.read_bytes() for path in sorted(folder.glob("fit-*"))] == before
    assert not list(folder.glob(".*"))
    assert killed(Case(), folder, np.inf) == (True, reference)


# -- another purpose ------------------------------------------------------------------------------------------------

FILE = FileMark("/data/train.csv", 1234, 1_700_000_000_000_000_000, "aa")
MADE = Purpose({"threads": 1, "--C": 1.0, "--weight": None, "--no-header": False, "--drop": []}, (FILE,))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"facts": {"--C": 10.0}}, "with --C 1.0, and this run has --C 10.0"),
        ({"facts": {"threads": 2}}, "with threads 1, and this run has threads 2"),
        ({"facts": {"--weight": "w"}}, "without --weight, and this run has --weight w"),
        ({"facts": {"--no-header": True}}, "without --no-header, and this run has --no-header"),
        ({"facts": {"--drop": ["a", "b"]}}, "without --drop, and this run has --drop a b"),
        ({"files": (dataclasses.replace(FILE, size=1240),)}, "train.csv has changed: 1,234 bytes then, 1,240 now"),
        ({"files": (dataclasses.replace(FILE, ends="ab"),)}, "train.csv has changed: it begins or ends otherwise"),
        ({"files": (dataclasses.replace(FILE, changed=FILE.changed + 10**9),)},
         "changed: written 2023-11-14 22:13:20.000000 UTC then, 2023-11-14 22:13:21.000000 UTC now"),
        ({"files": ()}, "with the file /data/train.csv, which this run does not read"),
        ({"files": (FILE, dataclasses.replace(FILE, path="b"))}, "without the file b, which this run reads"),
        ({"files": (FILE, FILE)}, "with the same files in another order or number"),
    ],
)  # fmt: skip
def test_another_purpose_is_refused_by_name(tmp_path, change, told):
    other = Purpose({**MADE.facts, **change.get("facts", {})}, change.get("files", MADE.files))
    assert told in other.difference(MADE)
    assert not MADE.difference(Purpose.from_tree(MADE.as_tree()))
    checkpoint = FitCheckpoint(tmp_path / "kept", MADE, pace=ALWAYS)
    Case().fit(checkpoint)
    checkpoint.close()
    with pytest.raises(OtherPurposeError, match="was made otherwise: ") as caught:
        FitCheckpoint(tmp_path / "kept", other, resume=True)
    assert told in str(caught.value)
    assert str(caught.value).endswith("; run it as it was, or start anew in another folder")


def test_another_problem_under_the_same_options_is_refused(tmp_path):
    killed(Case(), tmp_path / "kept", 60)
    with pytest.raises(InputError, match=r"planned otherwise: .* then, .* now; start a new one"):
        killed(Case(l2=(0.5,)), tmp_path / "kept", np.inf)


# -- values ---------------------------------------------------------------------------------------------------------


def test_every_curvature_and_state_can_be_kept():
    """Whoever adds one is told here."""
    # The plan imports them all.
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("torchlogit.")]
    classes = {
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and dataclasses.is_dataclass(kind)
    }
    made = [kind for kind in classes if {"solve", "take"} <= set(vars(kind))]
    assert len(made) >= 5
    states = [kind for kind in classes if issubclass(kind, State)]
    assert len(states) >= 3
    # Where a fit is kept, nothing is made that holds the rows (`row_space.fits`).
    missing = [kind.__name__ for kind in [*made, *states] if kind not in KEPT and kind is not RowInverse]
    assert not missing


def test_values_come_back_as_they_lay_in_memory():
    whole = torch.arange(60, dtype=torch.float64).reshape(5, 12)
    values = {
        "plain": whole,
        "transposed": whole.T,
        "part": whole[1:4, 3:7],
        "off a register's beginning": whole.reshape(-1)[3:],
        "spread out": torch.ones(1, 3).expand(4, 3),
        "scalar": torch.tensor(3.0),
        "nothing": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
        "far apart": torch.arange(100_000.0)[::50_000],
    }
    for name, value in values.items():
        again = from_tree(as_tree(value))
        assert torch.equal(again, value), name
        assert again.dtype == value.dtype
        if name != "far apart":
            assert again.stride() == value.stride(), name
            assert not value.numel() or again.data_ptr() % 64 == value.data_ptr() % 64, name
    assert as_tree(values["far apart"])["__tensor__"].shape == (2,)
    assert from_tree(as_tree(Status.UNDECIDED)) is Status.UNDECIDED


def test_other_values_are_not_kept():
    @dataclasses.dataclass
    class Other:
        u: int = 1

    with pytest.raises(TypeError, match="a checkpoint cannot hold Other"):
        as_tree({"x": [Other()]})
    with pytest.raises(KeyError):
        from_tree({"__record__": "Path", "a": 1})
    with pytest.raises(ValueError, match="Separation lacks"):
        from_tree({"__record__": "Separation"})


def test_sums_that_answer_another_question_are_forgotten():
    noted = []
    journal = SweepJournal(noted.append)
    one, two = torch.ones(3), torch.full((3,), 2.0)
    stats = RowStats(1, torch.ones(1))
    for question in (one, one, two):
        journal.open("gradient", question)
        journal.add(stats)
        journal.close()
    assert noted == [False, True] * 3
    sweeps = dict(journal.sweeps)
    journal.rewind(sweeps)
    assert journal.open("gradient", one).whole
    assert not journal.open("gradient", two).whole
    assert list(journal.sweeps) == [0, 1]
    journal.rewind(sweeps)
    assert not journal.open("curvature", one).whole
    journal.rewind({0: dataclasses.replace(sweeps[0], whole=False)})
    assert journal.open("gradient", one).blocks == 1
    journal.rewind({0: dataclasses.replace(sweeps[0], whole=False)})
    assert journal.open("gradient", one, partly=False).blocks == 0


def test_large_sums_are_not_kept(monkeypatch):
    monkeypatch.setattr("torchlogit.journal._KEPT_BYTES", 20)
    journal = SweepJournal(lambda whole: None)
    for _ in range(4):
        journal.open("gradient")
        journal.add(RowStats(1, torch.ones(1, dtype=torch.float64)))
        journal.close()
    assert list(journal.sweeps) == [0, 1]


def test_the_checkpoint_is_flushed_to_the_disk(tmp_path, monkeypatch):
    flushed = []
    import os

    sync = os.fsync

    def noted(handle):
        flushed.append(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    monkeypatch.setattr("os.fsync", noted)
    checkpoint = kept(tmp_path / "kept")
    Case().fit(checkpoint)
    checkpoint.close()
    assert [Path(name).name.split(".")[-2:] for name in flushed[:1]] == [["partial", "checkpoint"]]
    assert flushed[1] == str(tmp_path / "kept")
