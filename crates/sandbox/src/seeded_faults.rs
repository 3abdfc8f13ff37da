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

// Each decision has its own generator. Its number is a part of the seed: with another number, the same
// seed has other faults. 1 was the number of request IDs, which are no longer seeded.
const DEVICE: u64 = 2;
const ORDER: u64 = 3;
const TOKENS: u64 = 4;
const REQUEST: u64 = 5;

/// Decides the outcome of a device. `earlier_changes`: how many earlier changes of the device were
/// executed. Draws all numbers every time, so that one rate does not affect the decisions of another.
pub(crate) fn device_outcome(
    settings: &Settings,
    rng_key: u64,
    earlier_changes: u64,
) -> DeviceOutcome {
    let mut rng = rng(settings, DEVICE, rng_key, earlier_changes);
    let fails = rng.f64() < settings.failure_rate;
    let possible_fault = SEEDED.get(rng.usize(..SEEDED.len())).copied();
    let duplicate = rng.f64() < settings.duplicate_rate;
    let concurrent = rng.bool();
    let lost = rng.f64() < settings.lost_rate;
    let early = rng.f64() < settings.early_rate;
    let late = rng.f64() < settings.late_rate;
    let malformed = rng.f64() < settings.malformed_rate;
    let malformed_format = match rng.u8(..3) {
        0 => CallbackFormat::Truncated,
        1 => CallbackFormat::NoOpeningBrace,
        _ => CallbackFormat::NoRequestId,
    };
    DeviceOutcome {
        fault: if fails { possible_fault } else { None },
        timing: if lost {
            CallbackTiming::Never
        } else if early {
            CallbackTiming::Early
        } else if late {
            CallbackTiming::Late
        } else {
            CallbackTiming::Due
        },
        copies: if !duplicate {
            CallbackCopies::One
        } else if concurrent {
            CallbackCopies::TwoConcurrent
        } else {
            CallbackCopies::TwoSequential
        },
        format: if malformed { malformed_format } else { CallbackFormat::Normal },
        ..DeviceOutcome::PLAIN
    }
}

/// Decides the response to a request. `earlier_requests`: how many earlier requests had the same
/// first device. `Err`: the request is not executed. `Ok`: it is executed, even if the response is
/// [`ResponseKind::ServerError`].
pub(crate) fn decide_response(
    settings: &Settings,
    rng_key: u64,
    earlier_requests: u64,
) -> Result<ResponseKind, ErrorResponse> {
    let mut rng = rng(settings, REQUEST, rng_key, earlier_requests);
    let drop_request = rng.f64() < settings.drop_request_rate;
    // The setting calls a response an answer.
    let drop_response = rng.f64() < settings.drop_answer_rate;
    let error = rng.f64() < settings.error_rate;
    let executed = rng.bool();
    if drop_request {
        Err(ErrorResponse::DROPPED)
    } else if drop_response {
        Ok(ResponseKind::Dropped)
    } else if !error {
        Ok(ResponseKind::RequestId)
    } else if executed {
        Ok(ResponseKind::ServerError)
    } else {
        Err(ErrorResponse::SERVER_ERROR)
    }
}

/// Returns the indexes of a request's devices in the order of their callbacks. `is_reversed`: a
/// scenario of the request takes precedence over the setting.
pub(crate) fn callback_order(
    settings: &Settings,
    rng_key: u64,
    devices: usize,
    is_reversed: bool,
) -> Vec<usize> {
    let mut order: Vec<usize> = (0..devices).collect();
    if is_reversed {
        order.reverse();
        return order;
    }
    match settings.order {
        CallbackOrder::AsSent => {}
        CallbackOrder::Reversed => order.reverse(),
        CallbackOrder::Shuffled => rng(settings, ORDER, rng_key, 0).shuffle(&mut order),
    }
    order
}

pub(crate) fn token_rng(settings: &Settings) -> Rng {
    rng(settings, TOKENS, 0, 0)
}

fn rng(settings: &Settings, decision: u64, rng_key: u64, earlier: u64) -> Rng {
    let parts = [decision, rng_key, earlier];
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
