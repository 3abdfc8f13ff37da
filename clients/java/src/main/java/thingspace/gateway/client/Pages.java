package thingspace.gateway.client;

import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.function.Function;

/** Iterates over the elements of all pages. */
final class Pages<R, T> implements Iterator<T> {
  private final Function<String, R> fetch;
  private final Function<R, List<T>> elements;
  private final Function<R, String> nextToken;
  private Iterator<T> page = Collections.emptyIterator();
  private String token; // Null after the last page.

  Pages(
      Function<String, R> fetch,
      Function<R, List<T>> elements,
      Function<R, String> nextToken,
      String token) {
    this.fetch = fetch;
    this.elements = elements;
    this.nextToken = nextToken;
    this.token = token;
  }

  @Override
  public boolean hasNext() {
    while (!page.hasNext() && token != null) {
      var response = fetch.apply(token);
      page = elements.apply(response).iterator();
      var next = nextToken.apply(response);
      token = next.isEmpty() ? null : next;
    }
    return page.hasNext();
  }

  @Override
  public T next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    return page.next();
  }
}
