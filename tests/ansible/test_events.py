"""The callback by which `flowerbed` hears what a playbook does."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ansible.support import BIN, ROOT

# More than a pipe holds: whoever has nobody to take it from him waits for ever.
_PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Say much
      ansible.builtin.command: sh -c "touch {began}; sleep 1; yes | head -c 300000"
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=str)
def test_no_process_of_a_playbook_outlives_it(tmp_path: Path, number: signal.Signals) -> None:
    began = tmp_path / "began"
    (tmp_path / "play.yml").write_text(_PLAYBOOK.format(began=began))
    environment = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "flowerbed.federation.events",
    }
    command = [str(BIN / "ansible-playbook"), "--inventory", "localhost,", str(tmp_path / "play.yml")]
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(began.exists)
            workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        finally:
            process.send_signal(number)
    assert workers
    wait_for(lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in workers))


def wait_for(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
