package thingspace.gateway.client;

import thingspace.gateway.v1.FieldReason;

/**
 * An invalid field of a request.
 *
 * @param field the path of the field, such as {@code devices[17].iccid}
 * @param reason the reason, or {@code FIELD_REASON_UNSPECIFIED} for one that this version of the
 *     library does not know
 * @param reasonText the reason as the gateway sent it, such as {@code FORMAT}
 * @param description a description for people
 */
public record FieldViolation(
    String field, FieldReason reason, String reasonText, String description) {}
