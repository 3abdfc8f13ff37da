package thingspace.gateway.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.grpc.Status;
import java.util.HashMap;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class RetryRuleTest {
  private static GatewayException error(Status.Code code, String retry, String executed) {
    if (retry == null && executed == null) {
      return GatewayException.of(code.toStatus().asRuntimeException());
    }
    var metadata = new HashMap<String, String>();
    if (retry != null) {
      metadata.put("retry", retry);
    }
    if (executed != null) {
      metadata.put("executed", executed);
    }
    return GatewayException.of(Errors.error(code, "SOME_REASON", metadata));
  }

  @ParameterizedTest
  @CsvSource({
    // The gateway says that nothing was executed: `retry` decides.
    "UNAVAILABLE,        NOW,    NO,      CHANGE, REPEAT, false",
    "RESOURCE_EXHAUSTED, LATER,  NO,      CHANGE, REPEAT, false",
    "RESOURCE_EXHAUSTED, NOVEL,  NO,      CHANGE, REPEAT, false",
    "RESOURCE_EXHAUSTED,      ,  NO,      CHANGE, REPEAT, false",
    "INVALID_ARGUMENT,   NEVER,  NO,      CHANGE, FAIL,   false",
    // Otherwise the outcome is open: repeat, whatever `retry` says.
    "DEADLINE_EXCEEDED,  NOW,    UNKNOWN, CHANGE, REPEAT, true",
    "UNAVAILABLE,        LATER,  UNKNOWN, CHANGE, REPEAT, true",
    "INTERNAL,           NEVER,  UNKNOWN, CHANGE, REPEAT, true",
    "INTERNAL,           NEVER,  NOVEL,   CHANGE, REPEAT, true",
    "INTERNAL,           NEVER,         , CHANGE, REPEAT, true",
    // No ErrorInfo: the gateway did not send the error.
    "UNAVAILABLE,             ,         , CHANGE, REPEAT, true",
    "CANCELLED,               ,         , CHANGE, REPEAT, true",
    "INVALID_ARGUMENT,        ,         , CHANGE, REPEAT, true",
    // Calls that change nothing: `retry` decides.
    "UNAVAILABLE,        NOW,           , READ,   REPEAT, false",
    "NOT_FOUND,          NEVER,         , READ,   FAIL,   false",
    "INTERNAL,           NEVER,  UNKNOWN, READ,   FAIL,   false",
    "INTERNAL,                ,         , READ,   REPEAT, false",
    "INTERNAL,           NOVEL,         , READ,   REPEAT, false",
  })
  void decides(
      Status.Code code,
      String retry,
      String executed,
      RetryRule rule,
      RetryRule.Decision decision,
      boolean outcomeUnknown) {
    var error = error(code, retry, executed);
    assertEquals(decision, rule.decide(error, false));
    assertEquals(decision, rule.decide(error, true));
    assertEquals(outcomeUnknown, rule.outcomeUnknown(error, false));
  }

  @ParameterizedTest
  @CsvSource({"CHANGE", "READ"})
  void repeatsARefusedCredentialOnceIfThereIsAFreshToken(RetryRule rule) {
    var error = error(Status.Code.UNAUTHENTICATED, "LATER", "UNKNOWN");
    assertEquals(RetryRule.Decision.REPEAT_NOW, rule.decide(error, true));
    assertEquals(RetryRule.Decision.FAIL, rule.decide(error, false));
  }

  @ParameterizedTest
  @CsvSource({
    // The gateway did not read this attempt. Earlier attempts remain as they were.
    "UNAUTHENTICATED,    UNKNOWN, true,  true",
    "UNAUTHENTICATED,    UNKNOWN, false, false",
    // The gateway says that the key was not executed, which includes earlier attempts.
    "RESOURCE_EXHAUSTED, NO,      true,  false",
    "UNAVAILABLE,               , true,  true",
  })
  void remembersAnUnknownOutcome(
      Status.Code code, String executed, boolean before, boolean outcomeUnknown) {
    var error = error(code, "LATER", executed);
    assertEquals(outcomeUnknown, RetryRule.CHANGE.outcomeUnknown(error, before));
  }
}
