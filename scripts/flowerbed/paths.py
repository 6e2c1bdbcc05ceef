"""Where the repository's parts are."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ANSIBLE = REPOSITORY / "ansible"
PLATFORMS = REPOSITORY / "terraform" / "platforms"
INVENTORIES = REPOSITORY / "inventories"
