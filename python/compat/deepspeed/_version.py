"""Versions under DeepSpeed's names."""

from importlib.metadata import version as _of

__version__ = version = _of("deepspeed")
__version_major__, __version_minor__, __version_patch__ = (int(part) for part in version.partition("+")[0].split("."))
__git_hash__ = git_hash = "[none]"
__git_branch__ = git_branch = "[none]"
HAS_TRITON = False
ADAM_OPTIMIZER, LAMB_OPTIMIZER, MUON_OPTIMIZER = "adam", "lamb", "muon"
TORCH_DISTRIBUTED_DEFAULT_PORT = 29500
DEEPSPEED_ENVIRONMENT_NAME = ".deepspeed_env"
