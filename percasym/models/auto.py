"""Any vision-language model of transformers with a chat template and a processor: `model=auto model.path=DIR`.

Unlike the named families, which expand placeholders on token ids and know every tensor, this one runs the checkpoint's own processor for
each row and reads the model's parts from the model. `percasym audit`, training, and evaluation with the model itself work; the quick
decoding step, `percasym plan` and vLLM need a named family.
"""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from percasym.config.escaping import shortened
from percasym.models import chat, checkpoint, hub, locate
from percasym.models.adapt import Adaptation, PartModules, adapt
from percasym.models.base import Batch, Row, joined_inputs
from percasym.models.limits import BYTES_A_CHARACTER, control_tokens
from percasym.models.locate import CheckpointError
from percasym.models.parts import parts_of
from percasym.models.processor import processor
from percasym.models.template import render
from percasym.spans.codec import Codec
from percasym.types import UNSUPERVISED, Prompt, Sample, SampleKey

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

TOKEN_INPUTS = ("token_type_ids", "mm_token_type_ids")
"""Inputs with one number for each token, by the names of transformers; 0 is text."""
ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")
"""Types of layers that a mask can describe; a recurrent one reads padding and forced tokens in another way."""
HEAD_TOLERANCE = 1e-3
"""Largest difference of a logit from that of a plain head, in nats, float32 on a CPU (our choice: rounding gives 1e-5)."""
ANSWER = "ANSWER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Auto(Adaptation):
    """Any `AutoModelForImageTextToText` with a decoder, a linear head, a chat template and a processor (`model=auto`)."""

    size: str = "tiny"
    """Not read, `path` says which checkpoint; every scale sets it for the named families."""
    path: str | None = None
    """A local Hugging Face directory or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; null is its main branch."""

    def __post_init__(self) -> None:
        Adaptation.__post_init__(self)
        locate.check_revision(self.size, self.path, self.revision)

    @property
    def checkpoint(self) -> str:
        """Directory, or hub id with its revision, that the model is loaded from. Raises CheckpointError where none is given."""
        if self.path is None or not self.path.strip():
            raise CheckpointError("model=auto needs model.path: a Hugging Face directory or a hub id of a vision-language model.")
        return hub.pinned(self.path, self.revision)

    @property
    def parts(self) -> PartModules:
        """The modules of each part, from the model on the meta device."""
        return _parts(self.checkpoint)

    def codec(self) -> Codec:
        """The grammar with the tokenizer of the checkpoint; a response ends with the token that ends a turn in its chat template."""
        return _codec(self.checkpoint)

    def load(self) -> PreTrainedModel:
        """The model in float32 on the CPU, with its adapters and frozen parts.

        Raises CheckpointError for a head that does more than a matrix product, whose token losses would be others.
        """
        _skeleton(self.checkpoint)  # Refuses what cannot be trained before gigabytes are read.
        model = checkpoint.model(self.checkpoint, self.attention)
        _check_head(model, self.checkpoint)
        return adapt(model, self, self.parts)

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """Write `model` with the tokenizer, image processor, processor settings and chat template of this checkpoint."""
        checkpoint.save(model, self.checkpoint, directory)
        processor(self.checkpoint).save_pretrained(directory)

    def image_settings(self) -> Mapping[str, int]:
        """The numbers of the image processor: sizes, tiles and patches, by the names of its own settings."""
        return dict(_numbers(checkpoint.image_processor(self.checkpoint).to_dict()))

    def limits(self) -> AutoLimits:
        """A check of collected rows against this checkpoint."""
        return _limits(self.checkpoint)

    def prompt(self, prompt: Prompt) -> Row:
        """The chat prompt up to the start of the response, as the checkpoint's own processor makes it; nothing in it is supervised."""
        path, pictures = self.checkpoint, {}
        if prompt.image is not None:
            pictures = {"images": [chat.decoded(prompt.image)]}
        text = _text(path, prompt.question, prompt.image is not None)
        try:
            found = dict(processor(path)(text=[text], **pictures, return_tensors="pt", **_special(path, text)))
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:
            reason = shortened(error)
            raise ValueError(f"the processor of {path} refuses the prompt ({reason}).") from error
        ids = found.pop("input_ids")[0].tolist()
        return Row(ids=ids, labels=(UNSUPERVISED,) * len(ids), inputs=_known(path, found, len(ids)))

    def row(self, sample: Sample) -> Row:
        """A prompt followed by its demonstration, with span labels."""
        return self.prompt(sample.prompt).followed_by(*self.codec().encode_demonstration(sample.demonstration))

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows as one right-padded batch; positions on several axes are those of the model's own `get_rope_index`."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        ids = [torch.tensor(row.ids) for row in rows]
        padded = pad_sequence(ids, batch_first=True, padding_value=self.codec().end)
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        named = [name for name in TOKEN_INPUTS if any(name in row.inputs for row in rows)]
        aligned = {name: torch.zeros_like(padded) for name in named}
        for place, row in enumerate(rows):
            for name in named:
                if name in row.inputs:
                    aligned[name][place, : len(row.inputs[name])] = row.inputs[name]
        pictures = [{name: value for name, value in row.inputs.items() if name not in TOKEN_INPUTS} for row in rows]
        inputs = joined_inputs([own for own in pictures if own])
        if (positions := _positions(self.checkpoint, padded, mask, inputs, aligned)) is not None:
            aligned["position_ids"] = positions
        labels = pad_sequence([torch.tensor(row.labels) for row in rows], batch_first=True, padding_value=UNSUPERVISED)
        return Batch(ids=padded, mask=mask, labels=labels, inputs=inputs, aligned=aligned)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoLimits:
    """What a checkpoint takes, found by its own processor; call it as a `percasym.tasks.base.RowCheck`."""

    path: str
    positions: int | None
    """Tokens of a prompt with its response; None if its configuration does not say."""
    control: re.Pattern[str]
    """Matches each control token."""

    def __call__(self, texts: Mapping[str, str], size: tuple[int, int]) -> None:
        """Raise ValueError with the reason when the model cannot take the row: its texts by name, and (width, height) of its picture."""
        for name, text in texts.items():
            if found := self.control.search(text):
                raise ValueError(f"its {name} holds {found[0]}, a control token of the model {self.path}. Remove or rewrite it.")
        try:
            num_prompt = _num_tokens(self.path, "", size)
        except CheckpointError:
            raise
        except ValueError as error:
            raise ValueError(f"its image has {size[0]} x {size[1]} pixels, and {error}") from error
        num_bytes = sum(len(text.encode()) for text in texts.values())
        if self.positions is None or num_prompt + BYTES_A_CHARACTER * num_bytes <= self.positions:
            return
        codec = _codec(self.path)
        response, _ = codec.encode_demonstration(codec.grammar.demonstrate(texts["perception"], texts["reasoning"], texts["answer"]))
        if (num_tokens := _num_tokens(self.path, texts["query"], size) + len(response)) > self.positions:
            raise ValueError(f"it has {num_tokens:,} tokens with its image, and the model has {self.positions:,} positions.")


@lru_cache(maxsize=4)
def _limits(path: str) -> AutoLimits:
    text = checkpoint.config(path).get_text_config()
    return AutoLimits(path=path, positions=getattr(text, "max_position_embeddings", None), control=control_tokens(path))


@lru_cache(maxsize=4096)
def _num_tokens(path: str, question: str, size: tuple[int, int]) -> int:
    """Tokens of a prompt with a blank picture of (width, height) pixels."""
    from PIL import Image

    blank = io.BytesIO()
    Image.new("RGB", size).save(blank, "BMP")
    key = SampleKey(task="", split="", seed=0, index=0)
    return len(Auto(path=path).prompt(Prompt(key=key, image=blank.getvalue(), question=question)).ids)


@lru_cache(maxsize=2)
def _skeleton(path: str) -> Any:
    """The modules of a checkpoint on the meta device, without weights.

    Raises CheckpointError for what is no decoder with attention layers and a head behind a trunk.
    """
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    config = checkpoint.config(path)
    kind = config.model_type
    if kind not in KNOWN:
        raise CheckpointError(f"{path} is of type {kind}, which is no vision-language model of transformers. Check model.path.")
    text = config.get_text_config()
    other = sorted(set(getattr(text, "layer_types", None) or ()) - set(ATTENTION))
    if config.is_encoder_decoder or other:
        what = f"has layers of type {other[0]}" if other else "has an encoder and a decoder"
        raise CheckpointError(f"{path} {what}, and model=auto trains decoders with attention layers. Choose another model.")
    with torch.device("meta"):
        made = AutoModelForImageTextToText.from_config(config)
    if not (isinstance(getattr(made, "model", None), torch.nn.Module) and isinstance(getattr(made, "lm_head", None), torch.nn.Module)):
        raise CheckpointError(f"{type(made).__name__} has no trunk `model` with a head `lm_head`, so model=auto cannot train it.")
    return made


@lru_cache(maxsize=4)
def _parts(path: str) -> PartModules:
    return parts_of(_skeleton(path))


@lru_cache(maxsize=4)
def _codec(path: str) -> Codec:
    """The codec, with the token that follows a response in the chat template."""
    chat.check_vocabulary(path)
    tokenizer = checkpoint.tokenizer(path)
    said = [{"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}]
    rest = _rendered(path, _question("?", False) + said, add_generation_prompt=False).rpartition(ANSWER)[2].lstrip()
    following = tokenizer.encode(rest, add_special_tokens=False)
    special = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special} | set(tokenizer.all_special_ids)
    ends = following[0] if following and following[0] in special else tokenizer.eos_token_id
    if ends is None:
        raise CheckpointError(f"Neither the chat template nor the tokenizer of {path} has a token that ends a response. Check model.path.")
    return Codec(tokenizer=tokenizer, turn_end=ends)


@lru_cache(maxsize=1024)
def _text(path: str, question: str, has_image: bool) -> str:
    """The chat prompt up to the start of the response, with the template's placeholder of a picture; thinking is off where it can be."""
    text = _rendered(path, _question(question, has_image), add_generation_prompt=True)
    if text.rstrip().endswith(chat.OPEN_THOUGHT):
        raise CheckpointError(
            f"The chat template of {path} ends every prompt inside {chat.OPEN_THOUGHT}, so a response would be part of a thought. "
            "Use a checkpoint without thinking, or close the thought in its chat template."
        )
    return text


def _question(question: str, has_image: bool) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}] * has_image + [{"type": "text", "text": question}]}]


def _rendered(path: str, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
    tokenizer = checkpoint.tokenizer(path)
    template = processor(path).chat_template or tokenizer.chat_template
    if not isinstance(template, str):
        raise CheckpointError(f"{path} has no chat template (or several), and model=auto needs one: chat_template.jinja.")
    options = {**tokenizer.special_tokens_map, "add_generation_prompt": add_generation_prompt, "enable_thinking": False}
    try:
        return render(template, messages, **options)
    except ValueError as error:  # TemplateError
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from error


def _special(path: str, text: str) -> dict[str, bool]:
    """Whether the tokenizer adds its own tokens: not where the template wrote them, as in transformers' `apply_chat_template`."""
    begin = checkpoint.tokenizer(path).bos_token
    return {"add_special_tokens": False} if begin is None or text.startswith(begin) else {}


def _known(path: str, found: Mapping[str, Any], num_tokens: int) -> dict[str, Tensor]:
    """What a processor returned, beside the ids, that the model reads. Raises CheckpointError for inputs of another kind."""
    import torch

    read = inspect.signature(type(_skeleton(path).model).forward).parameters
    kept = dict[str, Any]()
    for name, value in found.items():
        if name == "attention_mask" or (name not in read and name not in TOKEN_INPUTS):
            continue
        per_token = isinstance(value, torch.Tensor) and value.ndim > 1 and value.shape[:2] == (1, num_tokens)
        if not isinstance(value, torch.Tensor) or (per_token and name not in TOKEN_INPUTS):
            raise CheckpointError(f"The processor of {path} returns {name} in a form that model=auto does not know.")
        kept[name] = value[0] if name in TOKEN_INPUTS else value
    return kept


def _positions(path: str, ids: Tensor, mask: Tensor, inputs: Mapping[str, Tensor], aligned: Mapping[str, Tensor]) -> Tensor | None:
    """[A, B, T] positions of a model with several rotary axes; None for a model that counts tokens."""
    import torch

    index = getattr(_skeleton(path).model, "get_rope_index", None)
    if index is None:
        return None
    if "image_grid_thw" not in inputs:
        return torch.arange(ids.shape[1]).expand(3, len(ids), -1).clone()
    accepted = inspect.signature(index).parameters
    known = {"attention_mask": mask, **inputs, **aligned}
    positions, _ = index(ids, **{name: value for name, value in known.items() if name in accepted})
    return positions


def _check_head(model: PreTrainedModel, path: str) -> None:
    """Compare the logits of a short text with those of a plain head; a soft cap or a scale is found here."""
    import torch

    ids = torch.tensor([checkpoint.tokenizer(path).encode("So 1 is 1.", add_special_tokens=False)])
    whole: Any = model.eval()
    with torch.no_grad():
        plain = whole.lm_head(whole.model(input_ids=ids, use_cache=False).last_hidden_state)
        gap = float((whole(input_ids=ids, use_cache=False).logits - plain).abs().max())
    if not gap <= HEAD_TOLERANCE:
        raise CheckpointError(
            f"The logits of {path} differ by {gap:.2g} from those of a plain head: it scales or caps them, so the loss of a token would "
            "be another. model=auto cannot train it."
        )


def _numbers(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, int]]:
    """The whole numbers of nested settings, with dotted names.

    >>> _numbers({"size": {"height": 32}, "do_resize": True, "patch_size": 8})
    [('size.height', 32), ('patch_size', 8)]
    """
    found = list[tuple[str, int]]()
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            found.append((f"{prefix}{name}", value))
    return found
