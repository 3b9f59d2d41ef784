"""Text as it is, where the package that writes letters without their accents is not installed."""


def unidecode(text: str, *args: object, **kwargs: object) -> str:
    """The text."""
    return text


unidecode_expect_ascii = unidecode_expect_nonascii = unidecode
