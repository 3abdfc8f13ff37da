//! The JSON form of messages (the proto3 mapping), and its conversion from and to the binary encoding.

mod request;

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor};
use serde::de::DeserializeSeed as _;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment, Track};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    grpc::{
        error::{ApiError, Executed, reason::ErrorReason},
        json::request::MessageSeed,
    },
    proto,
};

/// Maximum size of a text or a message that is converted at once.
const SMALL_CONVERSION_BYTES: usize = 16 * 1024;
/// Maximum number of larger ones that are converted at a time.
const MAX_LARGE_CONVERSIONS: usize = 2;

/// The messages of every RPC of the protos. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct JsonSchema {
    pool: DescriptorPool,
    /// By `package.Service/Method`.
    methods: Arc<HashMap<String, Arc<JsonMethod>>>,
}

/// The messages of one RPC.
#[derive(Debug)]
pub(super) struct JsonMethod {
    input: MessageDescriptor,
    output: MessageDescriptor,
    /// True if the RPC returns a stream.
    pub(super) is_stream: bool,
}

/// Converts the JSON text of a request, like a call of a method such as
/// `/thingspace.gateway.v1.GatewayService/GetChange`. `None` if there is no such method.
///
/// # Errors
///
/// The message of the error. It contains no value of the text.
pub fn decode_json_request(path: &str, json: &[u8]) -> Option<Result<Vec<u8>, String>> {
    let schema = JsonSchema::load().ok()?;
    let method = schema.method(path)?;
    let mut encoded = Vec::new();
    let decoded = method.decode_request(json, &mut encoded);
    let decoded = decoded.map_err(|error| error.into_status().message().to_owned());
    Some(decoded.map(|()| encoded))
}

/// Converts `bytes` bytes. Many of them are converted on a thread of their own, which does not delay other calls.
///
/// # Errors
///
/// The error of the conversion, or INTERNAL if it panics.
pub(super) async fn run_conversion<T: Send + 'static>(
    bytes: usize,
    convert: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    static LARGE_CONVERSIONS: Semaphore = Semaphore::const_new(MAX_LARGE_CONVERSIONS);
    if bytes <= SMALL_CONVERSION_BYTES {
        return convert();
    }
    let permit = LARGE_CONVERSIONS.acquire().await;
    let converted = spawn_blocking(move || {
        // Held to the end, also if the call has been cancelled.
        let _permit = permit;
        convert()
    });
    converted.await.unwrap_or_else(|_panic| {
        Err(ApiError::new(ErrorReason::Internal, "internal error").with_executed(Executed::No))
    })
}

impl JsonSchema {
    /// Returns the schema. Reads the descriptors of the protos at the first call.
    ///
    /// # Errors
    ///
    /// The descriptors of the build are malformed.
    pub(super) fn load() -> Result<Self, prost_reflect::DescriptorError> {
        static SCHEMA: OnceLock<JsonSchema> = OnceLock::new();
        if let Some(schema) = SCHEMA.get() {
            return Ok(schema.clone());
        }
        let schema = Self::read()?;
        Ok(SCHEMA.get_or_init(|| schema).clone())
    }

    fn read() -> Result<Self, prost_reflect::DescriptorError> {
        let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET)?;
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let methods = methods.map(|method| {
            let name = format!("{}/{}", method.parent_service().full_name(), method.name());
            let method = JsonMethod {
                input: method.input(),
                output: method.output(),
                is_stream: method.is_server_streaming(),
            };
            (name, Arc::new(method))
        });
        let methods = Arc::new(methods.collect());
        Ok(Self { pool, methods })
    }

    /// Returns the messages of the RPC with this path. `None` if the protos have no such RPC.
    pub(super) fn method(&self, path: &str) -> Option<&Arc<JsonMethod>> {
        self.methods.get(path.strip_prefix('/')?)
    }

    /// Returns the JSON form of a message of this type. `None` if the type is unknown or the message is malformed.
    pub(super) fn encode(&self, type_name: &str, message: &[u8]) -> Option<serde_json::Value> {
        let descriptor = self.pool.get_message_by_name(type_name)?;
        let message = DynamicMessage::decode(descriptor, message).ok()?;
        serde_json::to_value(message).ok()
    }
}

impl JsonMethod {
    /// Appends the binary encoding of a request. It is not longer than the text, unless the request has lists of numbers.
    ///
    /// # Errors
    ///
    /// MALFORMED with the position, and with the field if the protos have it. The error never contains a value of the
    /// request.
    pub(super) fn decode_request(
        &self,
        json: &[u8],
        encoded: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let (mut track, problem) = (Track::new(), Cell::new("wrong type"));
        let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
        let seed = MessageSeed { message: &self.input, problem: &problem, encoded };
        if let Err(error) = seed.deserialize(tracked) {
            return Err(self.invalid(&error, problem.get(), Some(&track.path())));
        }
        deserializer.end().map_err(|error| self.invalid(&error, problem.get(), None))
    }

    /// Appends the JSON form of a response.
    ///
    /// # Errors
    ///
    /// INTERNAL if the message is not of the RPC.
    pub(super) fn encode_response(
        &self,
        message: &[u8],
        json: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        let malformed = || ApiError::new(ErrorReason::Internal, "internal error");
        let message =
            DynamicMessage::decode(self.output.clone(), message).map_err(|_| malformed())?;
        serde_json::to_writer(json, &message).map_err(|_| malformed())
    }

    fn invalid(&self, error: &serde_json::Error, problem: &str, path: Option<&Path>) -> ApiError {
        let problem = match error.classify() {
            Category::Eof => "the text ends too early",
            Category::Data => problem,
            Category::Syntax | Category::Io => "invalid JSON",
        };
        let field = path.map(|path| known_fields(&self.input, path));
        let field = field.filter(|field| !field.is_empty());
        let field = field.map(|field| format!(" in {field}")).unwrap_or_default();
        let message = format!(
            "request is not a {} in JSON: {problem}{field} at line {}, column {}",
            self.input.name(),
            error.line(),
            error.column()
        );
        ApiError::new(ErrorReason::Malformed, message).with_executed(Executed::No)
    }
}

/// Returns the part of a path that consists of fields of the message and of indexes.
fn known_fields(message: &MessageDescriptor, path: &Path) -> String {
    let mut message = Some(message.clone());
    let mut known = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => known.push_str(&format!("[{index}]")),
            Segment::Map { key } => {
                let field = message.as_ref().and_then(|message| request::find_field(message, key));
                let Some(field) = field else { break };
                if !known.is_empty() {
                    known.push('.');
                }
                known.push_str(field.name());
                message = match field.kind() {
                    Kind::Message(message) => Some(message),
                    _ => None,
                };
            }
            Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    known
}

#[cfg(test)]
mod tests;
