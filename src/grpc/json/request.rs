//! Encodes the JSON text of a request, value by value.
//!
//! prost-reflect converts single values. It could convert a whole request, but its tree of a message needs a hundred
//! times the memory of the text. So this module reads messages and lists itself, and holds one value at a time.

use std::{borrow::Cow, cell::Cell, fmt};

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::{
    Deserialize as _, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Number, Value};

/// Reads the object of a message, and appends the encoding of its fields.
pub(super) struct MessageSeed<'a> {
    pub(super) message: &'a MessageDescriptor,
    /// The problem that an error of the text means.
    pub(super) problem: &'a Cell<&'static str>,
    pub(super) encoded: &'a mut Vec<u8>,
}

/// Reads the value of a field.
struct FieldSeed<'a> {
    field: &'a FieldDescriptor,
    is_duplicate: bool,
    problem: &'a Cell<&'static str>,
    encoded: &'a mut Vec<u8>,
}

/// Reads the elements of a field that is a list.
struct ListVisitor<'a>(FieldSeed<'a>);

/// Reads a value, or an element of a list.
struct ValueSeed<'a>(FieldSeed<'a>);

/// Reads a value that is not a message.
struct ScalarVisitor<'a>(FieldSeed<'a>);

/// Returns the field with this name in JSON, or in the proto.
pub(super) fn find_field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { message, problem, encoded } = self;
        let mut present = Vec::new();
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            let Some(field) = find_field(message, &name) else {
                return Err(fail(problem, "unknown field"));
            };
            // Parsers differ in which value they use. A list of devices must not be dropped silently.
            let is_duplicate = present.contains(&field.number());
            present.push(field.number());
            let encoded = &mut *encoded;
            members.next_value_seed(FieldSeed { field: &field, is_duplicate, problem, encoded })?;
        }
        Ok(())
    }
}

impl FieldSeed<'_> {
    fn reborrow(&mut self) -> FieldSeed<'_> {
        FieldSeed { encoded: self.encoded, ..*self }
    }

    fn encode_bytes(&mut self, bytes: &[u8]) {
        encode_key(self.field.number(), WireType::LengthDelimited, self.encoded);
        encode_varint(bytes.len() as u64, self.encoded);
        self.encoded.extend_from_slice(bytes);
    }
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.is_duplicate {
            return Err(fail(self.problem, "field occurs twice"));
        }
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    /// `null` means that the field is not set.
    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.field.is_list() {
            deserializer.deserialize_seq(ListVisitor(self))
        } else {
            ValueSeed(self).deserialize(deserializer)
        }
    }
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(ValueSeed(self.0.reborrow()))?.is_some() {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        match self.0.field.kind() {
            // Those of google.protobuf, such as a duration, are strings.
            Kind::Message(message) if !message.full_name().starts_with("google.protobuf.") => {
                let mut nested = Vec::new();
                let problem = self.0.problem;
                MessageSeed { message: &message, problem, encoded: &mut nested }
                    .deserialize(deserializer)?;
                self.0.encode_bytes(&nested);
                Ok(())
            }
            _ => deserializer.deserialize_any(ScalarVisitor(self.0)),
        }
    }
}

impl ScalarVisitor<'_> {
    /// Encodes a message that has this value alone. The encodings of such messages, one after the other, are that of the
    /// message with all values.
    fn encode<E: Error>(self, value: Value) -> Result<(), E> {
        let FieldSeed { field, problem, encoded, .. } = self.0;
        let value = if field.is_list() { vec![value].into() } else { value };
        let object = Value::Object(Map::from_iter([(field.name().to_owned(), value)]));
        let message = DynamicMessage::deserialize(field.parent_message().clone(), object);
        let message = message.map_err(|_| fail(problem, "wrong type or invalid value"))?;
        message.encode(encoded).map_err(|_| fail(problem, "message is too large"))
    }
}

impl<'de> Visitor<'de> for ScalarVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.encode(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.encode(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.encode(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.encode(value.into())
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        let field = self.0.field;
        if field.kind() != Kind::String {
            return self.encode(text.into());
        }
        if !text.is_empty() || field.is_list() || field.supports_presence() {
            self.0.encode_bytes(text.as_bytes());
        }
        Ok(())
    }

    /// serde_json represents a number as a map (its feature `arbitrary_precision`). Objects are refused.
    fn visit_map<A: MapAccess<'de>>(self, number: A) -> Result<(), A::Error> {
        let number = Number::deserialize(MapAccessDeserializer::new(number))?;
        self.encode(Value::Number(number))
    }
}

fn fail<E: Error>(problem: &Cell<&'static str>, text: &'static str) -> E {
    problem.set(text);
    E::custom(text)
}
