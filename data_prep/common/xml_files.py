"""XML that comes from elsewhere and is not trusted; needs no TensorFlow."""

import re
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser

from data_prep.common.raw_files import MAX_TEXT_BYTES, FileFault, check_size

_DECLARES_UTF_16 = re.compile(rb"<\?xml[^>]{0,100}\sencoding\s*=\s*.utf-16", re.IGNORECASE)


def parse_xml(data: bytes, target: Any) -> Any:
    """Parses a document.

    Args:
        data: its bytes.
        target: of `xml.etree.ElementTree.XMLParser`; may raise `FileFault`.

    Returns:
        What `target.close` returns.

    Raises:
        FileFault: it is too large or malformed, or declares a document type (and with it any
            entity, external file or expansion bomb), or `target` raises one.
    """
    check_size(len(data), MAX_TEXT_BYTES)
    # Each of the three is refused: a document type is all that expansion attacks need.
    parser = XMLParser(
        target=target,
        encoding=_encoding(data),
        forbid_dtd=True,
        forbid_entities=True,
        forbid_external=True,
    )
    try:
        parser.feed(data)
        return parser.close()
    except FileFault:
        raise
    except DefusedXmlException as error:
        raise FileFault("declares a document type or entities, which is refused") from error
    except (ParseError, ValueError, LookupError) as error:  # or an encoding unknown to expat
        raise FileFault(f"malformed XML: {str(error)[:100]}") from error


def _encoding(data: bytes) -> str | None:
    """What the first bytes prove, though programs declare another; None: what they declare."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<"):
        return "utf-16"
    return "utf-8" if data[:3] == b"\xef\xbb\xbf" or _DECLARES_UTF_16.match(data) else None
