"""Names of encodings and of error handlers."""

import codecs


def undecodable(encoding: object, errors: object) -> str | None:
    """Why Python cannot decode this encoding with this error handler, and what to do; None if it
    can.
    """
    if not isinstance(encoding, str) or not isinstance(errors, str):
        return "the names of an encoding and of an error handler must be strings"
    try:
        b"a".decode(encoding, "replace")
        codecs.getincrementaldecoder(encoding)
        codecs.lookup_error(errors)
    except (LookupError, ValueError) as error:  # ValueError: a null character in the name
        return (
            f"{error}: choose an encoding such as 'utf-8', and errors such as 'strict' or 'replace'"
        )
    return None
