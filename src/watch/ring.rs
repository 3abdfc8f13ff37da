//! The last pages of a target.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;

use crate::{
    journal::Cursor,
    watch::page::{EncodedPage, TailEnd, TailPage},
};

/// Maximum number of events in the ring. A watch that is further behind reads the journal itself.
const MAX_RING_EVENTS: usize = 4_096;
/// Maximum size of the ring in bytes.
const MAX_RING_BYTES: usize = 2 * 1024 * 1024;

/// The last pages of a target: the events after `base`, up to and including `tip`.
pub(super) struct Ring {
    pub(super) base: Cursor,
    pub(super) tip: Cursor,
    pages: VecDeque<Arc<TailPage>>,
    events: usize,
    pub(super) bytes: usize,
    /// The number of changes of all rings at the last change of this one.
    pub(super) changed: u64,
    /// Incremented by each commit that touches the target. It only means that there may be more events.
    pub(super) generation: u64,
    /// Set if `tip` was the last stored event in this generation.
    pub(super) end: Option<(u64, TailEnd)>,
    /// True if a watch waits at the tip.
    pub(super) has_waiters: bool,
    /// True while a task fills the ring. It notifies the watches.
    pub(super) is_filling: bool,
    /// Earliest time of the next notification.
    pub(super) pause_until: Option<Instant>,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            base: Cursor::START,
            tip: Cursor::START,
            pages: VecDeque::new(),
            events: 0,
            bytes: 0,
            changed: 0,
            generation: 0,
            end: None,
            has_waiters: false,
            is_filling: false,
            pause_until: None,
        }
    }

    /// Returns the page with the first event after a cursor, if it was read after this number of removals.
    pub(super) fn page_after(&self, after: Cursor, removals: u64) -> Option<&Arc<TailPage>> {
        let number = self.pages.partition_point(|page| page.tip() <= after);
        let page = self.pages.get(number).filter(|_| self.base <= after)?;
        Some(page).filter(|page| page.removed.count() >= removals)
    }

    /// Appends a page that was read after a cursor. Without `is_shared`, no other watch needs it.
    pub(super) fn append(&mut self, after: Cursor, page: &EncodedPage, is_shared: bool) {
        let EncodedPage { page, is_shareable, .. } = page;
        let last = self.pages.back();
        let is_same = last.is_none_or(|last| last.removed.is_same_stream(&page.removed));
        if after != self.tip || !is_same {
            // Another watch has read past the tip, or the events of the request before it have been removed.
            self.tip = after;
            self.clear();
        }
        if page.events.is_empty() {
            return;
        }
        self.tip = page.tip();
        if !is_shared || !is_shareable {
            self.clear();
            return;
        }
        self.pages.push_back(Arc::clone(page));
        self.events += page.events.len();
        self.bytes += page.bytes();
        while self.events > MAX_RING_EVENTS || self.bytes > MAX_RING_BYTES {
            self.remove_first();
        }
    }

    /// Removes all pages.
    pub(super) fn clear(&mut self) {
        self.pages = VecDeque::new();
        (self.events, self.bytes) = (0, 0);
        self.base = self.tip;
    }

    /// Removes the pages up to a cursor.
    pub(super) fn remove_up_to(&mut self, cursor: Cursor) {
        while self.pages.front().is_some_and(|page| page.tip() <= cursor) {
            self.remove_first();
        }
    }

    fn remove_first(&mut self) {
        if let Some(oldest) = self.pages.pop_front() {
            self.events -= oldest.events.len();
            self.bytes -= oldest.bytes();
            self.base = oldest.tip();
        }
    }
}
