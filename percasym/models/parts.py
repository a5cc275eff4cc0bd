"""The three parts of any vision-language model of transformers, read from the model itself.

Families that percasym knows name their modules (`Family.parts`); this finds them by transformers' own accessors: `get_decoder`,
`get_output_embeddings` and `get_encoder(modality="image")`.
"""

from __future__ import annotations

from typing import Any

from percasym.models.adapt import PartModules

MERGER = "merger"
"""In the name of a child of the vision tower that is a projector (Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-4V)."""


def parts_of(model: Any) -> PartModules:
    """Dotted names of the modules of each part, longest prefix first decides (`percasym.models.adapt.part_of`).

    language: decoder, embeddings and head. vision: the image tower. projector: mergers inside the tower, and every parameter outside
    both. A text model has no vision and no projector. Names are those of `model.named_parameters()`, also under adapters of peft.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model
    names = {id(module): name for name, module in model.named_modules()}
    tower = base.get_encoder(modality="image")
    found = (base.get_decoder(), base.get_input_embeddings(), base.get_output_embeddings())
    language = tuple(dict.fromkeys(names[id(module)] for module in found if module is not None and id(module) in names))
    if tower is base or id(tower) not in names:
        return {"language": (*language, *_outside(model, language)), "projector": (), "vision": ()}
    vision = (names[id(tower)],)
    mergers = tuple(f"{vision[0]}.{name}" for name, _ in tower.named_children() if MERGER in name)
    return {"language": language, "projector": (*mergers, *_outside(model, (*language, *vision))), "vision": vision}


def _outside(model: Any, prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Modules of the parameters that lie in none of `prefixes`, and such parameters that belong to a module above one of them."""
    found = dict[str, None]()
    for name, _ in model.named_parameters():
        if not any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes):
            module = name.rpartition(".")[0]
            found[name if any(prefix.startswith(f"{module}.") for prefix in prefixes) or not module else module] = None
    return tuple(found)
