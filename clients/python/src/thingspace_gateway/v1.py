"""Messages, enums and stubs of the package `thingspace.gateway.v1`, in one module.

`v1.ChangeEsimPlanRequest`, `v1.UNTIL_FINISHED` and so on. The generated modules themselves are
`thingspace.gateway.v1.change_pb2` and its siblings."""

# ruff: noqa: F401, F403
from thingspace.gateway.v1.change_pb2 import *
from thingspace.gateway.v1.device_pb2 import *
from thingspace.gateway.v1.error_pb2 import *
from thingspace.gateway.v1.gateway_service_pb2 import *
from thingspace.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub as GatewayServiceStub
from thingspace.gateway.v1.operator_service_pb2 import *
from thingspace.gateway.v1.operator_service_pb2_grpc import OperatorServiceStub as OperatorServiceStub
from thingspace.gateway.v1.watch_pb2 import *
