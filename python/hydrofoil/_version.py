"""The check that stands before the first symbol of the extension is loaded."""

from pathlib import Path

__all__ = ["built_for_torch", "check_torch"]


def built_for_torch() -> str:
    """Minor version of torch ("2.13") that this package was built with."""
    return (Path(__file__).parent / "torch_minor_version.txt").read_text().strip()


def check_torch(installed: str) -> None:
    """Raises ImportError where the installed torch is not the one of the build: libtorch has no stable C++ ABI."""
    built = built_for_torch()
    minor = ".".join(installed.split("+")[0].split(".")[:2])
    if minor != built:
        raise ImportError(
            f"hydrofoil was built for torch {built}, but torch {installed} is installed. libtorch's C++ interface changes "
            f"between minor versions. Either install torch {built}.* (pip install 'torch=={built}.*'), or build hydrofoil "
            "again for the installed one (pip install --no-build-isolation --force-reinstall --no-deps . in its source)."
        )
