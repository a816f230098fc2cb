"""What goes wrong with S3: what may pass, and the one line and the kind of error for what does not."""

from pfs_core.errors import (
    AccessDeniedError,
    ChangedError,
    InvalidError,
    NotFoundError,
    UnreachableError,
    UserError,
)

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
"""Codes of credentials that are refused with status 400, not 403."""


def transient(error: Exception) -> bool:
    """Whether the same request may succeed when it is made again."""
    from botocore import exceptions as of
    from urllib3.exceptions import HTTPError

    if isinstance(error, of.ClientError):
        status = _status(error)
        return status >= 500 or status in (408, 429) or _code(error) == "RequestTimeout"
    return isinstance(error, of.ConnectionError | of.HTTPClientError | of.IncompleteReadError | HTTPError | OSError)


def user_error(error: Exception, name: str, attempts: int) -> UserError | None:
    """The UserError that an error of a request means, or None for one that is not about S3.

    Args:
        error: what the last attempt raised.
        name: the address that the request was about.
        attempts: how often a request is made whose fault may pass.
    """
    from botocore import exceptions as of

    if transient(error):
        return UnreachableError(f"{name}: S3 failed {attempts} times: {_line(error)}")
    if isinstance(error, of.NoCredentialsError | of.PartialCredentialsError):
        advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        return AccessDeniedError(f"{name}: no S3 credentials; {advice}")
    if isinstance(error, of.CredentialRetrievalError | of.SSOError | of.TokenRetrievalError):
        return AccessDeniedError(f"{name}: no S3 credentials: {_line(error)}")
    if isinstance(error, of.ClientError):
        return _refusal(error, name)
    return InvalidError(f"{name}: {_line(error)}") if isinstance(error, of.BotoCoreError | ValueError) else None


def _refusal(error: Exception, name: str) -> UserError:
    """What it means that S3 has answered, and not with what was asked for."""
    status, code = _status(error), _code(error)
    if status == 412:
        return ChangedError(f"{name} has changed since it was listed; split the dataset again")
    if status == 404:
        return NotFoundError(f"{name}: there is no such bucket or object")
    if status in (401, 403) or code in _EXPIRED:
        return AccessDeniedError(f"{name}: S3 refused access ({code}); check the credentials and the bucket's policy")
    return InvalidError(f"{name}: {_line(error)}")


def _status(error: Exception) -> int:
    number: int = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return number


def _code(error: Exception) -> str:
    text: str = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    return text


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
