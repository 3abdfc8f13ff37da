//! What happens to a device, and what the seed decides where no scenario does.
//!
//! Every decision comes from a generator of its own, seeded with the seed, the
//! device's identifiers and how often it was asked for before: nothing depends
//! on timing, nor on the order of requests about different devices.

use fastrand::Rng;

use crate::callback_faults::{self, CallbackFault};
use crate::settings::{CallbackOrder, FaultRates};

const DEVICE: u64 = 2;
const ORDER: u64 = 3;
const TOKENS: u64 = 4;
const REQUEST: u64 = 5;

/// What happens to one device: what becomes of its change, and how that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceOutcome {
    pub(crate) result: DeviceResult,
    /// A callback that is not the end, before the one that is.
    pub(crate) interim: Option<InterimCallback>,
    pub(crate) timing: CallbackTiming,
    pub(crate) copies: CallbackCopies,
    pub(crate) format: CallbackFormat,
    /// The device is on the plan before the change that asks for it.
    pub(crate) on_plan_before: bool,
}

/// What becomes of a device's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceResult {
    Succeeded,
    Failed(&'static CallbackFault),
}

/// A callback after which another one comes (ThingSpace, Disable a Device
/// Profile and Callback Error Messages pages).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterimCallback {
    Warning,
    OnHold,
}

/// When the final callback is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackTiming {
    Due,
    /// Before the request is answered.
    Early,
    /// `Settings::late_delay` after it is due.
    Late,
    Never,
}

/// How often a callback is sent, apart from resends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackCopies {
    /// Once.
    One,
    /// Again after the first was acknowledged.
    TwoSequential,
    /// Again while the first is still under way, as was seen in the field.
    TwoConcurrent,
}

/// How the final callback looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackFormat {
    Normal,
    /// Its JSON ends in the middle.
    Truncated,
    /// Without its opening brace, as F-MIDWAY's filter repairs it.
    NoOpeningBrace,
    NoRequestId,
    NoStatus,
    /// A failure without `faultResponse`.
    NoFault,
    /// With `faultactor` and `detail`, as in F-MIDWAY's model.
    FaultWithDetail,
    /// `deviceResponse` as an array, as SEED-B's table says it.
    ResponseArray,
    /// Counts as texts, as SEED-B's table says it.
    CountsAsStrings,
    /// By the phone number alone, as in SEED-B's example.
    MdnOnly,
}

impl DeviceOutcome {
    /// Success, told once and in time.
    pub(crate) const PLAIN: Self = Self {
        result: DeviceResult::Succeeded,
        interim: None,
        timing: CallbackTiming::Due,
        copies: CallbackCopies::One,
        format: CallbackFormat::Normal,
        on_plan_before: false,
    };

    pub(crate) fn fault(&self) -> Option<&'static CallbackFault> {
        match self.result {
            DeviceResult::Succeeded => None,
            DeviceResult::Failed(fault) => Some(fault),
        }
    }
}

/// What the seed decides about a request as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeededRequestFault {
    NoFault,
    /// The connection is dropped and nothing is executed.
    RequestDropped,
    /// Executed, then the connection is dropped.
    ResponseDropped,
    /// Answered with a 5xx.
    Error {
        executed: bool,
    },
}

/// The decisions of one seed.
#[derive(Clone, Debug)]
pub(crate) struct SeededFaults {
    pub(crate) seed: u64,
    pub(crate) rates: FaultRates,
    pub(crate) order: CallbackOrder,
}

impl SeededFaults {
    /// What happens to a device that was changed so often before. Everything is
    /// drawn every time, so that one share does not move what another decides.
    pub(crate) fn device_outcome(&self, key: u64, before: u64) -> DeviceOutcome {
        let shares = &self.rates;
        let mut rng = self.rng(DEVICE, key, before);
        let fails = rng.f64() < shares.failure;
        let fault = callback_faults::SEEDED.get(rng.usize(..callback_faults::SEEDED.len()));
        let twice = rng.f64() < shares.duplicate;
        let at_once = rng.bool();
        let lost = rng.f64() < shares.lost;
        let early = rng.f64() < shares.early;
        let late = rng.f64() < shares.late;
        let malformed = rng.f64() < shares.malformed;
        let shape = match rng.u8(..3) {
            0 => CallbackFormat::Truncated,
            1 => CallbackFormat::NoOpeningBrace,
            _ => CallbackFormat::NoRequestId,
        };
        DeviceOutcome {
            result: match fault.filter(|_| fails) {
                Some(fault) => DeviceResult::Failed(fault),
                None => DeviceResult::Succeeded,
            },
            timing: match (lost, early, late) {
                (true, _, _) => CallbackTiming::Never,
                (_, true, _) => CallbackTiming::Early,
                (_, _, true) => CallbackTiming::Late,
                _ => CallbackTiming::Due,
            },
            copies: match (twice, at_once) {
                (false, _) => CallbackCopies::One,
                (true, false) => CallbackCopies::TwoSequential,
                (true, true) => CallbackCopies::TwoConcurrent,
            },
            format: if malformed {
                shape
            } else {
                CallbackFormat::Normal
            },
            ..DeviceOutcome::PLAIN
        }
    }

    /// What happens to a request whose first device was asked for so often before.
    pub(crate) fn request_fault(&self, key: u64, before: u64) -> SeededRequestFault {
        let shares = &self.rates;
        let mut rng = self.rng(REQUEST, key, before);
        let request = rng.f64() < shares.drop_request;
        let answer = rng.f64() < shares.drop_response;
        let error = rng.f64() < shares.error;
        let executed = rng.bool();
        if request {
            SeededRequestFault::RequestDropped
        } else if answer {
            SeededRequestFault::ResponseDropped
        } else if error {
            SeededRequestFault::Error { executed }
        } else {
            SeededRequestFault::NoFault
        }
    }

    /// The order in which a request's devices are told about.
    pub(crate) fn callback_order(&self, key: u64, devices: usize, reversed: bool) -> Vec<usize> {
        let mut order: Vec<usize> = (0..devices).collect();
        match self.order {
            _ if reversed => order.reverse(),
            CallbackOrder::AsSent => {}
            CallbackOrder::Reversed => order.reverse(),
            CallbackOrder::Shuffled => self.rng(ORDER, key, 0).shuffle(&mut order),
        }
        order
    }

    /// The generator of tokens and sessions.
    pub(crate) fn token_rng(&self) -> Rng {
        self.rng(TOKENS, 0, 0)
    }

    fn rng(&self, purpose: u64, key: u64, before: u64) -> Rng {
        let parts = [purpose, key, before];
        Rng::with_seed(parts.into_iter().fold(mix64(self.seed), |mixed, part| {
            mix64(mixed ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd))
        }))
    }
}

/// A text as a number that is the same in every run.
pub(crate) fn stable_hash(text: &str) -> u64 {
    // FNV-1a, so that equal identifiers draw alike on every machine.
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of SplitMix64: neighbouring numbers come out unrelated.
fn mix64(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
