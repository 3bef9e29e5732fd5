"""An agent as `site-agent run` starts it, in a process of its own, that computes with a `ScriptedRoom`.

python -m tests.benchmarks.light_hospital FOLDER
"""

import sys

from site_agent.agent import Agent
from site_agent.entry import main as run
from tests.benchmarks.scripted_room import ScriptedRoom


def main() -> None:
    """Become a hospital's agent."""
    folder = sys.argv[1]
    use_scripted_rooms()
    sys.argv = ["site-agent", "run", "--home", folder]
    run()


def use_scripted_rooms() -> None:
    """Every agent of this process computes nothing, from now on."""
    defaults = Agent.__init__.__kwdefaults__
    assert defaults is not None
    assert "rooms" in defaults
    defaults["rooms"] = ScriptedRoom


if __name__ == "__main__":
    main()
