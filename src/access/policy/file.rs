//! Parses the policy file, and reports all of its errors.

use std::{collections::HashMap, num::NonZeroU32, ops::RangeInclusive};

use toml::{
    Spanned,
    de::{DeArray, DeString, DeTable, DeValue},
};

use crate::{
    access::policy::{
        caller::{CallerPolicy, Grant, Permission},
        error::{ErrorCollector, PolicyErrors},
        limits::{CallerLimit, CallerLimits},
        pattern::{AccountPattern, IdentityPattern},
    },
    domain::{caller_name::CallerName, change_type::ChangeType},
    operations,
};

/// Maximum number of callers.
pub(super) const MAX_CALLERS: usize = 1_000;
/// Maximum number of identities of a caller.
pub(super) const MAX_IDENTITIES: usize = 100;
/// Maximum number of grants of a caller.
pub(super) const MAX_GRANTS: usize = 100;
/// Maximum number of accounts of a grant.
pub(super) const MAX_ACCOUNTS: usize = 1_000;
/// Maximum number of characters of an invalid value that an error repeats.
const MAX_VALUE_CHARS: usize = 80;

const CALLER_KEYS: [&str; 4] = ["name", "identities", "allow", "limits"];
const GRANT_KEYS: [&str; 3] = ["permissions", "accounts", "operations"];

/// A value with its position.
type Value<'t> = Spanned<DeValue<'t>>;

/// Reads values, and collects their errors.
struct Reader {
    errors: ErrorCollector,
    /// Line of each name of a caller.
    names: HashMap<CallerName, usize>,
}

/// Parses the text of a policy file. The text has at most [`Policy::MAX_BYTES`](super::Policy::MAX_BYTES).
pub(super) fn parse(text: &str) -> Result<Vec<CallerPolicy>, PolicyErrors> {
    let mut reader = Reader { errors: ErrorCollector::new(text), names: HashMap::new() };
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    if syntax_errors.is_empty() {
        let callers = reader.document(document.get_ref());
        return reader.errors.into_result(callers);
    }
    // The rest of a document with such errors may have been misread.
    for error in syntax_errors {
        let position = error.span().map_or(0, |span| span.start);
        let message: String = error.message().escape_debug().collect();
        reader.errors.add(position, "", format!("not TOML: {message}"));
    }
    reader.errors.into_result(Vec::new())
}

impl Reader {
    fn document(&mut self, document: &DeTable<'_>) -> Vec<CallerPolicy> {
        let mut callers = Vec::new();
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "caller" => {
                    let tables = self.array(value, "caller", 1..=MAX_CALLERS, "callers");
                    for (index, table) in tables.into_iter().flatten().enumerate() {
                        callers.extend(self.caller(table, &format!("caller[{index}]")));
                    }
                }
                _ => self.unknown_key(key, "", &["caller"]),
            }
        }
        if document.is_empty() {
            self.errors.add(0, "caller", "not set, expected at least one [[caller]]");
        }
        callers
    }

    fn caller(&mut self, value: &Value<'_>, path: &str) -> Option<CallerPolicy> {
        let table = self.table(value, path)?;
        let (mut name, mut identities, mut grants) = (None, Vec::new(), Vec::new());
        let mut limits = CallerLimits::default();
        for (key, value) in table {
            let key_path = || format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "name" => name = self.name(value, &key_path()),
                "identities" => identities = self.identities(value, &key_path()),
                "allow" => {
                    let tables = self.array(value, &key_path(), 0..=MAX_GRANTS, "tables");
                    for (index, table) in tables.into_iter().flatten().enumerate() {
                        grants.extend(self.grant(table, &format!("{}[{index}]", key_path())));
                    }
                }
                "limits" => limits = self.limits(value, &key_path()),
                _ => self.unknown_key(key, path, &CALLER_KEYS),
            }
        }
        let position = value.span().start;
        self.require(table, "name", position, path, CallerName::ACCEPTS);
        self.require(table, "identities", position, path, "the identities of the caller");
        let line = self.errors.line(position);
        Some(CallerPolicy::new(name?, line, identities, grants, limits))
    }

    fn name(&mut self, value: &Value<'_>, path: &str) -> Option<CallerName> {
        let accepts = CallerName::ACCEPTS;
        let text = self.string(value, path, accepts)?;
        let Some(name) = CallerName::parse(text) else {
            self.bad_value(value, path, text, accepts);
            return None;
        };
        if name.is_reserved() {
            let accepts = "another name: this one stands for clients without authentication or for \
                           the admin socket";
            self.bad_value(value, path, text, accepts);
        }
        let line = self.errors.line(value.span().start);
        if let Some(first) = self.names.insert(name.clone(), line) {
            self.bad_value(value, path, text, &format!("another name than that of line {first}"));
        }
        Some(name)
    }

    fn identities(&mut self, value: &Value<'_>, path: &str) -> Vec<IdentityPattern> {
        self.list(value, path, 1..=MAX_IDENTITIES, "identities", IdentityPattern::parse)
    }

    fn grant(&mut self, value: &Value<'_>, path: &str) -> Option<Grant> {
        let table = self.table(value, path)?;
        let (mut permissions, mut accounts, mut operations) = (Vec::new(), Vec::new(), None);
        for (key, value) in table {
            let path_of_key = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "permissions" => permissions = self.permissions(value, &path_of_key),
                "accounts" => {
                    let parse =
                        |text: &str| AccountPattern::parse(text).ok_or(AccountPattern::ACCEPTS);
                    accounts = self.list(value, &path_of_key, 1..=MAX_ACCOUNTS, "accounts", parse);
                }
                "operations" => operations = Some(self.operations(value, &path_of_key)),
                _ => self.unknown_key(key, path, &GRANT_KEYS),
            }
        }
        let position = value.span().start;
        self.require(table, "permissions", position, path, "the permissions of the caller");
        self.require(table, "accounts", position, path, "accounts, or `*` for all");
        if operations.is_some()
            && !permissions.is_empty()
            && !permissions.contains(&Permission::Change)
        {
            let path = format!("{path}.operations");
            let problem = "set, expected unset, or `change` among the permissions";
            self.errors.add(position_of(table, "operations").unwrap_or(position), path, problem);
        }
        let line = self.errors.line(position);
        Some(Grant { line, permissions, accounts, operations })
    }

    fn permissions(&mut self, value: &Value<'_>, path: &str) -> Vec<Permission> {
        const ACCEPTS: &str = "change, watch, list, monitor or operate";
        let parse = |text: &str| Permission::parse(text).ok_or(ACCEPTS);
        self.list(value, path, 1..=Permission::ALL.len(), "permissions", parse)
    }

    fn operations(&mut self, value: &Value<'_>, path: &str) -> Vec<ChangeType> {
        let names: Vec<&str> = operation_names().collect();
        let names = names.join(", ");
        let parse = |text: &str| {
            let mut types = operations::all().map(|info| info.change_type);
            types.find(|change_type| change_type.as_str() == text).ok_or(names.as_str())
        };
        self.list(value, path, 1..=ChangeType::ALL.len(), "operations", parse)
    }

    fn limits(&mut self, value: &Value<'_>, path: &str) -> CallerLimits {
        let mut limits = CallerLimits::default();
        for (key, value) in self.table(value, path).into_iter().flatten() {
            let name = key.get_ref().as_ref();
            match CallerLimit::ALL.into_iter().find(|limit| limit.as_str() == name) {
                Some(limit) => {
                    let number = self.number(value, &format!("{path}.{name}"), limit.max());
                    limits = number.map_or(limits, |number| limits.with(limit, number));
                }
                None => self.unknown_key(key, path, &CallerLimit::ALL.map(CallerLimit::as_str)),
            }
        }
        limits
    }

    fn number(&mut self, value: &Value<'_>, path: &str, max: u32) -> Option<NonZeroU32> {
        let accepts = format!("a whole number from 1 to {max}");
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(value, path, &accepts);
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| *number <= max).and_then(NonZeroU32::new);
        if number.is_none() {
            let problem = format!("got {}, expected {accepts}", shorten(&integer.to_string()));
            self.errors.add(value.span().start, path, problem);
        }
        number
    }

    /// Reads an array of strings.
    fn list<'e, T>(
        &mut self,
        value: &Value<'_>,
        path: &str,
        count: RangeInclusive<usize>,
        what: &str,
        parse: impl Fn(&str) -> Result<T, &'e str>,
    ) -> Vec<T> {
        let mut parsed = Vec::new();
        let items = self.array(value, path, count, what);
        for (index, item) in items.into_iter().flatten().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(text) = self.string(item, &path, "a string in quotes") else {
                continue;
            };
            match parse(text) {
                Ok(item) => parsed.push(item),
                Err(accepts) => self.bad_value(item, &path, text, accepts),
            }
        }
        parsed
    }

    fn array<'v, 't>(
        &mut self,
        value: &'v Value<'t>,
        path: &str,
        count: RangeInclusive<usize>,
        what: &str,
    ) -> Option<&'v DeArray<'t>> {
        let accepts = format!("an array of {} to {} {what}", count.start(), count.end());
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(value, path, &accepts);
            return None;
        };
        if count.contains(&array.len()) {
            return Some(array);
        }
        let problem = format!("got {}, expected {accepts}", array.len());
        self.errors.add(value.span().start, path, problem);
        None
    }

    fn table<'v, 't>(&mut self, value: &'v Value<'t>, path: &str) -> Option<&'v DeTable<'t>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, path, "a table");
            return None;
        };
        Some(table)
    }

    fn string<'v>(&mut self, value: &'v Value<'_>, path: &str, accepts: &str) -> Option<&'v str> {
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(value, path, accepts);
            return None;
        };
        Some(text)
    }

    fn require(&mut self, table: &DeTable<'_>, key: &str, at: usize, path: &str, accepts: &str) {
        if position_of(table, key).is_none() {
            self.errors.add(at, format!("{path}.{key}"), format!("not set, expected {accepts}"));
        }
    }

    fn unknown_key(&mut self, key: &Spanned<DeString<'_>>, path: &str, known: &[&str]) {
        let name = shorten(key.get_ref());
        let name: String = name.escape_debug().collect();
        let separator = if path.is_empty() { "" } else { "." };
        let problem = format!("unknown key, expected {}", known.join(", "));
        self.errors.add(key.span().start, format!("{path}{separator}{name}"), problem);
    }

    fn wrong_type(&mut self, value: &Value<'_>, path: &str, accepts: &str) {
        let problem =
            format!("got a value of type {}, expected {accepts}", value.get_ref().type_str());
        self.errors.add(value.span().start, path, problem);
    }

    fn bad_value(&mut self, value: &Value<'_>, path: &str, text: &str, accepts: &str) {
        let problem = format!("got {:?}, expected {accepts}", shorten(text));
        self.errors.add(value.span().start, path, problem);
    }
}

/// Iterates over the names of all operations.
pub(super) fn operation_names() -> impl Iterator<Item = &'static str> {
    operations::all().map(|info| info.change_type.as_str())
}

fn position_of(table: &DeTable<'_>, name: &str) -> Option<usize> {
    let mut keys = table.iter().map(|(key, _)| key);
    keys.find(|key| key.get_ref().as_ref() == name).map(|key| key.span().start)
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
