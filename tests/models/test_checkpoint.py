"""Checkpoints are data: strict names, and nothing from a file is ever run."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn

from palate.errors import CheckpointError
from palate.models import module_records
from palate.models.checkpoint import read_weights
from palate.models.clip_files import load_clip
from palate.models.clip_names import from_openai, read_architecture

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
MPS = FIXTURES / "mps" / "MPS_tiny_checkpoint.pth"
OFFICIAL = FIXTURES / "hps_v1" / "hpc_tiny.pt"
WORDS = FIXTURES / "tokenizer" / "bpe_small.txt.gz"
SHAPES = FIXTURES / "hps_v1" / "architecture.json"


@pytest.fixture
def weights():
    return read_weights(OFFICIAL)


def saved(weights, folder, **extra):
    """Write weights as an official file, with the architecture beside."""
    path = folder / "hpc.pt"
    torch.save({"state_dict": weights} | extra, path)
    (folder / "architecture.json").write_text(SHAPES.read_text("utf-8"), "utf-8")
    return path


class Trap:
    """A pickle that leaves a trace when it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "evil.pt"
    torch.save({"state_dict": {"a": torch.zeros(1), "b": Trap(trace)}}, path)
    with pytest.raises(CheckpointError, match="would run code"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        read_weights(path)
    assert not trace.exists()


def saved_bytes(content, **settings):
    """Give the bytes of a file of torch.save."""
    file = io.BytesIO()
    torch.save(content, file, **settings)
    return file.getvalue()


def refused(path, content, reason):
    """Expect a refusal in one sentence, at once and without filling the memory."""
    path.write_bytes(content)
    begin = time.process_time()
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=reason) as fault:
        read_weights(path)
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20 + 4 * len(content)
    tracemalloc.stop()
    assert time.process_time() - begin < 5
    assert str(fault.value).startswith(f"{path}: ")
    assert str(fault.value).isprintable()


class Stubs:
    """A pickle module under which classes that are not installed are empty modules."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if module.startswith(("trainer.", "transformers.")):
                return type(name, (object if "Config" in name else nn.Module,), {})
            return super().find_class(module, name)

    load, UnpicklingError = pickle.load, pickle.UnpicklingError


def test_the_official_mps_module_gives_the_tensors_that_loading_it_would():
    found = read_weights(MPS)
    expected = torch.load(MPS, "cpu", pickle_module=Stubs, weights_only=False).state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
        assert not found[name].requires_grad


def test_the_official_mps_module_has_the_parts_of_its_architecture():
    found = read_weights(MPS)
    said = json.loads((MPS.parent / "architecture.json").read_text("utf-8"))
    assert {name.split(".")[0] for name in found} == {"model", "cross_model"}
    for part, layers in (
        ("cross_model.layers", said["cross_model"]["layer_num"]),
        ("model.text_model.encoder.layers", said["text_config"]["num_hidden_layers"]),
        ("model.vision_model.encoder.layers", said["vision_config"]["num_hidden_layers"]),
    ):
        numbers = {
            name.removeprefix(f"{part}.").split(".")[0] for name in found if name.startswith(part)
        }
        assert numbers == {str(number) for number in range(layers)}
    inner = said["cross_model"]["heads"] * said["cross_model"]["dim_head"]
    width = said["cross_model"]["dim"]
    assert found["cross_model.layers.1.0.fn.to_q.weight"].shape == (inner, width)
    assert found["model.visual_projection.weight"].shape == (
        said["projection_dim"],
        said["vision_config"]["hidden_size"],
    )
    assert found["model.logit_scale"].shape == ()
    assert {value.dtype for value in found.values()} == {torch.float32}


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A package with the names of the official one, which leaves a trace when it is imported."""
    trace, folder = tmp_path / "trace", tmp_path / "trainer" / "models"
    folder.mkdir(parents=True)
    for name in ("cross_modeling", "clip_model"):
        (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').close()\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield trace
    for name in [name for name in sys.modules if name.split(".")[0] == "trainer"]:
        del sys.modules[name]


def test_reading_a_module_imports_nothing_that_it_names(planted):
    read_weights(MPS)
    assert not [name for name in sys.modules if name.split(".")[0] == "trainer"]
    assert not planted.exists()
    importlib.import_module("trainer.models.cross_modeling")
    assert planted.exists()


def test_reading_a_module_runs_no_method_of_its_classes(tmp_path, monkeypatch):
    path = tmp_path / "module.pth"
    torch.save(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), path)

    def spring(*_arguments, **_settings):
        pytest.fail("a method was called")

    for name in ("__init__", "__setstate__", "__setattr__", "__getattr__", "state_dict"):
        monkeypatch.setattr(nn.Module, name, spring, raising=False)
    names = {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert set(read_weights(path)) == names | {
        f"1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }


def layers(width):
    """Give one of each of some layers that take and give so many channels."""
    return {
        "linear": nn.Linear(width, width),
        "plain": nn.Linear(width, width, bias=False),
        "conv": nn.Conv2d(width, width, 1),
        "norm": nn.LayerNorm(width),
        "loose": nn.LayerNorm(width, elementwise_affine=False),
        "batch": nn.BatchNorm1d(width),
        "attention": nn.MultiheadAttention(width, 1),
        "words": nn.Embedding(3, width),
        "gelu": nn.GELU(),
        "parts": nn.ModuleList([nn.Identity(), nn.Linear(width, 1)]),
        "named": nn.ModuleDict({"a": nn.Dropout(), "b": nn.Conv1d(width, 1, 1)}),
    }


@given(
    st.lists(st.sampled_from(sorted(layers(1))), min_size=1, max_size=5),
    st.integers(1, 3),
    st.sampled_from([torch.float16, torch.float32, torch.float64, torch.bfloat16]),
    st.sampled_from([2, 4, 5]),
)
def test_a_saved_module_reads_as_its_state_dict(tmp_path_factory, names, width, dtype, protocol):
    path = tmp_path_factory.mktemp("saved") / "module.pth"
    module = nn.Sequential(*(layers(width)[name] for name in names)).to(dtype)
    module.register_buffer("kept", torch.arange(6).reshape(2, 3).T)
    module.register_buffer("passing", torch.ones(1), persistent=False)
    module.register_buffer("nothing", None)
    module.append(module[0])
    module.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)
    torch.save(module, path, pickle_protocol=protocol)
    found, expected = read_weights(path), module.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert (found[name].dtype, found[name].stride()) == (value.dtype, value.stride())
        assert torch.equal(found[name], value)


def test_tied_weights_stay_tied_and_empty_ones_empty(tmp_path):
    path = tmp_path / "module.pth"
    module = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False), nn.Linear(3, 1))
    module[2].weight = nn.Parameter(torch.ones(0, 3))
    module[1].weight = module[0].weight
    torch.save(module, path)
    found = read_weights(path)
    assert found["0.weight"].data_ptr() == found["1.weight"].data_ptr()
    assert (found["2.weight"].shape, found["2.bias"].shape) == ((0, 3), (1,))


def test_a_common_prefix_is_dropped_from_a_module_too(tmp_path):
    path = tmp_path / "module.pth"
    torch.save(nn.DataParallel(nn.Linear(2, 2)), path)
    assert set(read_weights(path)) == {"weight", "bias"}


def rewritten(content, *, change=None, compression=zipfile.ZIP_STORED, drop=(), add=()):
    """Write the entries of an archive anew, with its pickle changed, some gone or some more."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(file, "w", compression) as new,
    ):
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("/data.pkl") and change is not None:
                data = change(data)
            if name.partition("/")[2] not in drop:
                new.writestr(name, data)
        for name, data in add:
            new.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize("whole", [False, True])
def test_tensors_saved_on_a_gpu_are_read_without_one(tmp_path, whole):
    path, module = tmp_path / "gpu.pth", nn.Linear(2, 3)
    cpu, gpu = b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0"
    content = saved_bytes(module if whole else module.state_dict())
    path.write_bytes(rewritten(content, change=lambda data: data.replace(cpu, gpu)))
    with zipfile.ZipFile(path) as archive:
        assert gpu in archive.read("archive/data.pkl")
    found = read_weights(path)
    assert torch.equal(found["weight"], module.weight)
    assert found["bias"].device.type == "cpu"


def test_an_official_head_saved_on_a_gpu_is_read(shared):
    found = read_weights(shared / "data" / "aesthetic_heads" / "sac+logos+ava1-l14-linearMSE.pth")
    assert found["layers.0.weight"].shape == (1024, 768)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("archive", [False, True])
def test_code_is_refused_by_its_name_wherever_it_hides(tmp_path, archive, protocol):
    trace = tmp_path / "trace"

    class System:
        def __reduce__(self):
            return (os.system, (f"touch {trace}",))

    class Sheltered:
        def __reduce__(self):
            return (nn.Linear, (System(),))

    module = nn.Linear(1, 1)
    module.payload = System()
    for hidden in (System(), {"a": System()}, {"state_dict": {"a": System()}}, Sheltered(), module):
        refused(
            tmp_path / "a.pth",
            saved_bytes(hidden, pickle_protocol=protocol, _use_new_zipfile_serialization=archive),
            r"refused, since reading it would run code \(\w+\.system\)",
        )
    assert not trace.exists()


def test_classes_that_are_not_known_are_refused_by_name(tmp_path):
    path = tmp_path / "a.pth"
    refused(path, saved_bytes(nn.LSTM(1, 1)), r"would run code \(torch\.nn\.modules\.rnn\.LSTM\)")
    # a module among other things is no state dict and is not looked for
    refused(path, saved_bytes({"model": nn.Linear(1, 1)}), r"run code \(torch\.nn\..*\.Linear\)")
    old = saved_bytes(nn.Linear(1, 1), _use_new_zipfile_serialization=False)
    refused(path, old, "a pickled module in the format of before PyTorch 1.6")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"PK\x03\x04 half a zip"])
def test_files_that_are_no_checkpoint_are_refused_in_a_sentence(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as fault:
        read_weights(path)
    assert str(path) in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("form", ["module", "state dict", "old state dict", "safetensors"])
def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path, form):
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    content = {
        "module": lambda: saved_bytes(module),
        "state dict": lambda: saved_bytes(module.state_dict()),
        "old state dict": lambda: saved_bytes(
            module.state_dict(), _use_new_zipfile_serialization=False
        ),
        "safetensors": lambda: save(module.state_dict()),
    }[form]()
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pt")
    for end in (*range(0, len(content), len(content) // 25), len(content) - 1):
        refused(path, content[:end], r"not a (readable )?(PyTorch checkpoint|safetensors file)")
    path.write_bytes(content)
    assert len(read_weights(path)) == 7


@pytest.mark.parametrize("whole", [False, True])
def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path, whole):
    path, module = tmp_path / "a.pth", nn.Linear(64, 64)
    content = saved_bytes(module if whole else module.state_dict())
    refused(
        path, rewritten(content, compression=zipfile.ZIP_DEFLATED), "'archive/.*' is compressed"
    )
    zeros = ("archive/data/9", bytes(50_000_000))
    bomb = rewritten(content, compression=zipfile.ZIP_DEFLATED, add=[zeros])
    assert len(bomb) < 100_000
    refused(path, bomb, "is compressed")
    large = struct.pack("<I", 64 * 64 * 4)
    lie = content.replace(large, struct.pack("<I", 2**31))
    assert lie != content
    refused(path, lie, "larger than the file")
    refused(
        path, rewritten(content, change=lambda data: data + bytes(9_000_000)), "a data.pkl of 90"
    )


def overlapping(content):
    """List the largest entry of an archive many times over."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        begin, central = archive.start_dir, archive.infolist()
    at = begin
    for member in central:
        length = 46 + sum(struct.unpack("<HHH", content[at + 28 : at + 34]))
        if member.filename == "archive/data/0":
            entry = content[at : at + length]
        at += length
    more = b"".join(entry.replace(b"data/0", b"data/%d" % number) for number in range(2, 10))
    listed = content[begin:at] + more
    return (
        content[:begin]
        + listed
        + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *[len(central) + 8] * 2, len(listed), begin, 0)
    )


def test_an_archive_whose_entries_overlap_or_repeat_is_refused(tmp_path):
    path, content = tmp_path / "a.pth", saved_bytes(nn.Linear(64, 64))
    refused(path, overlapping(content), "larger than the file")
    scripted = rewritten(content, add=[("archive/constants.pkl", b"")])
    refused(path, overlapping(scripted), "larger than the file")
    for name in ("archive/DATA.pkl", "archive/Data/0", "other/data.pkl", "data.pkl"):
        refused(path, rewritten(content, add=[(name, b"N.")]), "an odd or repeated entry")


def test_archives_that_torch_did_not_write_are_refused(tmp_path):
    path, content = tmp_path / "a.pth", saved_bytes(nn.Linear(2, 2))
    refused(path, rewritten(content, drop=["data.pkl"]), "an archive without data.pkl")
    refused(path, rewritten(content, add=[("archive/constants.pkl", b"")]), "a TorchScript program")
    refused(
        path, rewritten(content, drop=["data/1"]), "the storage '1' is missing, expected 8 bytes"
    )
    short = rewritten(content, drop=["data/1"], add=[("archive/data/1", b"abc")])
    refused(path, short, "the storage '1' has 3 bytes, expected 8 bytes")
    swapped = rewritten(content, drop=["byteorder"], add=[("archive/byteorder", b"middle")])
    refused(path, swapped, "the numbers are stored as middle endian")
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    refused(path, empty.getvalue(), "not a PyTorch checkpoint|without data.pkl")


def test_a_storage_that_was_damaged_is_refused(tmp_path):
    module = nn.Linear(2, 2)
    content = saved_bytes(module)
    weight = module.weight.detach().numpy().tobytes()
    refused(tmp_path / "a.pth", content.replace(weight, bytes(16)), "Bad CRC-32")


@pytest.mark.parametrize(
    ("kind", "name", "value", "reason"),
    [
        ("_parameters", "a.b", nn.Parameter(torch.ones(1)), "'a.b' is no name of a tensor"),
        ("_modules", "", nn.Linear(1, 1), "'' is no name of a tensor"),
        ("_buffers", 1, torch.ones(1), "'1' is no name of a tensor"),
        ("_parameters", "a", "text", "entry '0.a' is no tensor"),
        ("_buffers", "weight", torch.ones(1), "entry '0.weight' is no tensor, or twice there"),
        ("_modules", "a", torch.ones(1), "found a TensorPlan, expected a module"),
        ("_modules", "a", nn.functional.relu, "found a Name, expected a module"),
        ("_modules", "a", torch.Size([1]), "found a Size, expected a module"),
    ],
)
def test_a_module_with_odd_parts_is_refused(tmp_path, kind, name, value, reason):
    module = nn.Sequential(nn.Linear(2, 2))
    getattr(module[0], kind)[name] = value
    refused(tmp_path / "a.pth", saved_bytes(module), reason)


def test_modules_that_hold_one_another_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module_records, "_MOST_ENTRIES", 3000)
    circle = nn.Sequential(nn.Linear(1, 1))
    circle[0].add_module("up", circle)
    refused(tmp_path / "a.pth", saved_bytes(circle), "modules within modules without end")
    doubled = nn.Linear(1, 1)
    for _ in range(50):
        doubled = nn.Sequential(doubled, doubled)
    refused(tmp_path / "a.pth", saved_bytes(doubled), "modules within modules without end")
    long = nn.ModuleDict({"n" * 600: nn.ModuleDict({"n" * 600: nn.Linear(1, 1)})})
    refused(tmp_path / "a.pth", saved_bytes(long), "modules within modules without end")


def safetensors(body=bytes(16), length=None, **header):
    """Write a safetensors file by hand."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors(a=entry([4], 0, 16), length=2**63),
        safetensors(a=entry([4], 0, 16), length=99_000_000),
        safetensors(a=entry([4], 0, 16), length=9),
        safetensors(a=entry([4], 0, 16), body=bytes(8)),
        safetensors(a=entry([4], 0, 16), body=bytes(24)),
        safetensors(a=entry([5], 0, 16)),
        safetensors(a=entry([4], 16, 0)),
        safetensors(a=entry([4], 0, 2**63)),
        safetensors(a=entry([2**62, 2**62], 0, 16)),
        safetensors(a=entry([0, 2**63, 2**63], 0, 0), body=b""),
        safetensors(a=entry([0, 2**63], 0, 0), body=b""),
        safetensors(a=entry([-4], 0, 16)),
        safetensors(a=entry([4], 0, 16, "F31")),
        safetensors(a=entry([2], 0, 8), b=entry([2], 0, 8), body=bytes(8)),
        safetensors(a=entry([2], 8, 16)),
        safetensors(a=7),
        safetensors(__metadata__={"a": 1}),
        struct.pack("<Q", 50_000) + b"[" * 50_000,
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, content):
    refused(tmp_path / "a.safetensors", content, "not a readable safetensors file")


def test_an_empty_safetensors_file_holds_no_weights(tmp_path):
    refused(tmp_path / "a.safetensors", safetensors(b""), "found a dictionary with nothing in it")
    (tmp_path / "a.safetensors").write_bytes(safetensors(a=entry([4], 0, 16)))
    assert torch.equal(read_weights(tmp_path / "a.safetensors")["a"], torch.zeros(4))


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_other_things_than_weights_files_are_refused(tmp_path, name):
    path = tmp_path / name
    for content in (
        (FIXTURES / "images" / "exact_224.png").read_bytes(),
        (FIXTURES / "images" / "almost_225x224.jpg").read_bytes(),
        b"c'est un texte\nsans poids\n",
        b"(mostly) text",
        bytes(1000),
    ):
        refused(path, content, r"not a (readable )?(PyTorch checkpoint|safetensors file)")
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match="found a folder, expected a weights file"):
        read_weights(path)


def test_an_old_file_whose_storages_are_larger_than_it_is_refused(tmp_path):
    content = saved_bytes({"a": torch.zeros(300)}, _use_new_zipfile_serialization=False)
    size, lie = b"M" + struct.pack("<H", 300), b"J" + struct.pack("<i", 2**30)
    refused(
        tmp_path / "a.pt", content.replace(size, lie), "larger than the file|beyond its storage"
    )


def test_things_that_are_no_state_dict_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_weights(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(CheckpointError, match="found a list"):
        read_weights(path)
    torch.save({"a": 1}, path)
    with pytest.raises(CheckpointError, match="entry 'a' is no tensor"):
        read_weights(path)


def test_a_wrapped_state_dict_is_unwrapped(weights, tmp_path):
    path = tmp_path / "w.pt"
    torch.save({f"module.{name}": value for name, value in weights.items()}, path)
    assert set(read_weights(path)) == set(weights)
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, tmp_path / "w.safetensors"
    )
    assert set(read_weights(tmp_path / "w.safetensors")) == set(weights)


def test_missing_extra_and_misshapen_tensors_are_all_listed(weights, tmp_path):
    del weights["ln_final.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: ln_final\.bias"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)
    weights["ln_final.bias"] = torch.zeros(63)
    with pytest.raises(CheckpointError, match=r"misshapen: .*is \(63,\), expected \(64,\)"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)
    weights["ln_final.bias"] = torch.zeros(64)
    weights["head.weight"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"1 extra: head\.weight"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)


def test_weights_that_are_not_finite_are_refused(weights, tmp_path):
    weights["ln_final.bias"][3] = torch.nan
    with pytest.raises(CheckpointError, match=r"not finite: ln_final\.bias"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)


def test_a_hole_in_the_blocks_is_a_missing_tensor(weights, tmp_path):
    gone = [name for name in weights if name.startswith("transformer.resblocks.0.")]
    for name in gone:
        del weights[name]
    with pytest.raises(CheckpointError, match=r"resblocks\.0"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)


def test_heads_are_never_guessed_for_unknown_sizes(weights, tmp_path):
    path = saved(weights, tmp_path)
    (tmp_path / "architecture.json").unlink()
    with pytest.raises(CheckpointError, match="do not say how many attention heads"):
        load_clip(path, tokenizer=WORDS)


def test_an_architecture_must_agree_with_the_weights(weights, tmp_path):
    shapes = tmp_path / "shapes.json"
    shapes.write_text(json.dumps(json.loads(SHAPES.read_text()) | {"vision_width": 256}))
    with pytest.raises(CheckpointError, match=r"vision_width is 256, but .* has 128"):
        read_architecture(weights, OFFICIAL, shapes)
    shapes.write_text(json.dumps({"heads": 2}))
    with pytest.raises(CheckpointError, match="unknown entry 'heads'"):
        read_architecture(weights, OFFICIAL, shapes)
    shapes.write_text(json.dumps(json.loads(SHAPES.read_text()) | {"vision_heads": 3}))
    with pytest.raises(CheckpointError, match="vision_heads is 3"):
        read_architecture(weights, OFFICIAL, shapes)
    shapes.write_text("[]")
    with pytest.raises(CheckpointError, match="found a list"):
        read_architecture(weights, OFFICIAL, shapes)


def test_openais_own_sizes_have_known_heads():
    sizes = {
        "visual.conv1.weight": (1024, 3, 14, 14),
        "visual.positional_embedding": (257, 1024),
        "visual.proj": (1024, 768),
        "token_embedding.weight": (49408, 768),
        "positional_embedding": (77, 768),
    }
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in sizes.items()}
        for tower, width, blocks in (("visual.", 1024, 24), ("", 768, 12)):
            for block in range(blocks):
                name = f"{tower}transformer.resblocks.{block}.mlp.c_fc.weight"
                weights[name] = torch.empty(4 * width, width)
    found = read_architecture(weights, Path("hpc.pt"))
    assert (found.vision_heads, found.transformer_heads, found.activation) == (16, 12, "quick_gelu")
    assert (found.image_resolution, found.vision_layers, found.vocab_size) == (224, 24, 49408)


def test_every_official_tensor_is_used_once(weights):
    renamed = from_openai(weights, OFFICIAL)
    joint = sum("in_proj" in name for name in weights)
    assert len(renamed) == len(weights) + 2 * joint
    assert sum(value.numel() for value in renamed.values()) == sum(
        value.numel() for value in weights.values()
    )
