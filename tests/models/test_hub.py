"""Weights are found at a path, in the Hub's cache, or fetched with a word; no network is used."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from palate.errors import CheckpointError
from palate.models.hub import locate, locate_pipeline

OLD, NEW = "a" * 40, "b" * 40
FOLDER = {
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "vocab.json": b"{}",
    "model.safetensors": b"tensors",
}
PICKLE = {"HPS_v2.1_compressed.pt": b"pickle"}


class Hub:
    """The few endpoints of the Hub that are used, on this machine, and what was asked of them."""

    def __init__(self) -> None:
        self.commits = {OLD: {**FOLDER, **PICKLE, "README.md": b"read me"}}
        self.branches = {"main": OLD}
        self.repo = "fox/clip"
        self.faults: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Give status, headers and content for a path of a request."""
        path, *_ = path.split("?")
        self.asked.append(path)
        for part, (status, code) in self.faults.items():
            if part in path:
                return status, {"X-Error-Code": code, "X-Error-Message": code}, b""
        if path.startswith(f"/api/models/{self.repo}"):
            return self._api(path.removeprefix(f"/api/models/{self.repo}").strip("/").split("/"))
        if path.startswith(f"/{self.repo}/resolve/"):
            commit, name = path.removeprefix(f"/{self.repo}/resolve/").split("/", 1)
            content = self.commits[commit][name]
            etag = hashlib.sha256(content).hexdigest()
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, content
        return 401, {"X-Error-Code": "RepoNotFound"}, b""

    def _api(self, steps: list[str]) -> tuple[int, dict[str, str], bytes]:
        revision = steps[1] if len(steps) > 1 else "main"
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = self.commits[commit]
        found: object = {
            "id": self.repo,
            "sha": commit,
            "siblings": [{"rfilename": name, "size": len(text)} for name, text in files.items()],
        }
        if steps[0] == "tree":
            found = [
                {"type": "file", "path": name, "size": len(text), "oid": "0" * 40}
                for name, text in files.items()
            ]
        return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def hub(cache, monkeypatch) -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    go_online(monkeypatch, server.server_port)
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def go_online(monkeypatch, port: int) -> None:
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def fill(cache: Path, files: dict[str, bytes], commit: str = OLD, *, branch: str = "main") -> Path:
    """Lay files out as the Hub's libraries do."""
    storage = cache / "models--fox--clip"
    for name, content in files.items():
        blob = storage / "blobs" / hashlib.sha256(content).hexdigest()
        link = storage / "snapshots" / commit / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    (storage / "refs").mkdir(exist_ok=True)
    (storage / "refs" / branch).write_text(commit)
    return storage / "snapshots" / commit


@pytest.fixture
def said() -> list[str]:
    return []


def test_a_path_wins(cache, said):
    folder = Path("fox/clip")
    folder.mkdir(parents=True)
    (folder / "hpc.pt").write_bytes(b"x")
    file, here = locate("fox/clip/hpc.pt", say=said.append), locate(folder, say=said.append)
    assert (file.path, file.source, file.revision) == (folder / "hpc.pt", "hpc.pt", None)
    assert (here.path, here.source, here.revision) == (folder, "clip", None)
    assert locate(Path()).source == cache.parent.name
    assert said == []


@pytest.mark.parametrize(
    "weights",
    [
        "hpc.pt",
        "weights/hpc.pt",
        "weights/hpc.safetensors",
        "runs/hps/model",
        "/somewhere/else/hpc.pt",
        "./fox/clip",
        "../fox/clip",
        "fox/clip/",
        "fox/clip/../../secret.pt",
        "fox/clip/a//b.pt",
        "fox/cl..ip",
        "fox/cl--ip",
        "fox/clip.git",
        "fox/clip@",
        "fox/" + 96 * "c",
        "fox clip",
        "hf:clip",
        "https://huggingface.co/fox/clip",
    ],
)
def test_what_is_neither_path_nor_id_is_refused_without_asking(hub, weights):
    with pytest.raises(CheckpointError) as refused:
        locate(weights)
    assert str(refused.value) == f"{weights}: no such weights file or folder"
    assert hub.asked == []


def test_a_folder_of_ones_own_is_not_asked_for_unless_it_is_said(hub, said):
    Path("fox").mkdir()
    with pytest.raises(CheckpointError, match="write hf:fox/clip"):
        locate("fox/clip")
    assert hub.asked == []
    assert locate("hf:fox/clip", say=said.append).revision == OLD


@pytest.mark.parametrize("weights", ["fox/clip", "hf:fox/clip", "fox/clip@main", f"fox/clip@{OLD}"])
def test_offline_a_folder_comes_from_the_cache(cache, said, weights):
    folder = fill(cache, FOLDER)
    found = locate(weights, say=said.append)
    assert (found.path, found.source, found.revision) == (folder, f"fox/clip@{OLD}", OLD)
    assert said == []


@pytest.mark.parametrize("at", ["", "@main", f"@{OLD}"])
def test_offline_a_file_comes_from_the_cache(cache, said, at):
    folder = fill(cache, PICKLE)
    [name] = PICKLE
    found = locate(f"fox/clip{at}/{name}", say=said.append)
    assert (found.path, found.source) == (folder / name, f"fox/clip@{OLD}/{name}")
    assert found.path.read_bytes() == b"pickle"
    assert locate(found.source) == found
    assert said == []


@pytest.mark.parametrize(
    "weights", ["fox/clip", "fox/clip@v2", f"fox/clip@{NEW}", "fox/clip/other.pt", "owl/clip"]
)
def test_offline_what_is_not_in_the_cache_is_refused(cache, weights):
    fill(cache, PICKLE)  # a file, so no folder of weights
    with pytest.raises(CheckpointError, match="local cache of the Hub, and HF_HUB_OFFLINE is set"):
        locate(weights)


@pytest.mark.parametrize("name", ["", "/HPS_v2.1_compressed.pt", "/model.safetensors"])
def test_a_full_commit_in_the_cache_is_never_asked_for(cache, hub, said, name):
    fill(cache, {**FOLDER, **PICKLE})
    assert locate(f"fox/clip@{OLD}{name}", say=said.append).source == f"fox/clip@{OLD}{name}"
    assert (hub.asked, said) == ([], [])


def test_a_file_is_fetched_with_a_word_and_once(hub, cache, said):
    [name] = PICKLE
    found = locate(f"fox/clip/{name}", say=said.append)
    assert found.path.read_bytes() == b"pickle"
    assert (found.source, found.revision) == (f"fox/clip@{OLD}/{name}", OLD)
    assert said == [
        f"fetching {name} from {constants.ENDPOINT} (6 bytes), pinned as fox/clip@{OLD}/{name}"
    ]
    assert sum(path.startswith("/api/") for path in hub.asked) == 1
    hub.asked.clear()
    assert locate(found.source, say=said.append) == found
    assert (hub.asked, len(said)) == ([], 1)


def test_a_folder_is_fetched_without_pickles(hub, said, monkeypatch):
    found = locate("fox/clip", say=said.append)
    assert {path.name for path in found.path.iterdir()} == set(FOLDER)
    assert (found.source, found.revision) == (f"fox/clip@{OLD}", OLD)
    assert said == [
        f"fetching 4 files from {constants.ENDPOINT} (13 bytes), pinned as {found.source}"
    ]
    hub.asked.clear()
    assert locate(found.source, say=said.append) == found
    assert (hub.asked, len(said)) == ([], 1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("fox/clip", say=said.append) == found
    assert (hub.asked, len(said)) == ([], 1)


def test_a_branch_that_moved_is_followed_and_said(hub, said, monkeypatch):
    first = locate("fox/clip", say=said.append)
    assert locate("fox/clip", say=said.append) == first
    assert said[1:] == [f"fox/clip is in the local cache, pinned as fox/clip@{OLD}"]
    hub.commits[NEW] = {**FOLDER, "model.safetensors": b"newer"}
    hub.branches["main"] = NEW
    second = locate("fox/clip", say=said.append)
    assert second.revision == NEW
    assert (second.path / "model.safetensors").read_bytes() == b"newer"
    assert (first.path / "model.safetensors").read_bytes() == b"tensors"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("fox/clip") == second
    assert locate(first.source) == first


def test_what_another_program_left_half_is_completed(hub, cache, said):
    fill(cache, {"config.json": b"{}", "model.safetensors": b"tensors"})
    found = locate(f"fox/clip@{OLD}", say=said.append)
    assert {path.name for path in found.path.iterdir()} == set(FOLDER)
    assert [sentence.split(" from")[0] for sentence in said] == ["fetching 2 files"]


def test_an_interrupted_folder_is_completed(hub, said):
    found = locate("fox/clip", say=said.append)
    (found.path / "vocab.json").unlink()
    assert locate(found.source, say=said.append) == found
    assert (found.path / "vocab.json").is_file()


def test_the_cache_remembers_a_tag(hub, said, monkeypatch):
    hub.branches["v2"] = OLD
    found = locate("fox/clip@v2", say=said.append)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("fox/clip@v2") == found
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        locate("fox/clip")


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("owl/clip", "no model owl/clip on .* that is open to you; check the name"),
        ("fox/clip@v9", "fox/clip on .* has no revision 'v9'"),
        (f"fox/clip@{NEW}/hpc.pt", f"has no revision '{NEW}'"),
        ("fox/clip/HPS_v2.1.pt", "no file 'HPS_v2.1.pt'; did you mean 'HPS_v2.1_compressed.pt'"),
    ],
)
def test_what_the_hub_does_not_have_is_refused_in_a_sentence(hub, said, weights, sentence):
    with pytest.raises(CheckpointError, match=sentence) as refused:
        locate(weights, say=said.append)
    assert str(refused.value).startswith(f"{weights}: ")
    assert "\n" not in str(refused.value)
    assert said == []


def test_a_folder_of_pickles_is_not_fetched(hub, said):
    hub.commits[OLD] = {"config.json": b"{}", **PICKLE}
    with pytest.raises(CheckpointError, match="no safetensors files; to fetch one file, name it"):
        locate("fox/clip", say=said.append)
    assert said == []


def test_a_gated_repository_says_what_to_do(hub, said):
    hub.faults["/resolve/"] = (403, "GatedRepo")
    with pytest.raises(
        CheckpointError, match=r"fox/clip is gated; accept its terms at .*/fox/clip"
    ):
        locate("fox/clip/HPS_v2.1_compressed.pt", say=said.append)


def test_a_broken_hub_is_one_sentence(hub):
    hub.faults["/api/"] = (500, "")
    with pytest.raises(
        CheckpointError, match=r"could not be fetched from .*; give a path"
    ) as found:
        locate("fox/clip")
    assert "\n" not in str(found.value)


def test_no_network_is_one_sentence(cache, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        go_online(monkeypatch, closed.getsockname()[1])
        with pytest.raises(CheckpointError, match="could not be fetched from") as refused:
            locate("fox/clip")
    assert "\n" not in str(refused.value)


def test_it_is_said_on_stderr(hub, capsys):
    locate("fox/clip/model.safetensors")
    said = capsys.readouterr()
    assert said.out == ""
    assert "fetching model.safetensors from" in said.err


PARTS = {
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "safety_checker": [None, None],
}
INDEX = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", **PARTS}
PIECES = {
    "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
}
PIPELINE = {
    "model_index.json": json.dumps(INDEX).encode(),
    "scheduler/scheduler_config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors.index.json": json.dumps(PIECES).encode(),
    "text_encoder/model-00001-of-00002.safetensors": b"a",
    "text_encoder/model-00002-of-00002.safetensors": b"b",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/config.json": b"{}",
    "tokenizer/tokenizer_config.json": b"{}",
    "tokenizer/merges.txt": b"",
    "tokenizer/spiece.model": b"",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"whole",
}
# what repositories of generators have beside it
BESIDE = {
    "README.md": b"",
    "v1-5-pruned.safetensors": b"all in one",
    "v1-5-pruned.ckpt": b"pickle",
    "safety_checker/model.safetensors": b"not named in the index",
    "vae_1_0/diffusion_pytorch_model.safetensors": b"not named in the index",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"other",
    "unet/diffusion_pytorch_model.bin": b"pickle",
    "unet/model.onnx": b"",
    "unet/openvino/config.json": b"{}",
    "text_encoder/model.fp16-00001-of-00002.safetensors": b"half",
    "text_encoder/model.safetensors.index.fp16.json": b"{}",
    "text_encoder/pytorch_model.bin.index.json": b"{}",
}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_of_a_pipeline_only_the_files_of_its_components_are_fetched(hub, said, monkeypatch):
    hub.commits[OLD] = {**PIPELINE, **BESIDE}
    found = locate_pipeline("fox/clip@main", say=said.append)
    assert names(found.path) == set(PIPELINE)
    assert (found.source, found.revision) == (f"fox/clip@{OLD}", OLD)
    assert [sentence.split(" from ")[0].split(" of ")[0] for sentence in said] == [
        "fetching model_index.json",
        "fetching 12 files",
    ]
    hub.asked.clear()
    assert locate_pipeline(found.source, say=said.append) == found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate_pipeline("hf:fox/clip", say=said.append) == found
    assert (hub.asked, len(said)) == ([], 2)


@pytest.mark.parametrize(
    "lost",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
    ],
)
def test_a_pipeline_that_is_not_whole_in_the_cache_is_completed_or_refused(
    hub, cache, said, lost, monkeypatch
):
    hub.commits[OLD] = PIPELINE
    fill(cache, {name: content for name, content in PIPELINE.items() if name != lost})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="local cache of the Hub, and HF_HUB_OFFLINE is set"):
        locate_pipeline("fox/clip", say=said.append)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    found = locate_pipeline(f"fox/clip@{OLD}", say=said.append)
    assert names(found.path) == set(PIPELINE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate_pipeline("fox/clip").path == found.path


def test_a_repository_that_is_no_whole_pipeline_is_refused(hub, said):
    with pytest.raises(CheckpointError, match=r"has no model_index\.json, expected a pipeline"):
        locate_pipeline("fox/clip", say=said.append)
    assert said == []
    weights = "unet/diffusion_pytorch_model.safetensors"
    half = {n: text for n, text in {**PIPELINE, **BESIDE}.items() if n != weights}
    hub.commits[OLD] = {name: text for name, text in half.items() if "safetensors" not in name}
    with pytest.raises(CheckpointError, match="has no text_encoder with safetensors files"):
        locate_pipeline("fox/clip", say=said.append)
    hub.commits = {NEW: PIPELINE | {"model_index.json": b"[]"}}
    hub.branches = {"main": NEW}
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        locate_pipeline("fox/clip", say=said.append)


def test_a_pipelines_path_wins_and_what_is_neither_is_not_asked_for(hub, cache):
    folder = Path("fox/clip")
    folder.mkdir(parents=True)
    assert locate_pipeline(folder).path == folder
    for word in ("nowhere", "/nowhere/at/all", "./owl/clip", "owl/clip/model.safetensors"):
        with pytest.raises(CheckpointError, match="no such generator folder"):
            locate_pipeline(word)
    with pytest.raises(CheckpointError, match="if a Hub id is meant, write hf:fox/other"):
        locate_pipeline("fox/other")
    assert hub.asked == []
    with pytest.raises(CheckpointError, match="no model owl/clip on"):
        locate_pipeline("owl/clip")
