"""DeepSpeed's names over Hydrofoil. Which name is what stands in `_names.py`; nothing else is here."""

from deepspeed._modules import fill_package as _fill_package

_fill_package(globals())
