//! Lists of changes.

use super::fixtures::*;
use crate::domain::identifier::DeviceId;

pub(in crate::journal) async fn lists_are_newest_first_filtered_and_paged(engine: &dyn Engine) {
    let journal = engine.open().await;
    let mut made = Vec::new();
    for number in 0..5 {
        let id = accepted(
            &*journal,
            &esim(&format!("k{number}"), number..number + 2),
            &format!("r{number}"),
        )
        .await;
        made.insert(0, id);
    }
    let list = |filter: ChangeFilter| async {
        let page = journal.changes(filter).await.unwrap();
        let ids: Vec<ChangeId> = page.changes.iter().map(|change| change.change_id).collect();
        (ids, page.next)
    };
    let all = ChangeFilter { limit: 3, ..ChangeFilter::default() };
    let (first, next) = list(all.clone()).await;
    let (second, end) = list(ChangeFilter { after: next, ..all.clone() }).await;
    assert_eq!([first, second].concat(), made);
    assert_eq!(end, None);
    let device =
        |number: usize| Some(DeviceId::new("iccid".parse().unwrap(), iccid(number)).unwrap());
    let (with_device, _) = list(ChangeFilter { device: device(2), ..all.clone() }).await;
    assert_eq!(with_device, made[2..4]);
    let states = vec![ChangeState::Finished];
    journal.store_callback(received(success("r0", 0), 20)).await.unwrap();
    journal.store_callback(received(success("r0", 1), 20)).await.unwrap();
    let (finished, _) = list(ChangeFilter { states, ..all.clone() }).await;
    assert_eq!(finished, made[4..]);
    let (none, _) = list(ChangeFilter { created_from: Some(at(11)), ..all }).await;
    assert!(none.is_empty());
    journal.close().await;
}
