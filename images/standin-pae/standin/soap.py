"""SOAP envelopes of WS-Management: reading requests, writing replies and faults.

Sources: DMTF DSP0226 1.0 (WS-Management), W3C SOAP 1.2 part 1, and MS-WSMV for the shell's
messages (section 2.2.4) and the ``WSManFault`` detail (section 2.2.4.43).
Requests are parsed with expat alone; replies are filled-in templates.
"""

import os
import pyexpat

NS_SOAP = "http://www.w3.org/2003/05/soap-envelope"
NS_ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
NS_TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
NS_ENUMERATION = "http://schemas.xmlsoap.org/ws/2004/09/enumeration"
NS_WSMAN = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
NS_SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
NS_FAULT = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"
NS_IDENTITY = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"
ANONYMOUS = NS_ADDRESSING + "/role/anonymous"
ACTION_FAULT = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"


class BadEnvelopeError(Exception):
    """The request is not a SOAP 1.2 envelope."""


class Node:
    """One element: ``name`` is ``namespace}local``."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name, attributes):
        self.name = name
        self.attributes = attributes
        self.children = []
        self.text = ""

    def find(self, *path):
        """The first descendant along a path of names, or ``None``."""
        node = self
        for name in path:
            for child in node.children:
                if child.name == name:
                    node = child
                    break
            else:
                return None
        return node

    def value(self, *path):
        """The stripped text of ``find``; empty if it is not there."""
        node = self.find(*path)
        return node.text.strip() if node is not None else ""


def parse(data):
    """The root element of an XML document.

    A document type is refused: SOAP forbids it (SOAP 1.2 part 1, section 5), and without it
    no entity can be declared.

    Raises:
        BadEnvelopeError: not well-formed, or not SOAP.
    """
    root = Node("", {})
    stack = [root]

    def start(name, attributes):
        node = Node(name, attributes)
        stack[-1].children.append(node)
        stack.append(node)

    def end(_name):
        stack.pop()

    def text(data):
        stack[-1].text += data

    def doctype(*_arguments):
        raise BadEnvelopeError("a document type declaration")

    parser = pyexpat.ParserCreate(None, "}")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except pyexpat.ExpatError as error:
        raise BadEnvelopeError(str(error)) from error
    envelope = root.children[0]
    if envelope.name != NS_SOAP + "}Envelope":
        raise BadEnvelopeError(envelope.name)
    return envelope


class Request:
    """What the header of a request says.

    Attributes:
        action, resource, message_id: URIs as sent.
        timeout_s: w:OperationTimeout in seconds, 60 if there is none (DSP0226 leaves the
            default to the service; WinRM's MaxTimeoutms is 60000).
        max_envelope: w:MaxEnvelopeSize in bytes, or ``None``.
        selectors, options: name to text.
        body: the Body element.
    """

    def __init__(self, envelope):
        header = envelope.find(NS_SOAP + "}Header") or Node("", {})
        self.action = header.value(NS_ADDRESSING + "}Action")
        self.message_id = header.value(NS_ADDRESSING + "}MessageID")
        self.resource = header.value(NS_WSMAN + "}ResourceURI")
        self.timeout_s = duration(header.value(NS_WSMAN + "}OperationTimeout"), 60.0)
        limit = header.value(NS_WSMAN + "}MaxEnvelopeSize")
        self.max_envelope = int(limit) if limit.isdigit() else None
        self.selectors = _named(header.find(NS_WSMAN + "}SelectorSet"))
        self.options = _named(header.find(NS_WSMAN + "}OptionSet"))
        self.body = envelope.find(NS_SOAP + "}Body") or Node("", {})


def _named(group):
    if group is None:
        return {}
    return {node.attributes.get("Name", ""): node.text.strip() for node in group.children}


def duration(text, default):
    """An xs:duration (``PT20S``, ``P0DT1H2.5S``) in seconds; ``default`` if it is none."""
    if not text.startswith("P"):
        return default
    scales = {"D": 86400.0, "H": 3600.0, "M": 60.0, "S": 1.0}
    total = 0.0
    number = ""
    for char in text[1:]:
        if char.isdigit() or char == ".":
            number += char
        elif char in scales and number:
            total += float(number) * scales[char]
            number = ""
        elif char != "T":
            return default
    return default if number else total


def escape(text):
    """Text for element content or an attribute."""
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


def new_id():
    """A random UUID in upper case, as WinRM writes its identifiers."""
    data = bytearray(os.urandom(16))
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    text = data.hex().upper()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def reply(request, action, body):
    """A reply envelope.

    Args:
        request: the ``Request`` it answers.
        action: its wsa:Action.
        body: XML of the body's content; the prefixes s, a, x, w, rsp and p are declared.
    """
    return (
        '<s:Envelope xml:lang="en-US" '
        f'xmlns:s="{NS_SOAP}" xmlns:a="{NS_ADDRESSING}" xmlns:x="{NS_TRANSFER}" '
        f'xmlns:w="{NS_WSMAN}" xmlns:rsp="{NS_SHELL}" '
        'xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"><s:Header>'
        f"<a:Action>{action}</a:Action><a:MessageID>uuid:{new_id()}</a:MessageID>"
        f"<a:To>{ANONYMOUS}</a:To>"
        f"<a:RelatesTo>{escape(request.message_id)}</a:RelatesTo>"
        f"</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


class FaultError(Exception):
    """A request that ends in a SOAP fault.

    Args:
        sender: whether the client is at fault (s:Sender) or the service (s:Receiver).
        subcode: qualified name such as ``w:InvalidSelectors``.
        code: WSManFault code: an HRESULT of the WS-Management range, or a Win32 error.
        reason: DSP0226's text for the subcode.
        message: the text of the WSManFault.
        detail: the w:FaultDetail URI's last part, or empty.
    """

    def __init__(self, sender, subcode, code, reason, message="", detail=""):
        super().__init__(reason)
        self.sender = sender
        self.subcode = subcode
        self.code = code
        self.reason = reason
        self.message = message or reason
        self.detail = detail


def fault(request, error, machine):
    """The envelope of a fault.

    Args:
        request: the ``Request``, or ``None`` when none could be read.
        error: the ``FaultError``.
        machine: the computer's name.
    """
    detail = (
        f"<w:FaultDetail>http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/{error.detail}"
        "</w:FaultDetail>"
        if error.detail
        else ""
    )
    relates = request.message_id if request is not None else ""
    return (
        f'<s:Envelope xml:lang="en-US" xmlns:s="{NS_SOAP}" xmlns:a="{NS_ADDRESSING}" '
        f'xmlns:w="{NS_WSMAN}"><s:Header><a:Action>{ACTION_FAULT}</a:Action>'
        f"<a:MessageID>uuid:{new_id()}</a:MessageID><a:To>{ANONYMOUS}</a:To>"
        f"<a:RelatesTo>{escape(relates)}</a:RelatesTo></s:Header><s:Body><s:Fault>"
        f"<s:Code><s:Value>s:{'Sender' if error.sender else 'Receiver'}</s:Value>"
        f"<s:Subcode><s:Value>{error.subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en-US">{escape(error.reason)}</s:Text></s:Reason>'
        f'<s:Detail>{detail}<f:WSManFault xmlns:f="{NS_FAULT}" Code="{error.code}" '
        f'Machine="{escape(machine)}"><f:Message>{escape(error.message)}</f:Message>'
        "</f:WSManFault></s:Detail></s:Fault></s:Body></s:Envelope>"
    ).encode()
