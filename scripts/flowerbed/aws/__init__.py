"""What only the account itself knows: the host keys of its instances, and what was changed beside Terraform."""

from flowerbed.aws.audit import Difference, audit
from flowerbed.aws.host_keys import learn

__all__ = ["Difference", "audit", "learn"]
