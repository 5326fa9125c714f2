"""A stream's header as LSL and XDF write it: XML to :class:`StreamHeader` and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET

from hypnocast.core.types import ChannelInfo, StreamHeader
from hypnocast.errors import StreamError

MAX_HEADER_CHARS = 4 * 1024 * 1024
MAX_CHANNELS = 1024
MAX_RATE = 100_000.0
MAX_ELEMENTS = 65_536
"""Of a header; 1024 channels that are described at length have 20,000."""
MAX_DEPTH = 64
MAX_TEXT_CHARS = 1024
"""Of a name, a label, a unit: it is shown on pages and sent in every status."""

FORMATS = ("float32", "double64", "string", "int32", "int16", "int8", "int64")

_MNE_LSL_MARKS = ("kind", "coil_type", "range_cal")
_VOLTAGES = frozenset({"2", "202", "302", "402"})
"""MNE's numbers for EEG, EOG, EMG and ECG, all measured in volts."""
_POWERS = {"0": "V", "-3": "mV", "-6": "µV", "-9": "nV"}

_SCALE_TAGS = ("scaling_factor", "scale", "resolution")


@dataclass(frozen=True, slots=True)
class ParsedHeader:
    """A header, and what in it could not be believed."""

    header: StreamHeader
    labels_found: int
    """How many channels the description names; 0 where it names none."""

    @property
    def labels_disagree(self) -> bool:
        """Whether the description names another number of channels than the stream has."""
        return self.labels_found not in (0, len(self.header.channels))


def parse_header(xml: str, *, key: str | None = None) -> ParsedHeader:
    """Read a header; what is missing is left empty, what contradicts itself is not believed."""
    root = _parse(xml)
    name = _text(root, "name")
    count = int(_number(root, "channel_count", low=1, high=MAX_CHANNELS))
    stream_format = _text(root, "channel_format")
    if stream_format not in FORMATS:
        raise StreamError(f"channel format {stream_format!r} is none of LSL's", where=name)
    rate = _number(root, "nominal_srate", low=0.0, high=MAX_RATE)
    counts = stream_format.startswith("int")
    described = list(_channels(root, counts=counts))
    named = sum(1 for channel in described if channel.label)
    labels_found = len(described) if named else 0
    channels = tuple(described) if len(described) == count else (ChannelInfo(label=""),) * count
    source_id = _text(root, "source_id")
    header = StreamHeader(
        key=key or source_id or name,
        name=name,
        type=_text(root, "type"),
        source_id=source_id,
        uid=_text(root, "uid"),
        host=_text(root, "hostname"),
        rate=rate,
        channels=channels,
        format=stream_format,
        created_at=_number(root, "created_at", low=0.0, high=1e18, default=0.0),
        xml=xml,
    )
    return ParsedHeader(header, labels_found)


def write_header(header: StreamHeader) -> str:
    """Write a header as XDF wants it: LSL's own XML where there is one, else made from it."""
    if header.xml:
        return header.xml
    root = ET.Element("info")
    for tag, value in (
        ("name", header.name),
        ("type", header.type),
        ("channel_count", str(len(header.channels))),
        ("nominal_srate", repr(header.rate)),
        ("channel_format", header.format),
        ("source_id", header.source_id),
        ("version", "1.1"),
        ("created_at", repr(header.created_at)),
        ("uid", header.uid),
        ("session_id", "default"),
        ("hostname", header.host),
    ):
        ET.SubElement(root, tag).text = value
    channels = ET.SubElement(ET.SubElement(root, "desc"), "channels")
    for channel in header.channels:
        node = ET.SubElement(channels, "channel")
        ET.SubElement(node, "label").text = channel.label
        if channel.unit is not None:
            ET.SubElement(node, "unit").text = channel.unit
        if channel.kind is not None:
            ET.SubElement(node, "type").text = channel.kind
        if channel.scale is not None:
            ET.SubElement(node, _SCALE_TAGS[0]).text = repr(channel.scale)
    return '<?xml version="1.0"?>\n' + ET.tostring(root, encoding="unicode")


def relabel(
    header: StreamHeader,
    *,
    labels: Sequence[str] = (),
    rate: float | None = None,
) -> StreamHeader:
    """Apply what the lab's config knows better than the stream itself."""
    if labels and len(labels) != len(header.channels):
        raise StreamError(
            f"the config names {len(labels)} channels, the stream has {len(header.channels)}",
            where=header.key,
            remedy="Name every channel of the stream, in its order",
        )
    channels = header.channels
    if labels:
        channels = tuple(
            replace(channel, label=label) for channel, label in zip(channels, labels, strict=True)
        )
    return replace(header, rate=header.rate if rate is None else rate, channels=channels)


def data_ports_of(xml: str) -> frozenset[int]:
    """Return the TCP ports at which the sender of a stream serves it, by its announcement."""
    root = _parse(xml)
    texts = (_text(root, tag) for tag in ("v4data_port", "v6data_port"))
    return frozenset(int(text) for text in texts if text.isdecimal() and 0 < int(text) < 65536)


class _BoundedTree(ET.TreeBuilder):
    """Builds a tree of bounded size: each element costs many times the bytes of its text."""

    def __init__(self) -> None:
        super().__init__()
        self._left = MAX_ELEMENTS
        self._depth = 0

    def start(self, tag: str, attributes: dict[str, str], /) -> ET.Element:
        """Count an element that begins."""
        self._left -= 1
        self._depth += 1
        if self._left < 0:
            raise StreamError(f"the header has more than {MAX_ELEMENTS} elements")
        if self._depth > MAX_DEPTH:
            raise StreamError(f"the header is nested more than {MAX_DEPTH} deep")
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> ET.Element:
        """Count an element that ends."""
        self._depth -= 1
        return super().end(tag)


def _parse(xml: str) -> ET.Element:
    if len(xml) > MAX_HEADER_CHARS:
        raise StreamError(f"the header is longer than {MAX_HEADER_CHARS} characters")
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise StreamError("the header declares entities, which no stream needs")
    parser = ET.XMLParser(target=_BoundedTree())  # noqa: S314 - no entities (above), bounded
    try:
        parser.feed(xml)
        root: ET.Element = parser.close()
    except ET.ParseError as error:
        raise StreamError(f"the header is not well-formed XML ({error})") from error
    if root.tag != "info":
        raise StreamError(f"the header begins with <{root.tag[:MAX_TEXT_CHARS]}>, not <info>")
    return root


def _channels(root: ET.Element, *, counts: bool) -> Iterator[ChannelInfo]:
    for node in root.findall("desc/channels/channel"):
        label = _text(node, "label") or _text(node, "name")
        unit = _mne_lsl_unit(node) or _text(node, "unit") or _text(node, "units")
        yield ChannelInfo(
            label=label,
            unit=unit or None,
            kind=_text(node, "type") or None,
            scale=_scale(node) if counts else None,
        )


def _mne_lsl_unit(node: ET.Element) -> str | None:
    """Return the unit that mne-lsl gives as a power of ten of volts, beside marks of its own."""
    if not all(_text(node, tag) for tag in _MNE_LSL_MARKS):
        return None
    return _POWERS.get(_text(node, "unit")) if _text(node, "kind") in _VOLTAGES else None


def _scale(node: ET.Element) -> float | None:
    for tag in _SCALE_TAGS:
        try:
            value = float(_text(node, tag))
        except ValueError:
            continue
        if 0 < abs(value) < float("inf"):
            return value
    return None


def _text(node: ET.Element, tag: str) -> str:
    text = (node.findtext(tag) or "").strip()
    if len(text) > MAX_TEXT_CHARS:
        raise StreamError(f"{tag} has {len(text)} characters; {MAX_TEXT_CHARS} are read")
    return text


def _number(
    root: ET.Element, tag: str, *, low: float, high: float, default: float | None = None
) -> float:
    text = _text(root, tag)
    if not text and default is not None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise StreamError(
            f"{tag} is {text!r}, not a number from {low:g} to {high:g}", where=_text(root, "name")
        )
    return value
