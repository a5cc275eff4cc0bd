"""Whether a checkpoint on the Hugging Face hub can be had: from the local cache, or from a hub that answers.

Without this question the library retries each of a dozen files for half a minute on a machine without a network.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Expired
from functools import lru_cache

SECONDS = 6.0
"""For one request (our choice); a hub that needs longer is of no use for gigabytes of weights."""


@lru_cache(maxsize=1)
def unreachable() -> str | None:
    """Why the hub cannot be reached, or None; where it cannot, the library is told to use its cache without asking."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub")  # A resolver may hang beyond any timeout of a request.
    try:
        worker.submit(lambda: get_session().head(constants.ENDPOINT, timeout=SECONDS)).result(SECONDS + 1)
    except Exception as error:  # The HTTP client's own types, and a slow resolver's.
        constants.HF_HUB_OFFLINE = True
        return "no answer" if isinstance(error, Expired) else " ".join(str(error).split())[:100]
    finally:
        worker.shutdown(wait=False)
    return None


def cached(repository: str) -> bool:
    """Whether the configuration of a hub id lies in the local cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(repository, "config.json"), str)
    except HFValidationError:
        return False
