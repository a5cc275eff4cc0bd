"""Whether the Hugging Face hub answers: without this question its libraries retry each file for half a minute where there is no network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Expired
from functools import lru_cache

SECONDS = 6.0
"""For one request (our choice); a hub that needs longer is of no use for gigabytes."""


@lru_cache(maxsize=1)
def unreachable() -> str | None:
    """Why the hub cannot be reached, or None; where it cannot, its libraries use their caches without asking."""
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
