//! The digest of a callback's content.

use std::borrow::Cow;

use crate::{
    callbacks::payload::json::{Kind, Value},
    domain::result::sha256,
};

/// The version of the canonical form.
const VERSION: &[u8] = b"thingspace.gateway/callback/1";
/// The end of a text. UTF-8 never contains this byte.
const END: u8 = 0xFF;

/// Returns the SHA-256 of an object in a canonical form. It has no delivery counts. The order of members, white
/// space and escapes make no difference, nor do the order of identifiers in a list, repeated identifiers and the
/// letter case of their kinds. Numbers keep their text.
pub(super) fn content_digest(object: Value<'_>, text_len: usize) -> [u8; 32] {
    let mut writer =
        Writer { out: Vec::with_capacity(VERSION.len() + text_len), members: Vec::new() };
    writer.out.extend_from_slice(VERSION);
    let is_count = |name: &str| {
        name.eq_ignore_ascii_case("callbackCount")
            || name.eq_ignore_ascii_case("maxCallbackThreshold")
    };
    writer.object(object, |name| !is_count(name));
    sha256(&writer.out)
}

/// Writes the canonical form: each value begins with a byte for its kind, and each text, array and object has
/// an end, so that different contents have different forms.
struct Writer<'d> {
    out: Vec<u8>,
    /// Members of the objects that are being written, sorted within each.
    members: Vec<(Cow<'d, str>, Value<'d>)>,
}

impl<'d> Writer<'d> {
    /// Writes a value. Returns true if it is an identifier.
    fn value(&mut self, value: Value<'d>) -> bool {
        match value.kind() {
            Kind::Null => self.out.push(b'n'),
            Kind::True => self.out.push(b't'),
            Kind::False => self.out.push(b'f'),
            Kind::Number => self.text(b'#', &value.text().unwrap_or_default()),
            Kind::String | Kind::EscapedString => {
                self.text(b'"', &value.text().unwrap_or_default());
            }
            Kind::Array => self.array(value),
            Kind::Object => return self.object(value, |_| true),
        }
        false
    }

    fn text(&mut self, kind: u8, text: &str) {
        self.out.push(kind);
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(END);
    }

    /// Writes an array. A list of identifiers is a set.
    fn array(&mut self, array: Value<'d>) {
        self.out.push(b'[');
        let start = self.out.len();
        let mut lengths = Vec::new();
        let mut is_set = true;
        for element in array.elements() {
            let start = self.out.len();
            is_set &= self.value(element);
            if is_set {
                lengths.push(self.out.len() - start);
            }
        }
        if is_set {
            let unsorted = self.out.split_off(start);
            let mut rest = unsorted.as_slice();
            let elements = lengths.into_iter().map_while(|length| {
                let (element, other) = rest.split_at_checked(length)?;
                rest = other;
                Some(element)
            });
            let mut elements: Vec<&[u8]> = elements.collect();
            elements.sort_unstable();
            elements.dedup();
            elements.into_iter().for_each(|element| self.out.extend_from_slice(element));
        }
        self.out.push(if is_set { b'>' } else { b']' });
    }

    /// Writes an object with its members sorted by name. Returns true if it is an identifier.
    fn object(&mut self, object: Value<'d>, is_content: impl Fn(&str) -> bool) -> bool {
        self.out.push(b'{');
        let identifier = identifier(object);
        if let Some((id, kind)) = identifier {
            self.text(b'"', "id");
            self.value(id);
            self.text(b'"', "kind");
            match kind.string() {
                Some(kind) => self.kind(&kind),
                None => {
                    self.value(kind);
                }
            }
        } else {
            self.members(object, is_content);
        }
        self.out.push(b'}');
        identifier.is_some()
    }

    fn members(&mut self, object: Value<'d>, is_content: impl Fn(&str) -> bool) {
        let first = self.members.len();
        self.members.extend(object.members().filter(|(name, _)| is_content(name)));
        let members = self.members.get_mut(first..).unwrap_or_default();
        members.sort_by(|(name, _), (other, _)| name.cmp(other));
        for index in first..self.members.len() {
            let Some((name, value)) = self.members.get(index).cloned() else { break };
            // The sort is stable, and the last of several members with one name counts.
            let next = self.members.get(index + 1);
            if next.is_none_or(|(next, _)| *next != name) {
                self.text(b'"', &name);
                self.value(value);
            }
        }
        self.members.truncate(first);
    }

    /// Writes the kind of an identifier in lower case.
    fn kind(&mut self, kind: &str) {
        if kind.is_ascii() {
            let start = self.out.len();
            self.text(b'"', kind);
            self.out.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
        } else {
            self.text(b'"', &kind.to_lowercase());
        }
    }
}

/// Returns `id` and `kind` of an object without other members.
fn identifier<'d>(object: Value<'d>) -> Option<(Value<'d>, Value<'d>)> {
    let (mut id, mut kind) = (None, None);
    for (name, value) in object.members() {
        match &*name {
            "id" => id = Some(value),
            "kind" => kind = Some(value),
            _ => return None,
        }
    }
    id.zip(kind)
}
