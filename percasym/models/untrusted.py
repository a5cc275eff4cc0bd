"""Bounds on the files of a checkpoint, checked before any library reads them: numbers, sizes, names of files, patterns.

A checkpoint directory may come from anybody. Weights are safetensors and no code of a checkpoint runs (`models.checkpoint`), but a few
bytes of JSON can ask for a thousand layers, for a picture of gigapixels, for a file outside the directory, or for a search without end.
Known checkpoints stay far inside each bound; a test reads every released configuration.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from re import _constants as opcodes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from percasym.config.files import UnfitFileError, read_json

LIMITS = {
    r"(num_hidden_layers|num_layers|n_layers?|depth)": 1_024,
    r"(num_.*heads|n_heads?)": 4_096,
    r"(num_.*experts.*|n_.*experts)": 4_096,
    r"(vocab_size|num_position_embeddings|max_position_embeddings|.*sequence_length|image_seq_length)": 2**24,
    r"(.*hidden_size|.*_dim|.*intermediate_size|hidden_dim|.*_width)": 2**20,
    r"(.*patch_size|.*merge_size)": 1_024,
    r"(image_size|height|width|crop_size)": 2**14,
    r"(min_pixels|shortest_edge)": 2**24,
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
MAX_TOKENIZER_BYTES = 2**27
"""Of tokenizer.json and vocab.json: those of 250,000 tokens have 35 MB."""
SMALL = (
    "config.json", "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json", "adapter_config.json",
    "model.safetensors.index.json",
)  # fmt: skip
"""Files of JSON that are read whole and checked."""
LARGE = ("tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja")
WEIGHTS = re.compile(r"[A-Za-z0-9][\w.-]*\.safetensors")
"""Name of a file of weights: no folder, no parent."""
MAX_HOPS = 8
"""Adapters on adapters (our choice)."""
MAX_LOOSE = 2
"""Repeats without an upper limit in one branch of a pattern; with n of them a search takes (length of the name) ** n steps."""


def check_checkpoint(folder: Path) -> None:
    """Check the files of a local checkpoint, whole or adapters. Raises ValueError with the file and what is wrong."""
    for name in SMALL:
        if (file := folder / name).exists():
            values = read_json(file)
            if not isinstance(values, dict):
                raise UnfitFileError(f"{file} is no JSON object.")
            check_numbers(values, str(file))
            if name == "model.safetensors.index.json":
                _check_index(values, file)
            if name == "adapter_config.json":
                check_adapter(values, str(file))
            if name == "config.json":
                _check_weights(values, folder)
    for name in LARGE:
        if (file := folder / name).exists():
            _check_size(file)


def check_numbers(values: Any, where: str, name: str = "") -> None:
    """Raise ValueError for a number beyond its limit, a negative size, or a text that is too long."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            check_numbers(value, where, str(key))
    elif isinstance(values, list):
        for value in values:
            check_numbers(value, where, name)
    elif isinstance(values, str) and len(values) > MAX_TEXT:
        raise UnfitFileError(f"{where} has {len(values):,} characters under {name}, and at most {MAX_TEXT:,} are read.")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        limit = next((limit for pattern, limit in _LIMITS if pattern.fullmatch(name)), None)
        if limit is not None and not 0 <= values <= limit:
            raise UnfitFileError(f"{where} sets {name} to {_shown(values)}, and 0 to {limit:,} are allowed.")
        if name != "model_max_length" and isinstance(values, int) and abs(values) > MAX_NUMBER:  # 10^30 there means none.
            raise UnfitFileError(f"{where} sets {name} to {_shown(values)}, a number beyond reason.")


def check_adapter(values: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for patterns of modules that could search without end, and for a package that peft would import."""
    if values.get("megatron_config") is not None:
        raise UnfitFileError(f"{where} sets megatron_config, for which peft imports a package. Take it out.")
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


def _check_index(values: Mapping[str, Any], file: Path) -> None:
    named = values.get("weight_map")
    if not isinstance(named, Mapping):
        raise UnfitFileError(f"{file} has no weight_map.")
    for name in set(map(str, named.values())):
        if not WEIGHTS.fullmatch(name):
            raise UnfitFileError(f"{file} names the weights {name!r:.80}, and weights are *.safetensors beside it.")
        _check_size(file.parent / name, max_bytes=2**50)


def _check_weights(config: Mapping[str, Any], folder: Path) -> None:
    """A configuration cannot need more numbers than its files have bits: otherwise the rest would be made up, gigabytes of it."""
    if (folder / "adapter_config.json").is_file():  # Its config.json is that of the base, whose weights lie elsewhere.
        return
    files = [file for file in folder.glob("*.safetensors") if file.is_file()]
    held = 8 * sum(file.stat().st_size for file in files)
    if files and (least := sum(_least_parameters(part) for part in _parts(config))) > held:
        raise UnfitFileError(f"{folder / 'config.json'} asks for {least:,} weights or more, and the files beside it cannot hold them.")


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield config
    yield from (config[name] for name in ("text_config", "vision_config") if isinstance(config.get(name), Mapping))


def _least_parameters(part: Mapping[str, Any]) -> int:
    """A lower bound of the numbers of one network: embedding, positions, and one matrix of each layer and expert."""

    def number(*names: str) -> int:
        return next((part[name] for name in names if isinstance(part.get(name), int) and not isinstance(part[name], bool)), 0)

    layers, hidden = number("num_hidden_layers", "depth", "num_layers"), number("hidden_size", "hidden_dim")
    inner = number("intermediate_size") if not number("num_experts") else number("num_experts") * number("moe_intermediate_size")
    heads = number("num_attention_heads", "num_heads") * number("head_dim")
    return hidden * (number("vocab_size") + number("num_position_embeddings") + layers * (inner + heads))


def _check_size(file: Path, max_bytes: int = MAX_TOKENIZER_BYTES) -> None:
    if not file.is_file():
        raise UnfitFileError(f"{file} is no regular file.")
    if (size := file.stat().st_size) > max_bytes:
        raise UnfitFileError(f"{file} has {size:,} bytes, and at most {max_bytes:,} are read.")


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
