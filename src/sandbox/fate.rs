//! What the seed decides: failures, duplicates and the order.
//!
//! Every decision comes from a generator of its own, seeded with the seed, the
//! ordinal of the request and the index of the device: nothing depends on timing.

use fastrand::Rng;

use super::CallbackOrder;

const DEVICE: u64 = 2;
const ORDER: u64 = 3;
const TOKENS: u64 = 4;

/// Why a device's change fails, as its callback says it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) text: &'static str,
}

/// Codes and shape of the texts from the Callback Error Messages page.
const FAULTS: [Fault; 5] = [
    Fault {
        code: "UnifiedWebService.REQUEST_FAILED.DeviceNotFound",
        text: "REQUEST_FAILED. The device could not be found",
    },
    Fault {
        code: "UnifiedWebService.REQUEST_FAILED.UnexpectedError",
        text: "REQUEST_FAILED. An unexpected error occurred",
    },
    Fault {
        code: "UnifiedWebService.INPUT_INVALID.DeviceState.Invalid",
        text: "INPUT_INVALID. The device state does not allow this operation",
    },
    Fault {
        code: "UnifiedWebService.INPUT_INVALID.Device.Account.Invalid",
        text: "INPUT_INVALID. The device does not belong to the account",
    },
    Fault {
        code: "UnifiedWebService.INPUT_INVALID.Device.Identifier.Invalid",
        text: "INPUT_INVALID. The device identifier is not valid",
    },
];

/// How often a callback is sent, apart from resends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copies {
    /// Once.
    One,
    /// Again after the first was acknowledged.
    TwoInTurn,
    /// Again while the first is still under way, as was seen in the field.
    TwoAtOnce,
}

/// What happens to one device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    pub(super) fault: Option<&'static Fault>,
    pub(super) copies: Copies,
}

/// The decisions of one seed.
#[derive(Clone, Debug)]
pub(super) struct Fates {
    pub(super) seed: u64,
    pub(super) failure_share: f64,
    pub(super) duplicate_share: f64,
    pub(super) order: CallbackOrder,
}

impl Fates {
    /// What happens to a device. Everything is drawn every time, so that one
    /// share does not move what another decides.
    pub(super) fn device(&self, ordinal: u64, index: usize) -> Fate {
        let mut rng = self.rng(DEVICE, ordinal, index as u64);
        let fails = rng.f64() < self.failure_share;
        let fault = FAULTS.get(rng.usize(..FAULTS.len()));
        let twice = rng.f64() < self.duplicate_share;
        let at_once = rng.bool();
        Fate {
            fault: fault.filter(|_| fails),
            copies: match (twice, at_once) {
                (false, _) => Copies::One,
                (true, false) => Copies::TwoInTurn,
                (true, true) => Copies::TwoAtOnce,
            },
        }
    }

    /// The order in which a request's devices are told about.
    pub(super) fn order(&self, ordinal: u64, devices: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..devices).collect();
        match self.order {
            CallbackOrder::AsSent => {}
            CallbackOrder::Reversed => order.reverse(),
            CallbackOrder::Shuffled => self.rng(ORDER, ordinal, 0).shuffle(&mut order),
        }
        order
    }

    /// The generator of tokens and sessions.
    pub(super) fn tokens(&self) -> Rng {
        self.rng(TOKENS, 0, 0)
    }

    fn rng(&self, purpose: u64, ordinal: u64, index: u64) -> Rng {
        let parts = [purpose, ordinal, index];
        Rng::with_seed(parts.into_iter().fold(stir(self.seed), |mixed, part| {
            stir(mixed ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd))
        }))
    }
}

/// The finaliser of SplitMix64: neighbouring numbers come out unrelated.
fn stir(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
