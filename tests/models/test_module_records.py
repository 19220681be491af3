"""A TorchScript archive gives the tensors that loading it would, while its program is never opened."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from palate.errors import CheckpointError
from palate.models import module_records
from palate.models.checkpoint import read_weights
from palate.models.clip_files import load_clip

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
OFFICIAL = FIXTURES / "hps_v1" / "hpc_tiny.pt"
WORDS = FIXTURES / "tokenizer" / "bpe_small.txt.gz"
SHAPES = FIXTURES / "hps_v1" / "architecture.json"

both_ways = pytest.mark.parametrize("traced", [False, True], ids=["scripted", "traced"])


class Holder(nn.Module):
    """A module that holds others and gives back what it gets."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers


def exported(module, *, traced=False):
    """Give the bytes of what torch.jit.save writes of a module."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        ready = (
            torch.jit.trace(module, torch.ones(1), check_trace=False)
            if traced
            else torch.jit.script(module)
        )
        torch.jit.save(ready, file)
    return file.getvalue()


def rewritten(content, *, change=None, compress=(), drop=(), add=()):
    """Write the entries of an archive anew: its program compressed, and some changed, gone or more."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        entries = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
        for name, data in (entries | dict(add)).items():
            changed = change(data) if name == "data.pkl" and change else data
            packed = name.startswith("code/") or name in compress
            if name not in drop:
                method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
                new.writestr(f"archive/{name}", changed, method)
    return file.getvalue()


def same_as_loading(path):
    """Expect the names, values and layout that torch.jit gives for a file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        expected = torch.jit.load(path, "cpu").state_dict()
    found = read_weights(path)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert (found[name].dtype, found[name].stride()) == (value.dtype, value.stride())
        assert torch.equal(found[name], value)
        assert not found[name].requires_grad
    return found


def refused(path, content, reason):
    """Expect a refusal in one sentence."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as fault:
        read_weights(path)
    assert str(fault.value).startswith(f"{path}: ")
    assert str(fault.value).isprintable()


def layers(width):
    """Give one of each of some layers."""
    return {
        "linear": nn.Linear(width, 2),
        "plain": nn.Linear(width, 2, bias=False),
        "conv": nn.Conv2d(width, 2, 1),
        "loose": nn.LayerNorm(width, elementwise_affine=False),
        "batch": nn.BatchNorm1d(width),
        "words": nn.Embedding(3, width),
        "parts": nn.ModuleList([nn.Identity(), nn.Linear(width, 1), nn.LayerNorm(width)]),
        "deep": nn.Sequential(nn.Sequential(nn.Linear(width, width), nn.GELU())),
    }


@given(
    st.lists(st.sampled_from(sorted(layers(1))), min_size=1, max_size=3),
    st.integers(1, 3),
    st.sampled_from([torch.float16, torch.float32, torch.float64, torch.bfloat16]),
    st.booleans(),
)
@settings(max_examples=12)
def test_an_exported_module_reads_as_its_state_dict(tmp_path_factory, names, width, dtype, traced):
    module = Holder(**{f"{name}_{at}": layers(width)[name] for at, name in enumerate(names)})
    module.add_module("again", module.get_submodule(f"{names[0]}_0"))
    module.to(dtype).register_buffer("turned", torch.arange(6).reshape(2, 3).T)
    module.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)
    path = tmp_path_factory.mktemp("exported") / "module.pt"
    path.write_bytes(exported(module.eval(), traced=traced))
    assert {"scale", "turned"} <= set(same_as_loading(path)) == set(module.state_dict())


class Busy(nn.Module):
    """A module with attributes of every kind beside its parameters and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = torch.arange(3.0)
        self.listed = [torch.ones(2)]
        self.numbers, self.floats, self.flags = [1, 2], [0.5], [True]
        self.words, self.named, self.pair = ["a"], {"a": 1.5}, (1, "x")
        self.count, self.kind, self.place = 2**40, torch.float16, torch.device("cpu")
        self.part = nn.Linear(2, 2)
        self.register_buffer("kept", torch.arange(4))
        self.register_buffer("passing", torch.ones(1), persistent=False)
        self.register_buffer("nothing", None)
        self.register_parameter("none", None)
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        for one in self.listed:
            numbers = numbers + one
        total = self.numbers[0] + self.floats[0] + self.named["a"] + self.pair[0] + self.count
        if self.flags[0] and self.words[0] == "a":
            total = total + 1
        return self.part((numbers + total + self.plain[0]).to(self.place)).to(self.kind)


@both_ways
def test_only_parameters_and_buffers_are_weights(tmp_path, traced):
    path = tmp_path / "module.pt"
    path.write_bytes(exported(Busy(), traced=traced))
    found = same_as_loading(path)
    assert set(found) == {"weight", "kept", "passing", "part.weight", "part.bias"}


@both_ways
def test_tied_weights_stay_tied(tmp_path, traced):
    path, part = tmp_path / "module.pt", nn.Linear(3, 4, bias=False)
    words = nn.Embedding(4, 3)
    part.weight = words.weight
    path.write_bytes(exported(Holder(words=words, part=part), traced=traced))
    found = same_as_loading(path)
    assert found["words.weight"].data_ptr() == found["part.weight"].data_ptr()


def tree(weights):
    """Build modules whose state dict has these names, with the numbers that OpenAI's exports carry."""
    root = Holder()
    for name, value in weights.items():
        *path, last = name.split(".")
        at = root
        for step in path:
            if step not in dict(at.named_children()):
                at.add_module(step, Holder())
            at = at.get_submodule(step)
        at.register_parameter(last, nn.Parameter(value.clone(), requires_grad=False))
    for name, number in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
        root.register_buffer(name, torch.tensor(number))
    return root.eval()


@both_ways
def test_a_clip_as_openai_exported_it_is_the_same_scorer(tmp_path, traced):
    weights, path = read_weights(OFFICIAL), tmp_path / "ViT-T-8.pt"
    module = tree(weights)
    # torch 1.7, with which OpenAI wrote its files, noted no byte order
    path.write_bytes(rewritten(exported(module, traced=traced), drop=["byteorder"]))
    assert {value.dtype for value in read_weights(path).values()} == {torch.float16}
    assert set(read_weights(path)) == set(weights)
    found = load_clip(path, tokenizer=WORDS, architecture=SHAPES)
    assert found.fingerprint() == load_clip(OFFICIAL, tokenizer=WORDS).fingerprint()


def test_the_program_is_never_opened(tmp_path, monkeypatch):
    path, module = tmp_path / "module.pt", Holder(part=nn.Linear(2, 2))
    content = exported(module)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    program = [name for name in names if name.startswith("code/") or name == "constants.pkl"]
    assert len(program) > 2
    large = ("code/__torch__/LARGE.py", bytes(50_000_000))
    junk = [(name, b"c" + name.encode()) for name in (*program, "code/__torch__/large.py")]
    path.write_bytes(rewritten(content, add=[large, *junk], compress=program))
    for owner, name in ((torch, "load"), (torch.jit, "load"), (torch._C, "import_ir_module")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("PyTorch loads the file"))
    opened = []
    monkeypatch.setattr(
        zipfile.ZipFile,
        "open",
        lambda *arguments, original=zipfile.ZipFile.open, **settings: (
            opened.append(getattr(arguments[1], "filename", arguments[1]))
            or original(*arguments, **settings)
        ),
    )
    found = read_weights(path)
    assert set(opened) == {
        f"archive/{name}" for name in ("data.pkl", "byteorder", "data/0", "data/1")
    }
    assert torch.equal(found["part.weight"], module.part.weight)


def test_code_in_the_pickle_of_a_program_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "module.pt", tmp_path / "trace"
    content = exported(Holder(part=nn.Linear(2, 2)).eval())
    command = f"touch {trace}".encode()
    call = b"cos\nsystem\n(X" + len(command).to_bytes(4, "little") + command + b"tR"
    reason = r"refused, since reading it would run code \(os\.system\)"
    refused(path, rewritten(content, change=lambda data: data[:2] + call + data[2:]), reason)
    # in place of whether the module is in training
    refused(path, rewritten(content, change=lambda data: data.replace(b"\x89", call, 1)), reason)
    assert not trace.exists()


@pytest.mark.parametrize("entry", ["data.pkl", "data/0", "byteorder"])
def test_what_is_read_of_a_program_is_not_compressed(tmp_path, entry):
    content = exported(Holder(part=nn.Linear(64, 64)))
    refused(
        tmp_path / "module.pt",
        rewritten(content, compress=[entry]),
        f"its entry 'archive/{entry}' is compressed",
    )


def test_a_program_with_missing_or_odd_weights_is_refused(tmp_path):
    path, content = tmp_path / "module.pt", exported(Holder(part=nn.Linear(2, 2)))
    missing = "the storage '1' is missing, expected 8 bytes"
    refused(path, rewritten(content, drop=["data/1"]), missing)
    short = rewritten(content, add=[("data/1", b"abc")])
    refused(path, short, "the storage '1' has 3 bytes, expected 8 bytes")
    for name in ("DATA.pkl", "Data/0"):
        refused(path, rewritten(content, add=[(name, b"N.")]), "an odd or repeated entry")
    refused(path, rewritten(content, drop=["data.pkl"]), "an archive without data.pkl")
    refused(
        path,
        rewritten(content, change=lambda data: data + bytes(9_000_000)),
        "a data.pkl of 90",
    )
    swapped = rewritten(content, add=[("byteorder", b"middle")])
    refused(path, swapped, "the numbers are stored as middle endian")


def test_a_program_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path):
    content = exported(Holder(part=nn.Linear(2, 2)))
    for end in (*range(0, len(content), len(content) // 25), len(content) - 1):
        refused(tmp_path / "a.pt", content[:end], "not a (readable )?PyTorch checkpoint")


def test_a_program_that_is_no_module_with_tensors_is_refused(tmp_path):
    path, content = tmp_path / "module.pt", exported(Holder(part=nn.Linear(2, 2)))
    refused(path, exported(Holder(part=nn.GELU())), "found a TorchScript module without tensors")
    saved = io.BytesIO()
    torch.save(nn.Linear(2, 2), saved)
    pickled = rewritten(saved.getvalue(), add=[("constants.pkl", b"")])
    for other in (
        pickled,
        rewritten(content, change=lambda _: b"\x80\x02}."),
        rewritten(content, change=lambda _: b"\x80\x02c__torch__\nA\n)\x81."),
        rewritten(content, change=lambda _: b"\x80\x02c__torch__\nA\n."),
    ):
        refused(path, other, "found a TorchScript program that is no module with tensors")


def test_a_class_of_a_program_has_no_place_in_a_state_dict(tmp_path):
    saved = io.BytesIO()
    torch.save({"a": torch.ones(1)}, saved)
    record = b"\x80\x02}X\x01\0\0\0ac__torch__\nA\n)\x81s."
    refused(
        tmp_path / "a.pt",
        rewritten(saved.getvalue(), change=lambda _: record),
        "refused, since reading it would run code|not a PyTorch checkpoint of plain tensors",
    )
    whole = rewritten(saved.getvalue(), change=lambda _: b"\x80\x02c__torch__\nA\n)\x81.")
    refused(tmp_path / "a.pt", whole, "found a A, expected a module")


def state(*entries):
    """Write the pickle of a scripted module with these attributes, each already pickled."""
    begin = b"\x80\x02c__torch__\nA\n)\x81q\x00}("
    items = b"".join(
        b"X" + len(name).to_bytes(4, "little") + name.encode() + value for name, value in entries
    )
    return begin + items + b"ub."


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([("training", b"\x89"), ("a.b", b"N")], "'a.b' is no name of a tensor or module"),
        ([("", b"N"), ("training", b"\x89")], "'' is no name of a tensor or module"),
        ([("training", b"\x89"), ("up", b"h\x00")], "modules within modules without end"),
    ],
)
def test_a_scripted_module_with_odd_parts_is_refused(tmp_path, monkeypatch, entries, reason):
    monkeypatch.setattr(module_records, "_MOST_ENTRIES", 3000)
    content = exported(Holder(part=nn.Linear(2, 2)))
    odd = rewritten(content, change=lambda _: state(*entries))
    refused(tmp_path / "module.pt", odd, reason)
