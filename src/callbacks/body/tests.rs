use std::{net::IpAddr, pin::pin, time::Duration};

use http_body_util::Full;
use tokio::time::sleep;

use super::*;

/// Bytes of the budget: eight bodies of [`BODY`] bytes.
const BUDGET: usize = 8 * (BODY.len() + MIN_PERMIT_BYTES);
const BODY: &str = "{}";

fn address(text: &str) -> Option<ShareKey> {
    Some(ShareKey::Address(text.parse::<IpAddr>().unwrap()))
}

async fn read(budget: &BodyBudget, share: Option<ShareKey>) -> Result<BodyPermit, RejectionReason> {
    let deadline = pin!(sleep(Duration::from_secs(1)));
    let read = budget.read(&mut Full::from(BODY), share, deadline).await;
    read.map(|(_, permit)| permit)
}

/// Reads bodies until one is rejected.
async fn fill(budget: &BodyBudget, share: Option<ShareKey>) -> Vec<BodyPermit> {
    let mut permits = Vec::new();
    while let Ok(permit) = read(budget, share).await {
        permits.push(permit);
    }
    permits
}

#[tokio::test]
async fn one_address_holds_at_most_half_of_the_bytes() {
    let budget = BodyBudget::new(BUDGET);
    let held = fill(&budget, address("192.0.2.1")).await;
    assert_eq!(held.len(), 4);
    assert_eq!(fill(&budget, address("192.0.2.2")).await.len(), 4);
    drop(held);
    assert_eq!(fill(&budget, address("192.0.2.1")).await.len(), 4);
    assert!(budget.shares.held.lock().is_empty());
}

#[tokio::test]
async fn listed_addresses_can_use_what_others_cannot() {
    let budget = BodyBudget::new(BUDGET);
    let unlisted = fill(&budget, Some(ShareKey::Unlisted)).await;
    let listed = fill(&budget, None).await;
    assert_eq!((unlisted.len(), listed.len()), (4, 4));
    drop(unlisted);
    assert_eq!(fill(&budget, None).await.len(), 4);
}

#[tokio::test]
async fn bodies_for_the_quarantine_hold_at_most_a_quarter_of_the_bytes() {
    let (budget, quarantine) = (BodyBudget::new(BUDGET), QuarantineBudget::new(BUDGET));
    let bodies = fill(&budget, None).await;
    let permits: Vec<_> =
        bodies.iter().map_while(|body| quarantine.try_acquire(body).ok()).collect();
    assert_eq!((bodies.len(), permits.len()), (8, 2));
}
