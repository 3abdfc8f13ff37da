//! A JSON parser that borrows from the body and leaves the credentials out.
//!
//! `serde_json` reports neither the place of a member nor borrows from the text into its `Value`. This parser
//! accepts exactly the same texts.

use std::{borrow::Cow, iter, ops::Range};

/// Maximum depth of nested arrays and objects, as of `serde_json`.
const MAX_DEPTH: usize = 127;
/// Capacity for the values of a usual callback.
const USUAL_NODES: usize = 96;
/// Length of both names of credentials.
const CREDENTIAL_LEN: usize = "username".len();

/// A body that is a JSON object, without the credentials at any level.
pub(super) struct Document<'t> {
    /// The text without white space around it.
    text: &'t str,
    /// True if the opening brace is missing.
    lacks_brace: bool,
    /// All values, each before the values in it. A member is its name and its value.
    nodes: Vec<Node>,
    /// The credentials of the top level.
    credentials: Vec<Member<'t>>,
    /// The parts of the text to remove, in order.
    cuts: Vec<Range<usize>>,
}

/// A name and the text of its value, if it has one.
type Member<'t> = (Cow<'t, str>, Option<Cow<'t, str>>);

/// A value. It borrows from a [`Document`].
#[derive(Clone, Copy)]
pub(super) struct Value<'d> {
    text: &'d str,
    /// The value, then the values in it.
    nodes: &'d [Node],
}

#[derive(Debug, Clone, Copy)]
struct Node {
    kind: Kind,
    /// Place in the text, for a string without its quotes. Arrays and objects have none.
    start: usize,
    end: usize,
    /// Number of nodes of this value and the values in it.
    size: usize,
}

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    True,
    False,
    Number,
    String,
    /// A string with escapes.
    EscapedString,
    Array,
    Object,
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    nodes: Vec<Node>,
    credentials: Vec<Member<'t>>,
    cuts: Vec<Range<usize>>,
}

// === impl Document ===

impl<'t> Document<'t> {
    /// Parses a body. Returns `None` if it is not a JSON object.
    pub(super) fn parse(body: &'t [u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        let text = std::str::from_utf8(body.trim_ascii()).ok()?;
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
            nodes: Vec::with_capacity(USUAL_NODES),
            credentials: Vec::new(),
            cuts: Vec::new(),
        };
        // Bodies without the opening brace have been seen in the field.
        let lacks_brace = match parser.peek()? {
            b'"' => true,
            b'{' => {
                parser.at = 1;
                false
            }
            _ => return None,
        };
        parser.members()?;
        let Parser { nodes, credentials, cuts, .. } = parser;
        (parser.at == text.len()).then_some(Self { text, lacks_brace, nodes, credentials, cuts })
    }

    /// Returns the object.
    pub(super) fn root(&self) -> Value<'_> {
        Value { text: self.text, nodes: &self.nodes }
    }

    /// Returns the text of a credential of the top level, by its name in any letter case.
    pub(super) fn credential(&self, name: &str) -> Option<&str> {
        let members = self.credentials.iter().map(|(name, text)| (Cow::Borrowed(&**name), text));
        find_member(members, name)?.as_deref()
    }

    /// Returns the text without the members that are credentials. Repeated members stay.
    pub(super) fn without_credentials(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + usize::from(self.lacks_brace));
        if self.lacks_brace {
            out.push('{');
        }
        let mut at = 0;
        for cut in &self.cuts {
            out.push_str(self.text.get(at..cut.start).unwrap_or_default());
            at = cut.end;
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }
}

// === impl Value ===

impl<'d> Value<'d> {
    pub(super) fn kind(self) -> Kind {
        self.nodes.first().map_or(Kind::Null, |node| node.kind)
    }

    /// Returns a string.
    pub(super) fn string(self) -> Option<Cow<'d, str>> {
        self.nodes.first()?.string(self.text)
    }

    /// Returns a string or a number as text.
    pub(super) fn text(self) -> Option<Cow<'d, str>> {
        self.nodes.first()?.scalar(self.text)
    }

    /// Iterates over the elements of an array.
    pub(super) fn elements(self) -> impl Iterator<Item = Self> {
        let mut nodes = self.inner(Kind::Array);
        iter::from_fn(move || {
            let (element, rest) = nodes.split_at_checked(nodes.first()?.size)?;
            nodes = rest;
            Some(Self { text: self.text, nodes: element })
        })
    }

    /// Iterates over the members of an object, repeated names included.
    pub(super) fn members(self) -> impl Iterator<Item = (Cow<'d, str>, Self)> {
        self.member_nodes().filter_map(move |(name, value)| Some((name.string(self.text)?, value)))
    }

    fn member_nodes(self) -> impl Iterator<Item = (&'d Node, Self)> {
        let mut nodes = self.inner(Kind::Object);
        iter::from_fn(move || {
            let (name, rest) = nodes.split_first()?;
            let (value, rest) = rest.split_at_checked(rest.first()?.size)?;
            nodes = rest;
            Some((name, Self { text: self.text, nodes: value }))
        })
    }

    /// Returns a member of an object by its name in any letter case. See [`find_member`].
    pub(super) fn get(self, name: &str) -> Option<Self> {
        let exact = self.member_nodes().filter(|(node, _)| node.is_string(self.text, name)).last();
        if let Some((_, value)) = exact {
            return Some(value);
        }
        let can_match =
            |node: &Node| node.kind == Kind::EscapedString || node.end - node.start == name.len();
        let members = self.member_nodes().filter(|(node, _)| can_match(node));
        find_member(
            members.filter_map(|(node, value)| Some((node.string(self.text)?, value))),
            name,
        )
    }

    /// Returns this value, or the elements if it is an array: only objects with members.
    pub(super) fn objects(self) -> impl Iterator<Item = Self> {
        let this = (self.kind() != Kind::Array).then_some(self);
        let values = this.into_iter().chain(self.elements());
        values.filter(|value| !value.inner(Kind::Object).is_empty())
    }

    /// Returns the nodes of elements or members.
    fn inner(self, kind: Kind) -> &'d [Node] {
        match self.nodes.split_first() {
            Some((node, inner)) if node.kind == kind => inner,
            _ => &[],
        }
    }
}

/// Finds a member by its name. The exact name precedes other letter cases, otherwise the first one decides. The
/// last of several members with the same name counts.
fn find_member<'d, V>(members: impl Iterator<Item = (Cow<'d, str>, V)>, wanted: &str) -> Option<V> {
    let mut found: Option<(Cow<'d, str>, V)> = None;
    for (name, value) in members {
        let decides = match &found {
            Some((known, _)) => name == wanted || name == *known,
            None => name.eq_ignore_ascii_case(wanted),
        };
        if decides {
            found = Some((name, value));
        }
    }
    found.map(|(_, value)| value)
}

// === impl Node ===

impl Node {
    /// Returns a string.
    fn string<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        match self.kind {
            Kind::String => text.get(self.start..self.end).map(Cow::Borrowed),
            Kind::EscapedString => {
                let quoted = text.get(self.start.checked_sub(1)?..self.end + 1)?;
                serde_json::from_str(quoted).ok().map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// True if this is a string with this value.
    fn is_string(&self, text: &str, value: &str) -> bool {
        match self.kind {
            Kind::String => {
                let bytes = text.as_bytes().get(self.start..self.end);
                bytes.is_some_and(|bytes| bytes == value.as_bytes())
            }
            _ => self.string(text).is_some_and(|string| string == value),
        }
    }

    /// Returns a string or the text of a number.
    fn scalar<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        match self.kind {
            Kind::Number => text.get(self.start..self.end).map(Cow::Borrowed),
            _ => self.string(text),
        }
    }
}

// === impl Parser ===

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space. Returns the next byte.
    fn next_token(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn value(&mut self) -> Option<()> {
        match self.next_token()? {
            b'"' => self.string(),
            b'{' => {
                self.at += 1;
                self.members()
            }
            b'[' => {
                self.at += 1;
                self.elements()
            }
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true", Kind::True),
            b'f' => self.literal("false", Kind::False),
            b'n' => self.literal("null", Kind::Null),
            _ => None,
        }
    }

    /// Parses an object after its opening brace, and removes its credentials.
    fn members(&mut self) -> Option<()> {
        let object = self.open(Kind::Object)?;
        let is_top_level = self.depth == 1;
        // The end of the last member that stays.
        let mut kept_end = None;
        // Start and end of the credentials after it.
        let mut removed: Option<Range<usize>> = None;
        let mut byte = self.next_token()?;
        while byte != b'}' {
            let (start, node, cuts) = (self.at, self.nodes.len(), self.cuts.len());
            if byte != b'"' {
                return None;
            }
            self.string()?;
            if self.next_token()? != b':' {
                return None;
            }
            self.at += 1;
            let is_credential = self.is_credential(node);
            if !is_credential && let Some(removed) = removed.take() {
                self.cuts.push(removed.start..start);
            }
            self.value()?;
            if is_credential {
                if is_top_level {
                    self.keep_credential(node);
                }
                self.nodes.truncate(node);
                self.cuts.truncate(cuts);
                removed = Some(removed.map_or(start, |removed| removed.start)..self.at);
            } else {
                kept_end = Some(self.at);
            }
            match self.next_token()? {
                b',' => {
                    self.at += 1;
                    byte = self.next_token().filter(|byte| *byte != b'}')?;
                }
                b'}' => break,
                _ => return None,
            }
        }
        if let Some(removed) = removed {
            // With the comma before them.
            self.cuts.push(kept_end.unwrap_or(removed.start)..removed.end);
        }
        self.close(object)
    }

    /// Parses an array after its opening bracket.
    fn elements(&mut self) -> Option<()> {
        let array = self.open(Kind::Array)?;
        if self.next_token()? == b']' {
            return self.close(array);
        }
        loop {
            self.value()?;
            match self.next_token()? {
                b',' => self.at += 1,
                b']' => return self.close(array),
                _ => return None,
            }
        }
    }

    /// Adds an array or object. Returns its node.
    fn open(&mut self, kind: Kind) -> Option<usize> {
        self.depth += 1;
        let node = self.nodes.len();
        self.nodes.push(Node { kind, start: 0, end: 0, size: 1 });
        (self.depth <= MAX_DEPTH).then_some(node)
    }

    /// Ends an array or object at its closing bracket.
    fn close(&mut self, node: usize) -> Option<()> {
        self.at += 1;
        self.depth -= 1;
        let size = self.nodes.len() - node;
        self.nodes.get_mut(node)?.size = size;
        Some(())
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        self.nodes.push(Node { kind, start, end, size: 1 });
    }

    fn literal(&mut self, literal: &str, kind: Kind) -> Option<()> {
        let start = self.at;
        let end = start + literal.len();
        let is_literal = self.text.as_bytes().get(start..end)? == literal.as_bytes();
        self.push(kind, start, end);
        self.at = end;
        is_literal.then_some(())
    }

    /// Parses a string at its opening quote.
    fn string(&mut self) -> Option<()> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1F);
        let mut end = start;
        let mut kind = Kind::String;
        loop {
            end += bytes.get(end..)?.iter().position(is_special)?;
            match bytes.get(end)? {
                b'"' => break,
                b'\\' => {
                    kind = Kind::EscapedString;
                    end += 2;
                }
                _ => return None,
            }
        }
        let node = Node { kind, start, end, size: 1 };
        if kind == Kind::EscapedString {
            // Rejects invalid escapes.
            node.string(self.text)?;
        }
        self.nodes.push(node);
        self.at = end + 1;
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.push(Kind::Number, start, self.at);
        Some(())
    }

    /// Skips digits, at least one.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    /// True if a name is that of a credential.
    fn is_credential(&self, name: usize) -> bool {
        let can_be = |name: &&Node| {
            name.kind == Kind::EscapedString || name.end - name.start == CREDENTIAL_LEN
        };
        let name = self.nodes.get(name).filter(can_be);
        name.and_then(|name| name.string(self.text)).is_some_and(|name| {
            name.eq_ignore_ascii_case("username") || name.eq_ignore_ascii_case("password")
        })
    }

    /// Keeps a credential of the top level, by the node of its name.
    fn keep_credential(&mut self, name: usize) {
        if let Some([name, value, ..]) = self.nodes.get(name..)
            && let Some(name) = name.string(self.text)
        {
            self.credentials.push((name, value.scalar(self.text)));
        }
    }
}
