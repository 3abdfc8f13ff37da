//! Random faults for devices and requests without a scenario.
//!
//! Each decision has its own generator. Its seed consists of the seed of the sandbox, the device's
//! identifiers and the number of its earlier changes. Neither timing nor the order of requests for
//! different devices affects a decision.

use fastrand::Rng;

use crate::{
    errors::ErrorResponse,
    faults::SEEDED,
    outcome::{CallbackCopies, CallbackFormat, CallbackTiming, DeviceOutcome, ResponseKind},
    settings::{CallbackOrder, Settings},
};

/// Decisions that have a generator of their own.
const DEVICE: u64 = 2;
const ORDER: u64 = 3;
const TOKENS: u64 = 4;
const REQUEST: u64 = 5;

/// Decides about a device with a number of earlier changes. Draws all numbers every time, so that
/// one rate does not affect the decisions of another.
pub(crate) fn device_outcome(settings: &Settings, key: u64, earlier_changes: u64) -> DeviceOutcome {
    let rates = &settings.fault_rates;
    let mut rng = rng(settings, DEVICE, key, earlier_changes);
    let fails = rng.f64() < rates.failure;
    let fault = SEEDED.get(rng.usize(..SEEDED.len())).copied();
    let duplicate = rng.f64() < rates.duplicate;
    let concurrent = rng.bool();
    let lost = rng.f64() < rates.lost;
    let early = rng.f64() < rates.early;
    let late = rng.f64() < rates.late;
    let malformed = rng.f64() < rates.malformed;
    let malformed_format = match rng.u8(..3) {
        0 => CallbackFormat::Truncated,
        1 => CallbackFormat::NoOpeningBrace,
        _ => CallbackFormat::NoRequestId,
    };
    DeviceOutcome {
        fault: fault.filter(|_| fails),
        timing: match (lost, early, late) {
            (true, _, _) => CallbackTiming::Never,
            (_, true, _) => CallbackTiming::Early,
            (_, _, true) => CallbackTiming::Late,
            _ => CallbackTiming::Due,
        },
        copies: match (duplicate, concurrent) {
            (false, _) => CallbackCopies::One,
            (true, false) => CallbackCopies::TwoSequential,
            (true, true) => CallbackCopies::TwoConcurrent,
        },
        format: if malformed { malformed_format } else { CallbackFormat::Normal },
        ..DeviceOutcome::PLAIN
    }
}

/// Decides about a request whose first device was the first of a number of earlier requests.
pub(crate) fn response(
    settings: &Settings,
    key: u64,
    earlier_requests: u64,
) -> Result<ResponseKind, ErrorResponse> {
    let rates = &settings.fault_rates;
    let mut rng = rng(settings, REQUEST, key, earlier_requests);
    let drop_request = rng.f64() < rates.drop_request;
    let drop_response = rng.f64() < rates.drop_response;
    let error = rng.f64() < rates.error;
    let executed = rng.bool();
    match (error, executed) {
        _ if drop_request => Err(ErrorResponse::DROPPED),
        _ if drop_response => Ok(ResponseKind::Dropped),
        (false, _) => Ok(ResponseKind::RequestId),
        (true, true) => Ok(ResponseKind::ServerError),
        (true, false) => Err(ErrorResponse::SERVER_ERROR),
    }
}

/// Returns the indexes of a request's devices in the order of their callbacks.
pub(crate) fn callback_order(
    settings: &Settings,
    key: u64,
    devices: usize,
    reversed: bool,
) -> Vec<usize> {
    let mut order: Vec<usize> = (0..devices).collect();
    match settings.callback_order {
        _ if reversed => order.reverse(),
        CallbackOrder::AsSent => {}
        CallbackOrder::Reversed => order.reverse(),
        CallbackOrder::Shuffled => rng(settings, ORDER, key, 0).shuffle(&mut order),
    }
    order
}

pub(crate) fn token_rng(settings: &Settings) -> Rng {
    rng(settings, TOKENS, 0, 0)
}

fn rng(settings: &Settings, purpose: u64, key: u64, earlier: u64) -> Rng {
    let parts = [purpose, key, earlier];
    Rng::with_seed(parts.into_iter().fold(mix64(settings.seed), |mixed, part| {
        mix64(mixed ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd))
    }))
}

/// FNV-1a: the same hash in every run and on every machine.
pub(crate) fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64.
fn mix64(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
