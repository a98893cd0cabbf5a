"""Shared Lightning code: Ctrl-C, trainer options."""

from __future__ import annotations

import signal
import sys

import lightning as L
import pytest

from sccello_tools.errors import ConfigError
from sccello_tools.training.trainer import (
    as_callbacks,
    check_trainer_options,
    keyboard_interrupts,
)


def test_lightning_exit_after_ctrl_c_is_a_keyboard_interrupt():

    def as_lightning_does() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.exit(1)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), keyboard_interrupts():
        as_lightning_does()
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_exits_are_not_changed():
    with pytest.raises(SystemExit) as error, keyboard_interrupts():
        sys.exit(3)
    assert error.value.code == 3


def test_options_of_the_configuration_name_the_field():
    configured = {"max_epochs": "max_epochs", "precision": "half"}
    check_trainer_options({"logger": False}, configured, owner="Config")
    with pytest.raises(ConfigError, match=r"precision, which Config determines.*half"):
        check_trainer_options({"precision": "16", "logger": False}, configured, owner="Config")


def test_callbacks_as_a_list():
    callback = L.Callback()
    assert as_callbacks(None) == []
    assert as_callbacks(callback) == as_callbacks([callback]) == [callback]
