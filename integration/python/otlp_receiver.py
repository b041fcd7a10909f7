"""A receiver of traces, of OTLP's own generated code: prints its port, then each span as a line of JSON.

It stops at the end of standard input. With `--silent` it takes connections and never answers.
"""

import json
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

SILENT = "--silent" in sys.argv
ENDED = threading.Event()


def values(attributes):
    """Attributes as JSON has them."""
    named = {}
    for attribute in attributes:
        kind = attribute.value.WhichOneof("value")
        named[attribute.key] = getattr(attribute.value, kind) if kind else None
    return named


class Receiver(otlp_grpc.TraceServiceServicer):
    def Export(self, request, context):
        if SILENT:
            ENDED.wait()
        lines = []
        for of_process in request.resource_spans:
            service = values(of_process.resource.attributes).get("service.name")
            for scope in of_process.scope_spans:
                for span in scope.spans:
                    lines.append(json.dumps({
                        "service": service,
                        "name": span.name,
                        "kind": trace.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "began": span.start_time_unix_nano,
                        "ended": span.end_time_unix_nano,
                        "status": trace.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
                        "message": span.status.message,
                        "attributes": values(span.attributes),
                        "logged": [event.name for event in span.events],
                    }, default=str))
        print("\n".join(lines), flush=True)
        return otlp.ExportTraceServiceResponse()


server = grpc.server(futures.ThreadPoolExecutor(4))
otlp_grpc.add_TraceServiceServicer_to_server(Receiver(), server)
address = next((arg for arg in sys.argv[1:] if not arg.startswith("--")), "127.0.0.1:0")
port = server.add_insecure_port(address)
print(json.dumps({"port": port}), flush=True)
server.start()
sys.stdin.read()
ENDED.set()
server.stop(None)
