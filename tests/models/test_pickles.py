"""A pickle is read as data: what it names stays a name, and nothing that it asks for is done."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import CheckpointError
from palate.models import pickles
from palate.models.pickle_names import Name
from palate.models.pickles import Record, TensorPlan, read_pickle, shown

WHERE = Path("a.pth")
LINEAR = b"ctorch.nn.modules.linear\nLinear\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def read(pickled):
    return read_pickle(io.BytesIO(pickled), WHERE).content


def text(value):
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value):
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


def storage(key="0", kind="FloatStorage", count=6):
    name = f"ctorch\n{kind}\n".encode()
    return b"(" + text("storage") + name + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(offset, shape, strides, **stored):
    sides = b"".join(b"(" + b"".join(map(number, side)) + b"t" for side in (shape, strides))
    return REBUILD + b"(" + storage(**stored) + number(offset) + sides + b"\x89}tR"


class Calls:
    """An object that is pickled as a call."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def payloads(trace):
    return {
        rf"\({os.system.__module__}\.system\)": Calls(os.system, f"touch {trace}"),
        r"\(builtins\.eval\)": Calls(eval, f"open({str(trace)!r}, 'w')"),
        r"\((builtins\.getattr|pathlib\.Path\.touch)\)": Calls(Path.touch, trace),
        r"\(torch\.serialization\.load\)": Calls(torch.load, trace),
        r"\(torch\.nn\.init\.ones_\)": Calls(torch.nn.init.ones_),
    }


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("name", list(payloads("")))
def test_a_call_of_anything_else_is_refused_by_its_name_and_not_run(tmp_path, name, protocol):
    trace = tmp_path / "trace"
    payload = payloads(trace)[name]
    hidden = [[payload], {"state_dict": {"a": payload}}, Calls(set, [payload])]
    # the first protocol writes its containers as text, which is refused before what they hold
    for holder in [payload] + hidden * (protocol > 0):
        with pytest.raises(CheckpointError, match="would run code " + name):
            read(pickle.dumps(holder, protocol))
    assert not trace.exists()


def test_a_listed_class_does_not_shelter_a_call_in_its_arguments_or_attributes(tmp_path):
    trace = tmp_path / "trace"
    for payload in payloads(trace).values():
        module = torch.nn.Linear(1, 1)
        module.payload = payload
        for hidden in (Calls(torch.nn.Linear, payload), module):
            for protocol in (2, 4, 5):
                with pytest.raises(CheckpointError, match="would run code"):
                    read(pickle.dumps(hidden, protocol))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("torch", "nn.modules.linear.Linear"),
        ("torch.nn.modules.linear", "Linear.__init__"),
        ("torch.serialization", "os.system"),
        ("collections", "OrderedDict.__reduce__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("trainer.models.clip_model", "os.system"),
        ("módulo", "é" * 200),
        ("__torch__os", "system"),
        ("torch.jit._pickle", "build_intlist.__globals__"),
    ],
)
def test_names_with_dots_are_no_way_around_the_list(module, name):
    with pytest.raises(CheckpointError, match="would run code") as fault:
        read(b"\x80\x04" + text(module) + text(name) + b"\x93.")
    assert str(fault.value).isprintable()
    assert f"({shown(f'{module}.{name}')})" in str(fault.value)


def test_the_old_instruction_that_names_and_calls_at_once_is_refused_by_the_name():
    with pytest.raises(CheckpointError, match=r"would run code \(os\.system\)"):
        read(b"(" + text("true") + b"ios\nsystem\n.")


@pytest.mark.parametrize(
    "named",
    [
        text("") + text(""),
        text("torch\n") + text("Size"),
        text("torch") + text("Size\x1b[31m"),
        b"K\x01" + text("Size"),
        b"\x8c\x05torch]",
        b"N",
    ],
)
def test_what_cannot_be_a_name_is_a_broken_pickle(named):
    with pytest.raises(CheckpointError, match="a broken pickle") as fault:
        read(b"\x80\x04" + named + b"\x93.")
    assert str(fault.value).isprintable()


@pytest.mark.parametrize(
    "instruction", [b"\x82\x01", b"\x83\x01\x00", b"\x92", b"o", b"Pid\n", b"S'a'\n", b"\x97"]
)
def test_an_instruction_that_torch_does_not_write_is_refused(instruction):
    with pytest.raises(CheckpointError, match="a pickle with the instruction"):
        read(b"\x80\x02(" + LINEAR + b")" + instruction + b".")


def test_an_object_of_a_listed_class_is_a_record_with_the_class_as_two_words():
    for made in (b")R", b")\x81"):
        found = read(b"\x80\x02" + LINEAR + made + b"}" + text("a") + b"K\x01sb.")
        assert isinstance(found, Record)
        assert (found.of, found.state) == (Name("torch.nn.modules.linear", "Linear"), {"a": 1})


@pytest.mark.parametrize(
    "name", ["os.system", "set", "OrderedDict", "_rebuild_tensor_v2", "float16"]
)
def test_what_an_archive_calls_its_own_classes_is_a_record_whatever_the_name(name):
    named = b"\x80\x04" + text("__torch__.os") + text(name) + b"\x93"
    arguments = b"(" + text("true") + b"t"
    for made in (arguments + b"R", arguments + b"\x81"):
        found = read(named + made + b".")
        assert isinstance(found, Record)
        assert (found.of, found.state) == (Name("__torch__.os", name), {})


@pytest.mark.parametrize("name", ["__setstate__", "__class__", "__dict__", "__reduce__", "state"])
def test_attributes_of_any_name_are_mere_entries(name):
    state = b"}" + text(name) + LINEAR + b"s"
    found = read(b"\x80\x02" + LINEAR + b")\x81" + (state + b"b") * 2 + b".")
    assert type(found) is Record
    assert found.state == {name: Name("torch.nn.modules.linear", "Linear")}


@pytest.mark.parametrize(
    "change", [b"K\x01K\x02s", b"K\x01a", b"(K\x01e", b"(K\x01K\x02u", b"(N\x90"]
)
@pytest.mark.parametrize("target", [LINEAR, LINEAR + b")\x81", b")", b"N", tensor(0, [1], [1])])
def test_only_plain_containers_take_entries(target, change):
    with pytest.raises(CheckpointError, match="entries for a"):
        read(b"\x80\x02" + target + change + b".")


@pytest.mark.parametrize(
    "target", [LINEAR, b"]", b"ctorch\nfloat16\n", tensor(0, [1], [1]), REBUILD]
)
def test_only_records_take_attributes(target):
    with pytest.raises(CheckpointError, match="attributes for a"):
        read(b"\x80\x02" + target + b"}" + text("__code__") + b"Nsb.")


@pytest.mark.parametrize(
    "called", [b"ctorch\nFloatStorage\n", b"ctorch\nfloat16\n", b"]", LINEAR + b")\x81"]
)
@pytest.mark.parametrize("call", [b")R", b")\x81"])
def test_only_listed_classes_and_rebuilders_are_called(called, call):
    with pytest.raises(CheckpointError, match=r"a call of|an object of"):
        read(b"\x80\x02" + called + call + b".")


def test_plain_values_are_those_that_pickle_gives():
    plain = {"a": [1, -(2**30), 2.5, None, True, "é"], "b": ((), (1,), {"c"}), "d": {3: b"x"}}
    for protocol in (4, 5):
        assert read(pickle.dumps(plain, protocol)) == plain
    del plain["d"]
    for protocol in (2, 3):
        assert read(pickle.dumps(plain, protocol)) == plain


def test_what_python_2_wrote_is_read():
    ordered = b"ccollections\nOrderedDict\n](](U\x01aK\x01ee\x85R."
    assert read(b"\x80\x02" + ordered) == {"a": 1}
    assert read(b"\x80\x02c__builtin__\nset\n](U\x01ae\x85R.") == {"a"}
    with pytest.raises(CheckpointError, match="entries that are no pairs"):
        read(b"\x80\x02" + ordered.replace(b"K\x01", b""))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, [7], [1]),
        (1, [6], [1]),
        (0, [2, 3], [4, 1]),
        (-1, [2], [1]),
        (5, [2], [-1]),
        (0, [-2, -3], [3, 1]),
        (0, [100], [0]),
        (0, [2**40, 2**40], [0, 0]),
        (2**62, [2], [2**62]),
        (0, [0, 2**63], [1, 1]),
        (0, [2, 3], [1]),
        (0, [1] * 65, [1] * 65),
    ],
)
def test_a_tensor_must_lie_within_its_storage(offset, shape, strides):
    with pytest.raises(
        CheckpointError, match=r"a tensor (of shape .* beyond|that is not described)"
    ):
        read(b"\x80\x02" + tensor(offset, shape, strides) + b".")


@given(
    st.integers(0, 8),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=3),
)
def test_tensors_are_read_exactly_where_torch_would_show_them(offset, sides):
    shape, strides = [side[0] for side in sides], [side[1] for side in sides]
    values = torch.arange(6.0)
    try:
        found = read(b"\x80\x02" + tensor(offset, shape, strides) + b".")
    except CheckpointError:
        # torch allows values to be shown more often than they are stored
        seen = {offset}
        for size, stride in sides:
            seen = {at + step * stride for at in seen for step in range(size)}
        assert not seen or max(seen) >= 6 or torch.Size(shape).numel() > 6
    else:
        assert isinstance(found, TensorPlan)
        expected = values.as_strided(shape, strides, offset)
        assert torch.equal(found.view(values.view(torch.uint8)), expected)


@pytest.mark.parametrize(
    "described",
    [
        b"(" + text("storage") + LINEAR + text("0") + text("cpu") + b"K\x06tQ",
        storage(count=-1),
        storage(key="k" * 2000),
        b"(" + text("storage") + b"tQ",
        b"NQ",
    ],
)
def test_a_storage_is_described_as_torch_does(described):
    with pytest.raises(CheckpointError, match="a storage that is not described as torch"):
        read(b"\x80\x02" + described + b".")


@pytest.mark.parametrize("other", [storage(count=7), storage(kind="HalfStorage")])
def test_a_storage_has_one_size_and_type(other):
    assert read(b"\x80\x02" + storage() + storage() + b"\x86.")
    with pytest.raises(CheckpointError, match="two sizes for the storage '0'"):
        read(b"\x80\x02" + storage() + other + b"\x86.")


def test_what_a_file_says_is_shown_on_one_short_line():
    assert shown("a é ü") == "a é ü"
    assert shown("a\nb\x1b[31m") == r"a\nb\x1b[31m"
    assert len(shown("a" * 10_000)) == 121


@pytest.mark.parametrize(
    "key", [b"N", b")", b"G" + bytes(8), b"(K\x01t", number(2**61 - 1), text("k" * 2000)]
)
def test_keys_are_short_texts_and_small_numbers(key):
    with pytest.raises(CheckpointError, match="as a key"):
        read(b"\x80\x02}" + key + b"Ns.")
    with pytest.raises(CheckpointError, match="as a key"):
        read(b"\x80\x04\x8f(" + key + b"\x90.")


LARGE = b"}(" + b"".join(b"M" + at.to_bytes(2, "little") + b"N" for at in range(500)) + b"u"


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (b"\x8f" * 6000, "more than 5000 steps"),
        (b"X\xff\xff\xff\xff", "a broken pickle"),
        (b"\x95" + b"\xff" * 7 + b"\x7f", "a broken pickle"),
        (b"\x8d" + b"\xff" * 7 + b"\x7f", "a broken pickle"),
        (b"})" + b"\x85" * 4000 + b"Ns.", "a tuple as a key"),
        (b"})" + b"q\x00h\x00\x86" * 80 + b"Ns.", "a tuple as a key"),
        (LINEAR + b")\x81" + LARGE + b"q\x01b" + b"h\x01b" * 400 + b".", "more than 5000 steps"),
    ],
    ids=["steps", "text", "frame", "long-text", "deep-key", "wide-key", "attributes"],
)
def test_a_small_pickle_cannot_ask_for_much_time_or_memory(monkeypatch, bomb, reason):
    monkeypatch.setattr(pickles, "_MOST_STEPS", 5000)
    begin = time.process_time()
    with pytest.raises(CheckpointError, match=reason) as fault:
        read(b"\x80\x04" + bomb)
    assert "\n" not in str(fault.value)
    assert time.process_time() - begin < 5


def test_places_in_the_memory_may_have_any_number():
    # Python's own reader would reserve 32 GB for this one
    begin = time.process_time()
    assert read(b"\x80\x02K\x07r\xff\xff\xff\x7fj\xff\xff\xff\x7f.") == 7
    assert time.process_time() - begin < 1


@pytest.fixture(scope="module")
def pickled():
    """The pickle of a small module."""
    file = io.BytesIO()
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)), file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


def test_a_pickle_that_ends_early_is_refused_wherever_it_ends(pickled):
    for end in range(0, len(pickled), 7):
        with pytest.raises(CheckpointError, match="not a readable PyTorch checkpoint") as fault:
            read(pickled[:end])
        assert "\n" not in str(fault.value)


@given(st.data())
def test_a_changed_pickle_is_read_or_refused_in_a_sentence(pickled, data):
    changed = bytearray(pickled)
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(changed) - 1))
        end = data.draw(st.integers(begin, begin + 3))
        changed[begin:end] = data.draw(st.binary(max_size=4))
    # any other error, and so any warning, fails the test
    with contextlib.suppress(CheckpointError):
        read(bytes(changed))
