"""The account's API by boto3, with the operator's own credentials; its errors become ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed


def ec2(region: str) -> Any:
    """Return the EC2 API of a region.

    Raises:
        EnvironmentLacks: boto3 is not installed.
    """
    try:
        import boto3  # noqa: PLC0415 - only who has machines on AWS needs it
    except ImportError:
        raise EnvironmentLacks("boto3 is not installed: pip install 'flowerbed[aws]'") from None
    with telling(region):
        return boto3.Session().client("ec2", region_name=region)


@contextmanager
def telling(region: str) -> Iterator[None]:
    """Turn what boto3 raises into one line with the remedy.

    Raises:
        EnvironmentLacks: there are no credentials.
        UsageError: the account refuses them.
        WorkFailed: the account does not answer, or refuses the call.
    """
    from botocore import exceptions  # noqa: PLC0415 - comes with boto3

    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise EnvironmentLacks(
            "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    except exceptions.ProfileNotFound as error:
        raise UsageError(f"{error}: correct AWS_PROFILE") from None
    except exceptions.ClientError as error:
        said = error.response.get("Error", {})
        if said.get("Code") in ("AuthFailure", "UnauthorizedOperation", "InvalidClientTokenId", "ExpiredToken"):
            raise UsageError(f"AWS {region} refuses the credentials ({said['Code']}): renew or widen them") from None
        raise WorkFailed(f"AWS {region}: {said.get('Message') or error}") from None
    except exceptions.BotoCoreError as error:
        raise WorkFailed(f"AWS {region} does not answer: {error}") from None
