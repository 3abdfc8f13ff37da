//! The order in which callbacks are sent.

use std::cell::Cell;

use clap::ValueEnum;

use crate::AcceptedChange;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Order {
    /// One change after the other, its devices in the order of the request
    AsSent,
    /// One change after the other, its devices in any order
    Shuffled,
    /// One device of each change in turn
    Spread,
}

/// The devices whose callbacks are sent.
pub struct Schedule {
    changes: Vec<AcceptedChange>,
    order: Order,
    next: Cell<u64>,
    total: u64,
}

/// A callback to send.
pub struct Due<'a> {
    pub index: u64,
    pub request_id: &'a str,
    pub device: u64,
}

impl Schedule {
    /// All changes must have equally many devices.
    pub fn new(changes: Vec<AcceptedChange>, order: Order) -> Self {
        let total = changes.iter().map(|change| change.devices).sum();
        Self { changes, order, next: Cell::new(0), total }
    }

    pub fn next(&self) -> Option<Due<'_>> {
        let index = self.next.replace(self.next.get() + 1);
        if index >= self.total {
            return None;
        }
        let changes = self.changes.len() as u64;
        let devices = self.total / changes;
        let (change, device) = match self.order {
            Order::AsSent => (index / devices, index % devices),
            Order::Shuffled => (index / devices, shuffle(index % devices, devices)),
            Order::Spread => (index % changes, index / changes),
        };
        let change = &self.changes[change as usize];
        Some(Due { index, request_id: &change.request_id, device: change.first + device })
    }
}

/// Permutes `0..count` with steps of a size that has no common factor with `count`.
fn shuffle(index: u64, count: u64) -> u64 {
    let near = (count as f64 * 0.618) as u64;
    let step = (near..).find(|&step| greatest_common_divisor(step, count) == 1).unwrap_or(1);
    index * step % count
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
