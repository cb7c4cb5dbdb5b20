# Read by pyright in place of transformers' own, which pulls in every model it has: a quarter of all checking.
from typing import Any

def __getattr__(name: str) -> Any: ...
