"""Parses bodies with the client library's own parsers, for a test that compares them with the manager's.

Each line of the input is JSON, [is_openmetrics, body]; each line of the output is the answer, {"samples": [[name, labels, value]]} or
{"error": why}. Values are strings, so that NaN and infinity are no exception.
"""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text


def number(value):
    try:
        return repr(float(value))
    except OverflowError:
        return "inf"


def parse(is_openmetrics, body):
    samples = []
    for family in (openmetrics if is_openmetrics else text)(body):
        for sample in family.samples:
            if is_openmetrics and family.type in ("counter", "histogram", "summary") and sample.name == family.name + "_created":
                continue
            if sample.value is None:
                raise ValueError("a native histogram")
            samples.append([sample.name, sample.labels, number(sample.value)])
    return samples


for line in sys.stdin:
    try:
        answer = {"samples": parse(*json.loads(line))}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {str(error) or 'no reason'}"}
    print(json.dumps(answer), flush=True)
