"""A fake OpenTelemetry collector that receives traces and metrics over gRPC or HTTP."""

import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import planted
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc


class Collector:
    """The received requests, spans and metric names. A test fails if they contain a planted text."""

    def __init__(self):
        self.received, self.spans, self.metric_names = b"", [], set()
        self._changed = threading.Condition()

    def record(self, request):
        received = request.SerializeToString()
        if line := planted.find(received, planted.IN_FILES):
            planted.found.append(line)
        with self._changed:
            self.received += received
            for resource in getattr(request, "resource_spans", []):
                names = {a.key: a.value.string_value for a in resource.resource.attributes}
                assert names["service.name"] == "thingspace-gateway", names
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            for resource in getattr(request, "resource_metrics", []):
                for scope in resource.scope_metrics:
                    self.metric_names |= {metric.name for metric in scope.metrics}
            self._changed.notify_all()

    def wait_for(self, condition, timeout=60):
        """Waits until condition(spans) is truthy, and returns its value."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.spans), timeout), [s.name for s in self.spans]
            return condition(self.spans)


class _Traces(traces_grpc.TraceServiceServicer):
    def __init__(self, collector):
        self.collector = collector

    def Export(self, request, context):
        self.collector.record(request)
        return traces.ExportTraceServiceResponse()


class _Metrics(metrics_grpc.MetricsServiceServicer):
    def __init__(self, collector):
        self.collector = collector

    def Export(self, request, context):
        self.collector.record(request)
        return metrics.ExportMetricsServiceResponse()


def serve_grpc(collector):
    """Serves OTLP over gRPC. Returns the endpoint and a stop function."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    traces_grpc.add_TraceServiceServicer_to_server(_Traces(collector), server)
    metrics_grpc.add_MetricsServiceServicer_to_server(_Metrics(collector), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return f"http://127.0.0.1:{port}", lambda: server.stop(0).wait()


def serve_http(collector):
    """Serves OTLP over HTTP. Returns the endpoint and a stop function."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            kinds = {
                "/v1/traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
                "/v1/metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
            }
            request, response = kinds[self.path]
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.record(request.FromString(body))
            body = response().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}", server.shutdown


def attributes(span):
    """Returns the attributes of a span by name."""
    return {
        a.key: getattr(a.value, a.value.WhichOneof("value")) if a.value.WhichOneof("value") else None
        for a in span.attributes
    }
