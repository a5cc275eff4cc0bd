"""percasym: why post-training a vision-language model teaches it to think more than to see, and what fixes it."""

__version__ = "0.1.0"
