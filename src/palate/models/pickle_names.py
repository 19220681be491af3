"""The names that a pickle may use: those with a meaning for tensors, and those of inert records."""

from __future__ import annotations

from dataclasses import dataclass

import torch

REBUILDERS = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"})
WRAPPERS = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})
DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}

# Classes and functions whose objects are kept as records: those that the official MPS file names,
# the rest of a CLIP as transformers 4.27 pickles it, the common layers, what state dicts carry, and
# the lists of a TorchScript module.
_RECORDS = {
    "trainer.models.clip_model": "CLIPModel XCLIPModel",
    "trainer.models.cross_modeling": (
        "CrossAttention Cross_model LayerNorm ParallelTransformerBlock Residual RotaryEmbedding "
        "SwiGLU"
    ),
    "transformers.models.clip.modeling_clip": (
        "CLIPAttention CLIPEncoder CLIPEncoderLayer CLIPMLP CLIPModel CLIPTextEmbeddings "
        "CLIPTextModel CLIPTextModelWithProjection CLIPTextTransformer CLIPVisionEmbeddings "
        "CLIPVisionModel CLIPVisionModelWithProjection CLIPVisionTransformer"
    ),
    "transformers.models.clip.configuration_clip": "CLIPConfig CLIPTextConfig CLIPVisionConfig",
    "transformers.activations": "GELUActivation QuickGELUActivation",
    "torch.nn.modules.activation": (
        "GELU LeakyReLU MultiheadAttention ReLU SiLU Sigmoid Softmax Tanh"
    ),
    "torch.nn.modules.batchnorm": "BatchNorm1d BatchNorm2d",
    "torch.nn.modules.container": "ModuleDict ModuleList ParameterList Sequential",
    "torch.nn.modules.conv": "Conv1d Conv2d",
    "torch.nn.modules.dropout": "Dropout",
    "torch.nn.modules.flatten": "Flatten",
    "torch.nn.modules.linear": "Identity Linear NonDynamicallyQuantizableLinear",
    "torch.nn.modules.normalization": "GroupNorm LayerNorm",
    "torch.nn.modules.sparse": "Embedding",
    "torch.nn.parallel.data_parallel": "DataParallel",
    "torch.nn.functional": "gelu relu silu",
    "torch._C._nn": "gelu silu",
    "torch.jit._pickle": "build_boollist build_doublelist build_intlist build_tensorlist restore_type_tag",
    "torch": "Size device",
    "collections": "Counter",
    "builtins": "bytearray",
    "_codecs": "encode",
}
_INERT = frozenset((module, name) for module, names in _RECORDS.items() for name in names.split())
_ACTIVE = (
    {("collections", "OrderedDict"), ("builtins", "set"), ("torch.storage", "UntypedStorage")}
    | {("torch._utils", name) for name in REBUILDERS | WRAPPERS}
    | {("torch", name) for name in DTYPES}
    | {(module, name) for module in ("torch", "torch.cuda") for name in STORAGES}
)


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names: two words, behind which there is nothing."""

    module: str
    name: str

    @property
    def scripted(self) -> bool:
        """Whether a TorchScript archive gave this name to a class of its own, which nothing imports."""
        return self.module.partition(".")[0] == "__torch__"

    @property
    def inert(self) -> bool:
        """Whether a call of it amounts to a record without content."""
        return self.scripted or (self.module, self.name) in _INERT

    @property
    def known(self) -> bool:
        """Whether a pickle may name it at all."""
        return self.inert or (self.module, self.name) in _ACTIVE
