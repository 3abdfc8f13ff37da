package thingspace.gateway.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** One stream of the gateway. It receives at most one event ahead of its consumer. */
final class EventStream<Q, E> extends ClientCall.Listener<E> {
  /** An event, or the end of the stream. */
  record Item<E>(E event, Status end, Metadata trailers) {}

  private final BlockingQueue<Item<E>> items = new LinkedBlockingQueue<>();
  private final ClientCall<Q, E> call;

  EventStream(Channel channel, MethodDescriptor<Q, E> method, Q request) {
    call = channel.newCall(method, CallOptions.DEFAULT);
    call.start(this, new Metadata());
    call.sendMessage(request);
    call.halfClose();
    call.request(1);
  }

  /** Waits for the next event or the end of the stream. Returns null if neither arrives in time. */
  Item<E> poll(Duration timeout) throws InterruptedException {
    var item = items.poll(timeout.toNanos(), TimeUnit.NANOSECONDS);
    if (item != null && item.event != null) {
      call.request(1);
    }
    return item;
  }

  void cancel() {
    call.cancel("the client does not need the stream any more", null);
  }

  @Override
  public void onMessage(E event) {
    items.add(new Item<>(event, null, null));
  }

  @Override
  public void onClose(Status end, Metadata trailers) {
    items.add(new Item<>(null, end, trailers));
  }
}
