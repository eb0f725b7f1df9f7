"""XML that comes from elsewhere and is not trusted; needs no TensorFlow."""

import re
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser

from data_prep.common.raw_files import MAX_TEXT_BYTES, FileFault, check_size

_MAX_TAGS = 2**21
_MAX_DEPTH = 100  # of elements
_DECLARES_UTF_16 = re.compile(rb"<\?xml[^>]{0,100}\sencoding\s*=\s*.utf-16", re.IGNORECASE)


def parse_xml(data: bytes) -> Element:
    """Parses a document to its root.

    Raises:
        FileFault: it is too large or malformed, or declares a document type (and with it any
            entity, external file or expansion bomb).
    """
    check_size(len(data), MAX_TEXT_BYTES)
    # A byte of each tag in every encoding that expat reads.
    if data.count(b"<") > _MAX_TAGS:
        raise FileFault(f"has more than {_MAX_TAGS} tags")
    # Each of the three is refused: a document type is all that expansion attacks need.
    parser = XMLParser(
        target=TreeBuilder(),
        encoding=_encoding(data),
        forbid_dtd=True,
        forbid_entities=True,
        forbid_external=True,
    )
    try:
        parser.feed(data)
        root = parser.close()
    except DefusedXmlException as error:
        raise FileFault("declares a document type or entities, which is refused") from error
    except (ParseError, ValueError, LookupError) as error:  # or an encoding unknown to expat
        raise FileFault(f"malformed XML: {str(error)[:100]}") from error
    level = [root]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in node]
    if level:
        raise FileFault(f"has elements in {_MAX_DEPTH} others")
    return root


def _encoding(data: bytes) -> str | None:
    """What the first bytes prove, though programs declare another; None: what they declare."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<"):
        return "utf-16"
    return "utf-8" if data[:3] == b"\xef\xbb\xbf" or _DECLARES_UTF_16.match(data) else None
