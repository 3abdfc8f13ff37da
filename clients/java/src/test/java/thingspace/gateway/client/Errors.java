package thingspace.gateway.client;

import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.Map;

/** Errors as the gateway sends them. */
final class Errors {
  static StatusRuntimeException error(
      Status.Code code, String reason, Map<String, String> metadata, Message... details) {
    var info =
        ErrorInfo.newBuilder()
            .setDomain("thingspace.gateway")
            .setReason(reason)
            .putAllMetadata(metadata)
            .build();
    var status =
        com.google.rpc.Status.newBuilder()
            .setCode(code.value())
            .setMessage("a message")
            .addDetails(Any.pack(info));
    for (var detail : details) {
      status.addDetails(Any.pack(detail));
    }
    return StatusProto.toStatusRuntimeException(status.build());
  }

  private Errors() {}
}
