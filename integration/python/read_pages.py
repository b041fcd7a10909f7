"""Reads pages with parsers that share no code with the manager, and compares them with what they must say.

    python read_pages.py <folder>

The folder has pages.json, a list of {"file", "content_type", "created", "coding", "expected"}, the files of the pages, and of each
`expected` a file: families {"name", "type", "help", "unit", "series"}, series {"labels", "bounds", "values", "owned",
"created", "exemplars"}, exemplars [bound, labels, value, milliseconds]. Numbers are strings, so that NaN and infinity are no exception; bounds are spelled as `le` must be. Ends
with the first difference, or prints how much it read.
"""

import io
import json
import math
import pathlib
import re
import sys
import tempfile

from google.protobuf import proto
from grpc_tools import protoc
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as text

from codings import CODINGS

# What the manager says on its own account; "dots" has two underscores for each.
OWN = re.compile(
    "shardmeter_manager_|shard_(up|last_report_timestamp_seconds|instance_start_timestamp_seconds|reports(_|_total)?"
    "|rejected_samples(_|_total)?)$"
)


def is_own(name):
    return OWN.match(name.replace("__", "_"))


class Page:
    """What a page says: of each family its type, help and unit, the value of each sample, and since when it counts."""

    def __init__(self):
        self.families = {}
        self.samples = {}
        self.created = {}
        self.exemplars = {}

    def family(self, name, about):
        if name in self.families:
            raise ValueError(f"family {name} twice")
        self.families[name] = about

    def sample(self, name, labels, value):
        key = name, tuple(sorted(labels.items()))
        if key in self.samples:
            raise ValueError(f"series {key} twice")
        self.samples[key] = float(value)

    def exemplar(self, name, of, labels, value, milliseconds):
        self.exemplars[name, tuple(sorted(of.items()))] = labels, float(value), milliseconds


TYPED = re.compile(r'^# TYPE ("(?:[^"\\]|\\.)*"|\S+) ', re.MULTILINE)


def unquoted(name):
    return re.sub(r"\\(.)", lambda c: {"n": "\n"}.get(c[1], c[1]), name[1:-1]) if name[0] == '"' else name


class Text:
    """Text format 0.0.4 and 1.0.0. Its parser does without the blanks around HELP, and has no units."""

    @staticmethod
    def read(body):
        body = body.decode()
        typed = {unquoted(name) for name in TYPED.findall(body)}
        page = Page()
        for family in text.text_string_to_metric_families(body):
            name, added = family.name, ""
            if family.type == "counter":
                # The parser calls counters as OpenMetrics does, whatever the page called them.
                if f"{name}_total" in typed:
                    name = f"{name}_total"
                else:
                    added = "_total"
            if not is_own(name):
                page.family(name, (family.type, family.documentation, ""))
                for sample in family.samples:
                    page.sample(sample.name.removesuffix(added), sample.labels, sample.value)
        return page

    @staticmethod
    def about(family):
        kind = {"untyped": "unknown"}.get(family["type"], family["type"])
        shown = re.sub(r"[^\S\n]+\Z", "", family["help"]).lstrip(" \t\r\v\f")
        return family["name"], (kind, shown, "")

    bound = str


class OpenMetrics:
    """OpenMetrics 1.0.0. Its parser is strict; it does without the blanks before HELP."""

    @staticmethod
    def read(body):
        page = Page()
        for family in openmetrics.text_string_to_metric_families(body.decode()):
            if not is_own(family.name):
                page.family(family.name, (family.type, family.documentation, family.unit))
                for sample in family.samples:
                    page.sample(sample.name, sample.labels, sample.value)
                    if said := sample.exemplar:
                        at = round(float(said.timestamp) * 1000)
                        page.exemplar(sample.name, sample.labels, said.labels, said.value, at)
        return page

    @staticmethod
    def about(family):
        name, kind = family["name"], {"untyped": "unknown"}.get(family["type"], family["type"])
        if kind == "counter":
            # A counter must end in _total; one that does not keeps its name.
            name, kind = (name[:-6], kind) if name.endswith("_total") else (name, "unknown")
        unit = family["unit"] if name.endswith("_" + family["unit"]) else ""
        return name, (kind, family["help"].lstrip(" "), unit)

    bound = str


class Protobuf:
    """Delimited messages of metrics.proto, which has all fields there may be."""

    messages = None

    @classmethod
    def read(cls, body):
        if cls.messages is None:
            cls.messages = compile_proto()
        page, stream = Page(), io.BytesIO(body)
        while (family := proto.parse_length_prefixed(cls.messages.MetricFamily, stream)) is not None:
            size = family.ByteSize()
            family.DiscardUnknownFields()
            if family.ByteSize() != size:
                raise ValueError(f"fields that metrics.proto does not have: {family}")
            if not is_own(family.name):
                kind = cls.messages.MetricType.Name(family.type).lower()
                page.family(family.name, (kind, family.help, family.unit))
                for metric in family.metric:
                    cls.metric(page, family.name, kind, metric)
        return page

    @staticmethod
    def exemplar(page, name, of, message):
        if message.HasField("exemplar"):
            said = message.exemplar
            at = said.timestamp.seconds * 1000 + said.timestamp.nanos // 1_000_000
            page.exemplar(name, of, {pair.name: pair.value for pair in said.label}, said.value, at)

    @classmethod
    def metric(cls, page, name, kind, metric):
        labels = {pair.name: pair.value for pair in metric.label}
        if len(labels) != len(metric.label):
            raise ValueError(f"a label twice: {metric}")
        if [field.name for field, _ in metric.ListFields() if field.name != "label"] != [kind]:
            raise ValueError(f"not a {kind}: {metric}")
        of_kind = getattr(metric, kind)
        if kind in ("histogram", "summary"):
            count = of_kind.sample_count
            if kind == "histogram":
                count = count or of_kind.sample_count_float
                for bucket in of_kind.bucket:
                    value = bucket.cumulative_count or bucket.cumulative_count_float
                    page.sample(f"{name}_bucket", labels | {"le": bucket.upper_bound}, value)
                    cls.exemplar(page, f"{name}_bucket", labels | {"le": bucket.upper_bound}, bucket)
            else:
                for part in of_kind.quantile:
                    page.sample(name, labels | {"quantile": part.quantile}, part.value)
            page.sample(f"{name}_count", labels, count)
            page.sample(f"{name}_sum", labels, of_kind.sample_sum)
        else:
            page.sample(name, labels, of_kind.value)
            if kind == "counter":
                cls.exemplar(page, name, labels, of_kind)
        if kind not in ("gauge", "untyped"):
            since = of_kind.created_timestamp
            page.created[name, tuple(sorted(labels.items()))] = [since.seconds, since.nanos]

    @staticmethod
    def about(family):
        return family["name"], (family["type"], family["help"], family["unit"])

    # As a number: it is not spelled here.
    bound = float


def compile_proto():
    here, out = pathlib.Path(__file__).parent, tempfile.mkdtemp()
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    if protoc.main(["", f"-I{here}", f"-I{well_known}", f"--python_out={out}", "metrics.proto"]) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, out)
    import metrics_pb2

    return metrics_pb2


# By media type and version.
READERS = {
    ("text/plain", "0.0.4"): Text,
    ("text/plain", "1.0.0"): Text,
    ("application/openmetrics-text", "1.0.0"): OpenMetrics,
    ("application/vnd.google.protobuf", None): Protobuf,
}


def escaper(one, legacy_stays=True, prefix=""):
    """Escapes names; `one` says what becomes of a character that stands so far from the beginning."""

    def escape(name):
        if legacy_stays and re.fullmatch("[a-zA-Z_:][a-zA-Z0-9_:]*", name):
            return name
        return prefix + "".join(one(c, re.fullmatch("[a-zA-Z_:]" if at == 0 else "[a-zA-Z0-9_:]", c)) for at, c in enumerate(name))

    return escape


# prometheus.io, "Escaping schemes".
ESCAPINGS = {
    "allow-utf-8": str,
    "underscores": escaper(lambda c, legacy: c if legacy else "_"),
    "dots": escaper(lambda c, legacy: {"_": "__", ".": "_dot_"}.get(c, c if legacy else "__"), legacy_stays=False),
    "values": escaper(lambda c, legacy: "__" if c == "_" else c if legacy else f"_{ord(c):x}_", prefix="U__"),
}


def expected(families, reader, escaped, created):
    """What a page must say that `reader` reads; `created`: whether OpenMetrics says since when."""
    page = Page()
    for family in families:
        name = escaped(family["name"])
        stem, about = reader.about(family | {"name": name})
        page.family(stem, about)
        for series in family["series"]:
            labels = {escaped(label): value for label, value in series["labels"].items()}
            bounds, values = map(reader.bound, series["bounds"]), series["values"]
            if family["type"] == "histogram":
                buckets, count = [*bounds, reader.bound("+Inf")], values[-2]
                for bound, value in zip(buckets, [*values[:-2], count], strict=True):
                    page.sample(f"{name}_bucket", labels | {"le": bound}, value)
            elif family["type"] == "summary":
                count = values[-2]
                if series["owned"]:
                    for bound, value in zip(bounds, values[:-2], strict=True):
                        page.sample(name, labels | {"quantile": bound}, value)
            else:
                [value] = values
                page.sample(name, labels, value)
            if family["type"] in ("histogram", "summary"):
                page.sample(f"{name}_count", labels, count)
                page.sample(f"{name}_sum", labels, values[-1])
            if reader is Protobuf or reader is OpenMetrics and about[0] in ("counter", "histogram"):
                for bound, said, value, at in series["exemplars"]:
                    of, suffix = (labels | {"le": reader.bound(bound)}, "_bucket") if family["type"] == "histogram" else (labels, "")
                    page.exemplar(name + suffix, of, {escaped(label): value for label, value in said.items()}, value, at)
            if created and reader is OpenMetrics and about[0] in ("counter", "histogram", "summary"):
                seconds, nanos = series["created"]
                page.sample(f"{stem}_created", labels, f"{seconds}.{nanos // 1_000_000:03}")
            if reader is Protobuf and family["type"] not in ("gauge", "untyped"):
                page.created[name, tuple(sorted(labels.items()))] = series["created"]
    return page


def same(one, other):
    if not isinstance(one, float):
        return one == other
    # Two NaN are equal; 0 and -0 are not.
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return one == other and math.copysign(1, one) == math.copysign(1, other)


def compare(what, said, must):
    for key in said.keys() - must.keys():
        raise ValueError(f"{what} {key!r} is {said[key]!r}, and nobody reported it")
    for key, value in must.items():
        if key not in said or not same(said[key], value):
            raise ValueError(f"{what} {key!r} is {said.get(key, 'missing')!r}, must be {value!r}")


def parameters(content_type):
    kind, *rest = (part.strip() for part in content_type.split(";"))
    return kind, dict(part.split("=", 1) for part in rest)


def check(folder, page, families):
    kind, said = parameters(page["content_type"])
    reader, escaped = READERS[kind, said.get("version")], ESCAPINGS[said.get("escaping", "underscores")]
    body = CODINGS[page["coding"]]((folder / page["file"]).read_bytes())
    says, must = reader.read(body), expected(families, reader, escaped, page["created"])
    compare("family", says.families, must.families)
    compare("sample", says.samples, must.samples)
    compare("start of", says.created, must.created)
    compare("exemplar of", says.exemplars, must.exemplars)
    return len(says.samples)


def main():
    folder = pathlib.Path(sys.argv[1])
    known, pages, samples = {}, json.loads((folder / "pages.json").read_text()), 0
    for page in pages:
        name = page["expected"]
        if name not in known:
            known = {name: json.loads((folder / name).read_text())}
        try:
            samples += check(folder, page, known[name])
        except Exception as error:
            sys.exit(f"{page['file']}, {page['content_type']}, {page['coding']}: {type(error).__name__} {error}")
    print(json.dumps({"pages": len(pages), "samples": samples}))


main()
