"""What is logged reaches a user who has set up no logging, and one who has, once."""

import subprocess
import sys

import pytest

from tests.test_public_api import WITHOUT_RAY

LOG = "from rllib_attention.log import get_logger\nlog = get_logger('rllib_attention.a.b')\n"


def stderr_of(script: str) -> str:
    command = [sys.executable, "-c", WITHOUT_RAY + "import logging\n" + script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_information_is_seen_by_default():
    seen = stderr_of(LOG + "log.info('built %s', 3)\nlog.debug('detail')\n")
    assert seen.count("built 3") == 1
    assert "INFO" in seen
    assert "detail" not in seen


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_the_users_own_logging_gets_it_once(level):
    own = f"logging.basicConfig(format='own %(message)s', level='{level}')\n"
    assert stderr_of(own + LOG + "log.info('built')\n") == "own built\n"
    assert stderr_of(LOG + own + "log.info('built')\n") == "own built\n"


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_user_may_silence_it(order):
    silence = "logging.getLogger('rllib_attention').setLevel('WARNING')\n"
    setup = silence + LOG if order == "before" else LOG + silence
    seen = stderr_of(setup + "log.info('built')\nlog.warning('beware')\n")
    assert "built" not in seen
    assert "beware" in seen


def test_one_handler_for_all_loggers():
    assert stderr_of(LOG + "get_logger('rllib_attention.c').info('built')\n").count("built") == 1
