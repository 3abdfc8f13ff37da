//! Lists of changes.

use super::fixtures::*;
use crate::domain::identifier::DeviceId;

/// The set of one account.
#[derive(Debug)]
struct OneAccount(&'static str);

impl VisibleAccounts for OneAccount {
    fn contains(&self, account: &AccountName) -> bool {
        account.as_str() == self.0
    }
}

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
    let (none, _) = list(ChangeFilter { created_from: Some(at(11)), ..all.clone() }).await;
    assert!(none.is_empty());
    for (name, expected) in [("0000123456-00001", &made[..3]), ("0000999999-00001", &[])] {
        let accounts: Option<Arc<dyn VisibleAccounts>> = Some(Arc::new(OneAccount(name)));
        let (listed, _) = list(ChangeFilter { accounts, ..all.clone() }).await;
        assert_eq!(listed, expected, "{name}");
    }
    journal.close().await;
}

pub(in crate::journal) async fn only_a_change_that_matches_makes_a_next_page(engine: &dyn Engine) {
    const VISIBLE: &str = "0000123456-00001";
    let journal = engine.open().await;
    let make = async |key: &str, number: usize, account: &str| {
        let mut request = esim(key, [number]);
        request.account = AccountName::parse(account).unwrap();
        accepted(&*journal, &request, &format!("r-{key}")).await
    };
    make("old", 0, "0000999999-00001").await;
    make("older", 1, "0000999999-00001").await;
    let first = make("first", 2, VISIBLE).await;
    make("between", 3, "0000999999-00001").await;
    let second = make("second", 4, VISIBLE).await;
    make("new", 5, "0000999999-00001").await;
    let list = async |limit, after| {
        let accounts: Option<Arc<dyn VisibleAccounts>> = Some(Arc::new(OneAccount(VISIBLE)));
        let filter = ChangeFilter { accounts, limit, after, ..ChangeFilter::default() };
        let page = journal.changes(filter).await.unwrap();
        let ids: Vec<ChangeId> = page.changes.iter().map(|change| change.change_id).collect();
        (ids, page.next)
    };
    assert_eq!(list(2, None).await, (vec![second, first], None));
    let (page, next) = list(1, None).await;
    assert_eq!(page, [second]);
    assert!(next.is_some());
    assert_eq!(list(1, next).await, (vec![first], None));
    journal.close().await;
}

pub(in crate::journal) async fn a_large_change_and_its_device_are_found_by_an_identifier(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let small = accepted(&*journal, &esim("small", 39..40), "r-small").await;
    let large = accepted(&*journal, &esim("large", 0..40), "r-large").await;
    let device = |number| Some(DeviceId::new("iccid".parse().unwrap(), iccid(number)).unwrap());
    for (number, expected) in [(39, vec![large, small]), (38, vec![large]), (40, vec![])] {
        let filter = ChangeFilter { device: device(number), limit: 10, ..ChangeFilter::default() };
        let page = journal.changes(filter).await.unwrap();
        let found: Vec<ChangeId> = page.changes.iter().map(|change| change.change_id).collect();
        assert_eq!(found, expected, "{number}");
        let filter = DeviceFilter { device: device(number), limit: 10, ..DeviceFilter::default() };
        let devices = journal.devices(large, filter).await.unwrap();
        let indexes: Vec<u32> = devices.iter().map(|device| device.index).collect();
        let expected: Vec<u32> = (number < 40).then_some(number as u32).into_iter().collect();
        assert_eq!(indexes, expected);
    }
    journal.close().await;
}
