"""Bounds on the files of a checkpoint, checked before any library reads them: numbers, sizes, names of files, patterns.

A checkpoint directory may come from anybody. Weights are safetensors and no code of a checkpoint runs (`models.checkpoint`), but a few
bytes of JSON can ask for a thousand layers, for a picture of gigapixels, for a file outside the directory, or for a search without end.
Known checkpoints stay far inside each bound; a test reads every released configuration.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from re import _constants as opcodes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from percasym.config.escaping import short_name
from percasym.config.files import UnfitFileError, opened, parsed_json, read_json, read_text

LIMITS = {
    r"(num_hidden_layers|num_layers|n_layers?|depth)": 1_024,
    r"(num_.*heads|n_heads?)": 4_096,
    r"(num_.*experts.*|n_.*experts)": 4_096,
    r"(vocab_size|num_position_embeddings|max_position_embeddings|.*sequence_length|image_seq_length)": 2**24,
    r"(.*hidden_size|.*_dim|.*intermediate_size|hidden_dim|.*_width)": 2**20,
    r"temporal_patch_size": 8,
    r".*patch_size": 128,
    r".*merge_size": 16,
    r".*channels": 64,
    r"(image_size|height|width|crop_size)": 2**12,
    r"(min_pixels|shortest_edge)": 2**22,
    r"(max_pixels|longest_edge)": 2**28,
    r"(max_patches|min_patches|max_num|min_num)": 1_024,
    r"(r|rank|lora_alpha)": 2**16,
}
"""Name of a number, wherever it stands -> its largest value (our choice): several times that of the largest model anybody released."""
_LIMITS = [(re.compile(name), limit) for name, limit in LIMITS.items()]
MAX_NUMBER = 2**40
"""Of any other whole number."""
MAX_TEXT = 2**18
"""Characters of a text outside a vocabulary: the longest chat templates have 20,000."""
MAX_ITEMS = 2**14
"""Of a list outside a tokenizer."""
MAX_HEADER_BYTES = 2**26
"""Of the header of a file of weights: 100,000 tensors have 10 MB."""
FORBIDDEN = {
    "quantization_config": "percasym reads weights that are not quantized",
    "transformers_weights": "weights are *.safetensors under their usual names",
    "megatron_config": "peft imports a package for it",
    "layer_replication": "it multiplies the layers of the base",
}
"""Keys of a configuration that must be absent or null, and why."""
IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation.*")
"""Keys for which transformers downloads a kernel, code of a repository, when their text holds a slash."""
MAX_TEMPLATES = 32
"""Files in `additional_chat_templates`."""
IMAGE_PROCESSORS = (
    "Qwen2VLImageProcessor", "GotOcr2ImageProcessor", "Gemma3ImageProcessor", "Idefics3ImageProcessor", "SmolVLMImageProcessor",
    "LlavaOnevisionImageProcessor", "CLIPImageProcessor", "SiglipImageProcessor", "LlavaImageProcessor", "LlavaNextImageProcessor",
    "PixtralImageProcessor", "Idefics2ImageProcessor",
)  # fmt: skip
"""Of both families, and of those that model=auto usually reads; transformers saves them with Fast or Pil at the end, too."""
SMALL = (
    "config.json", "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json", "adapter_config.json",
    "model.safetensors.index.json",
)  # fmt: skip
"""Files of JSON that are read whole and checked."""
TEMPLATE = "chat_template.jinja"
TEMPLATES = "additional_chat_templates"
WEIGHTS = re.compile(r"[A-Za-z0-9][\w.-]*\.safetensors")
"""Name of a file of weights: no folder, no parent."""
STARTS = re.compile(r"gaussian|orthogonal|olora|pissa(_niter_\d{1,2})?")
"""How adapters may begin, where it is a text: peft computes it again when it reads them, others as often as the file says, or from data."""
MAX_HOPS = 8
"""Adapters on adapters (our choice)."""
MAX_LOOSE = 2
"""Repeats without an upper limit in one branch of a pattern; with n of them a search takes (length of the name) ** n steps."""


def check_checkpoint(folder: Path, *, weights: bool = True) -> None:
    """Check the files of a local checkpoint, whole or adapters; those of its tokenizer have `untrusted_tokenizer`.

    Without `weights`, they may still have to be downloaded. Raises ValueError with the file and what is wrong.
    """
    for file in folder.iterdir():  # Libraries open weights by their names, and a pipe would wait forever.
        if file.exists() and not file.is_file() and not file.is_dir():
            raise UnfitFileError(f"{file} is a pipe, a device or a socket, not a regular file.")
    for name in SMALL:
        if (file := folder / name).exists():
            values = read_json(file)
            if not isinstance(values, dict):
                raise UnfitFileError(f"{file} is no JSON object.")
            check_numbers(values, str(file))
            if name == "model.safetensors.index.json":
                _check_index(values, file, weights=weights)
            if name == "adapter_config.json":
                check_adapter(values, str(file))
            if name == "config.json":
                _check_heads(values, str(file))
            if name == "config.json" and weights:
                _check_weights(values, folder)
            if name == "adapter_config.json" and weights:
                _check_ranks(values, folder)
    more = sorted((folder / TEMPLATES).glob("*.jinja")) if (folder / TEMPLATES).is_dir() else []
    if len(more) > MAX_TEMPLATES:
        raise UnfitFileError(f"{folder / TEMPLATES} holds {len(more)} templates, and at most {MAX_TEMPLATES} are read.")
    for file in (folder / TEMPLATE, *more):
        if file.exists():
            read_text(file, max_bytes=MAX_TEXT)


def check_numbers(values: Any, where: str, name: str = "") -> None:
    """Raise ValueError for a number beyond its limit, a negative size, or a text that is too long."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key in FORBIDDEN and value is not None:
                raise UnfitFileError(f"{where} sets {key}, and {FORBIDDEN[key]}. Take it out.")
            if key == "return_dict" and value is not None and value is not True:
                raise UnfitFileError(f"{where} sets return_dict to {value!r:.80}, and outputs are read by their names. Take it out.")
            if IMPLEMENTATION.fullmatch(str(key)) and "/" in str(value):
                raise UnfitFileError(f"{where} sets {short_name(key)} to {value!r:.80}, code that would be downloaded. Take it out.")
            check_numbers(value, where, str(key))
    elif isinstance(values, list):
        if len(values) > MAX_ITEMS:
            raise UnfitFileError(f"{where} has {len(values):,} items under {short_name(name)}, and at most {MAX_ITEMS:,} are read.")
        for value in values:
            check_numbers(value, where, name)
    elif isinstance(values, str) and name in ("image_processor_type", "feature_extractor_type"):
        if values.removesuffix("Fast").removesuffix("Pil") not in IMAGE_PROCESSORS:
            raise UnfitFileError(f"{where} names the image processor {values!r:.80}, and {', '.join(IMAGE_PROCESSORS)} are read.")
    elif isinstance(values, str) and len(values) > MAX_TEXT:
        raise UnfitFileError(f"{where} has {len(values):,} characters under {short_name(name)}, and at most {MAX_TEXT:,} are read.")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        limit = next((limit for pattern, limit in _LIMITS if pattern.fullmatch(name)), None)
        least = int(name.endswith(("patch_size", "merge_size")))
        if limit is not None and not least <= values <= limit:
            raise UnfitFileError(f"{where} sets {short_name(name)} to {_shown(values)}, and {least} to {limit:,} are allowed.")
        if name != "model_max_length" and isinstance(values, int) and abs(values) > MAX_NUMBER:  # 10^30 there means none.
            raise UnfitFileError(f"{where} sets {short_name(name)} to {_shown(values)}, a number beyond reason.")


def check_adapter(values: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for patterns of modules that could search without end, and for adapters of another kind than LoRA."""
    if (kind := values.get("peft_type", "LORA")) != "LORA":
        raise UnfitFileError(f"{where} has adapters of type {kind!r:.80}, and LORA is read.")
    start = values.get("init_lora_weights")
    if not (start is None or isinstance(start, bool) or (isinstance(start, str) and STARTS.fullmatch(start))):
        raise UnfitFileError(f"{where} sets init_lora_weights to {start!r:.80}, and {STARTS.pattern} is read. Set it to true.")
    patterns = [
        values.get(name) for name in ("target_modules", "exclude_modules", "modules_to_save", "target_parameters", "layers_pattern")
    ]
    patterns += [list(values[name]) for name in ("rank_pattern", "alpha_pattern") if isinstance(values.get(name), Mapping)]
    for pattern in (one for given in patterns for one in (given if isinstance(given, list) else [given])):
        if isinstance(pattern, str):
            check_pattern(pattern, where)


def check_pattern(pattern: str, where: str) -> None:
    """Raise ValueError for a regular expression whose search could take more than a polynomial of degree MAX_LOOSE in a module's name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Of a set inside a set.
            parsed = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise UnfitFileError(f"{where} has a pattern of modules that is no regular expression ({error}): {pattern[:60]!r}.") from None
    if len(pattern) > 2**16 or _loose(parsed, inside=False) > MAX_LOOSE:
        raise UnfitFileError(f"{where} has a pattern of modules that repeats inside a repeat, or too often: {pattern[:60]!r}.")


def next_base(path: Path, base: str) -> Path | None:
    """The adapter directory on which the adapters in `path` were trained; None where `base` is a whole model or a hub id."""
    folder = Path(base).expanduser()
    return folder if (folder / "adapter_config.json").is_file() else None


def check_bases(path: Path) -> None:
    """Raise ValueError for adapters that were trained on themselves, or on a chain of more than MAX_HOPS adapters."""
    seen: list[Path] = []
    folder: Path | None = path
    while folder is not None:
        seen.append(folder.resolve())
        if len(set(seen)) < len(seen) or len(seen) > MAX_HOPS:
            raise UnfitFileError(f"The adapters in {path} name themselves as their base, or a chain of more than {MAX_HOPS}.")
        values = read_json(folder / "adapter_config.json")
        base = values.get("base_model_name_or_path") if isinstance(values, dict) else None
        folder = next_base(folder, base) if isinstance(base, str) and base.strip() else None


def _check_index(values: Mapping[str, Any], file: Path, *, weights: bool) -> None:
    named = values.get("weight_map")
    if not isinstance(named, Mapping):
        raise UnfitFileError(f"{file} has no weight_map.")
    for name in set(map(str, named.values())):
        if not WEIGHTS.fullmatch(name):
            raise UnfitFileError(f"{file} names the weights {name!r:.80}, and weights are *.safetensors beside it.")
        if weights and not (file.parent / name).is_file():
            raise UnfitFileError(f"{file.parent / name} is no regular file.")


def _check_heads(config: Mapping[str, Any], where: str) -> None:
    """Numbers with which a model is built and fails later: heads that do not divide the width, sections that are not those of a head."""
    vision, text = (config[name] if isinstance(config.get(name), Mapping) else {} for name in ("vision_config", "text_config"))
    heads, width = _number(vision, "num_heads", "num_attention_heads"), _number(vision, "embed_dim", "hidden_size")
    if heads and width % heads:
        raise UnfitFileError(f"{where} has {heads} heads for a width of {width} in vision_config, which they do not divide.")
    layer, layers = config.get("vision_feature_layer"), _number(vision, "num_hidden_layers", "depth")
    if isinstance(layer, int) and layers and not -layers - 1 <= layer <= layers:
        raise UnfitFileError(f"{where} takes features of vision layer {layer}, and there are {layers}.")
    rope = text.get("rope_parameters", text.get("rope_scaling"))
    sections = rope.get("mrope_section") if isinstance(rope, Mapping) else None
    half = _number(text, "head_dim") // 2
    fits = isinstance(sections, list) and len(sections) == 3 and (not half or sum(map(_whole, sections)) == half)
    if str(config.get("model_type")).startswith("qwen3_vl") and sections is not None and not fits:
        raise UnfitFileError(f"{where} has the rope sections {sections!r:.80}, and three that sum to {half or 'half a head'} are needed.")


def _check_weights(config: Mapping[str, Any], folder: Path) -> None:
    """A configuration cannot need more numbers than its files have bytes: otherwise the rest would be made up, gigabytes of it."""
    if (folder / "adapter_config.json").is_file():  # Its config.json is that of the base, whose weights lie elsewhere.
        return
    files = [file for file in folder.glob("*.safetensors") if file.is_file()]
    held = sum(file.stat().st_size for file in files)
    if files and (least := _least_parameters(config)) > held:
        raise UnfitFileError(f"{folder / 'config.json'} asks for {least:,} weights or more, and the files beside it cannot hold them.")


def _check_ranks(config: Mapping[str, Any], folder: Path) -> None:
    """Adapters are safetensors, and of no higher rank than their file holds, for those of each layer are built before it is read."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        if (pickled := folder / "adapter_model.bin").exists():  # Its tensors have no sizes before it is loaded.
            raise UnfitFileError(f"{pickled} is a pickle, and adapters are read from {file.name}. Save them as safetensors.")
        return
    held = max((size[0] for name, size in shapes(file).items() if re.search(r"lora_(embedding_)?A\b", name) and size), default=0)
    patterns = config.get("rank_pattern") or {}
    asked = [config.get("r", 8), *(patterns.values() if isinstance(patterns, Mapping) else ())]
    if wrong := [rank for rank in asked if not isinstance(rank, int) or not 0 < rank <= held]:
        raise UnfitFileError(f"{folder / 'adapter_config.json'} asks for adapters of rank {wrong[0]!r:.40}, and the file has {held:,}.")


def shapes(file: Path) -> dict[str, list[int]]:
    """Name and shape of each tensor in a file of safetensors, from its header. Raises UnfitFileError."""
    with opened(file, max_bytes=2**50) as weights:
        size = int.from_bytes(weights.read(8), "little")
        if size > MAX_HEADER_BYTES:
            raise UnfitFileError(f"{file} has a header of {_shown(size)} bytes, and at most {MAX_HEADER_BYTES:,} are read.")
        header = parsed_json(weights.read(size), str(file))
    tensors = {name: about.get("shape") for name, about in header.items() if isinstance(about, dict)} if isinstance(header, dict) else {}
    return {name: shape for name, shape in tensors.items() if isinstance(shape, list) and all(isinstance(side, int) for side in shape)}


def _least_parameters(config: Mapping[str, Any]) -> int:
    """A lower bound of the numbers of a model: those of its parts, and of what joins them."""
    text, vision = (config[name] if isinstance(config.get(name), Mapping) else {} for name in ("text_config", "vision_config"))
    least = sum(map(_least_of_part, (config, text, vision)))
    hidden, inner = _number(text, "hidden_size"), _number(vision, "hidden_size", "hidden_dim")
    if merge := _number(vision, "spatial_merge_size"):  # Qwen3-VL: a square matrix for each merger.
        deep = vision.get("deepstack_visual_indexes")
        least += (1 + (len(deep) if isinstance(deep, list) else 0)) * (inner * merge**2) ** 2
    ratio = config.get("downsample_ratio")
    if isinstance(ratio, int | float) and not isinstance(ratio, bool) and 0 < ratio < 1:  # InternVL: the projector.
        least += inner * int(min(1 / ratio, 1e9)) ** 2 * hidden
    return least


def _least_of_part(part: Mapping[str, Any]) -> int:
    """Of one network: embedding, positions, patches, and one matrix of each layer and expert."""
    layers, hidden = _number(part, "num_hidden_layers", "depth", "num_layers"), _number(part, "hidden_size", "hidden_dim")
    experts = _number(part, "num_experts")
    inner = experts * _number(part, "moe_intermediate_size") if experts else _number(part, "intermediate_size")
    heads = _number(part, "num_attention_heads", "num_heads") * _number(part, "head_dim")
    patch, side = _number(part, "patch_size"), _number(part, "image_size")
    patches = max(1, _number(part, "in_channels", "num_channels")) * max(1, _number(part, "temporal_patch_size")) * patch**2
    positions = _number(part, "num_position_embeddings") + ((side // patch) ** 2 if patch else 0)
    return hidden * (_number(part, "vocab_size") + positions + patches + layers * (inner + heads))


def _number(part: Mapping[str, Any], *names: str) -> int:
    """The first whole number under these names, or the first item of a list; 0 where there is none."""
    found = (value[0] if isinstance(value := part.get(name), list) and value else value for name in names)
    return next((_whole(value) for value in found if isinstance(value, int)), 0)


def _whole(value: object) -> int:
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0


def _loose(parsed: Any, *, inside: bool) -> float:
    """Repeats without an upper limit on one way through a parsed expression; infinity where one stands inside another."""
    total: float = 0
    for operation, given in parsed:
        if operation in (opcodes.MAX_REPEAT, opcodes.MIN_REPEAT, getattr(opcodes, "POSSESSIVE_REPEAT", None)):
            _, most, body = given
            loose = most is opcodes.MAXREPEAT or most > 64
            within = _loose(body, inside=inside or most > 1)
            if (loose and inside) or (within and most > 1):
                return float("inf")
            total += within + loose
        elif operation is opcodes.BRANCH:
            branches = [_loose(branch, inside=inside) for branch in given[1]]
            if inside and len(branches) > 1:  # (a|aa)* tries both at each place.
                return float("inf")
            total += max(branches, default=0)
        elif operation is opcodes.SUBPATTERN:
            total += _loose(given[-1], inside=inside)
        elif operation in (opcodes.ASSERT, opcodes.ASSERT_NOT):
            total += _loose(given[1], inside=inside)
        elif operation in (opcodes.GROUPREF, opcodes.GROUPREF_EXISTS):
            return float("inf")
    return total


def _shown(value: float) -> str:
    return f"{value:,}" if abs(value) < 10**18 else f"a number of {len(str(value))} digits" if abs(value) < 10**4000 else "a huge number"
