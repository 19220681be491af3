"""Keep known, harmless messages of the diffusion libraries off the user's screen; errors stay."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_KNOWN = {
    # Palate prepares images itself, so the missing torchvision changes nothing.
    "transformers.utils.import_utils": "requires torchvision (not installed)",
    # Palate counts cut prompts and reports the number once.
    "transformers.tokenization_utils_base": "sequence length is longer than",
    # An adapter of one part alone; Palate counts the tensors that found a place.
    "diffusers.loaders.lora_base": "No LoRA keys associated to",
    # A component that a pipeline is without; the folder says so.
    "diffusers.pipelines.pipeline_utils": "of type <class 'NoneType'> cannot be saved",
    "diffusers.loaders.peft": "No LoRA keys associated to",
}
# Palate counts cut prompts; each class of pipeline says it under its own name, all through one handler.
_CUT = "The following part of your input was truncated"


class _Known(logging.Filter):
    """Drop the records that contain one known text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        return self.text not in record.getMessage()


def quiet_messages() -> None:
    """Silence the messages named in this module, each by its logger and its text."""
    for name, text in _KNOWN.items():
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Known) for known in logger.filters):
            logger.addFilter(_Known(text))
    for handler in logging.getLogger("diffusers").handlers:
        if not any(isinstance(known, _Known) for known in handler.filters):
            handler.addFilter(_Known(_CUT))


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Hide the libraries' own progress bars inside the block: Palate shows one of its own."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    quiet_messages()

    shown = [
        module for module in (of_diffusers, of_transformers) if module.is_progress_bar_enabled()
    ]
    for module in shown:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in shown:
            module.enable_progress_bar()
