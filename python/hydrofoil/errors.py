"""Exceptions. Each is also of the type that DeepSpeed raises for the same mistake, so what catches the one catches the other."""

from __future__ import annotations

from hydrofoil._C import CommError, InvalidArgument

__all__ = ["CommError", "ConfigError", "InvalidAccess", "InvalidArgument", "InvalidType", "NotBuiltAttribute", "UnknownState", "ZeRORuntimeException"]


class InvalidType(InvalidArgument, TypeError):
    """A value of another type than a function takes."""


class ConfigError(InvalidType):
    """A ds_config that is wrong, or names what is not built: DeepSpeed's DeepSpeedConfigError, AssertionError, ValueError or TypeError."""


class InvalidAccess(InvalidArgument, RuntimeError):
    """A parameter that is read, written or registered as it cannot be."""


class UnknownState(InvalidArgument, KeyError):
    """An optimizer state of a name that the optimizer does not have."""

    __str__ = Exception.__str__  # KeyError's prints the text as Python source


class NotBuiltAttribute(AttributeError, NotImplementedError):
    """An attribute of a feature that is not built yet, or that has no meaning here; hasattr() finds none."""


class ZeRORuntimeException(InvalidArgument, RuntimeError):
    """DeepSpeed's error of changed world sizes and foreign optimizers under offload, which work here."""
