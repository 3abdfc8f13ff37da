use super::*;
use crate::domain::{
    change_type::ChangeType,
    clock::Timestamp,
    device_states::DeviceCounts,
    evidence::{IdentifyingKinds, ResultService},
    newtypes::{ChangeId, ClientReference, RequestId, ServicePlan},
};

const STATES: [ChangeState; 3] =
    [ChangeState::OutcomeUnknown, ChangeState::Dispatched, ChangeState::Closed];
const COVERAGES: [DeviceCoverage; 3] =
    [DeviceCoverage::Whole, DeviceCoverage::Part, DeviceCoverage::Other];

static RULES: EvidenceRules = EvidenceRules {
    callback_service: ResultService::DeviceProfile,
    identifying_kinds: IdentifyingKinds::All,
    is_foreign_result: |_| false,
    lookup: LookupMethod::RequestStatus,
};

fn change(state: ChangeState) -> Change {
    let now = Timestamp::from_micros(1);
    Change {
        change_id: ChangeId::new(now),
        request_ids: Vec::new(),
        key: None,
        client_reference: ClientReference::default(),
        change_type: ChangeType::EsimPlan,
        state,
        account: AccountName::parse("0000123456-00001").unwrap(),
        service_plan: ServicePlan::parse("plan").unwrap(),
        device_count: 1,
        counts: DeviceCounts::default(),
        create_time: now,
        dispatch_time: None,
        accept_time: None,
        update_time: now,
        finish_time: None,
        refusal: None,
        trace: None,
        has_plan_snapshot: false,
    }
}

#[test]
fn a_whole_is_selected_only_if_it_is_unknown_and_no_other_candidate_has_the_devices() {
    let kinds: Vec<(ChangeState, DeviceCoverage)> =
        STATES.into_iter().flat_map(|state| COVERAGES.map(|coverage| (state, coverage))).collect();
    for first in &kinds {
        for second in &kinds {
            let both = [first, second];
            let candidates = both.map(|(state, coverage)| Candidate {
                change: change(*state),
                rules: &RULES,
                coverage: *coverage,
            });
            let possible = both.into_iter().filter(|one| one.1 != DeviceCoverage::Other);
            let mut possible: Vec<_> = possible.collect();
            let only = possible.pop().filter(|_| possible.is_empty());
            let expected = only == Some(&(ChangeState::OutcomeUnknown, DeviceCoverage::Whole));
            let selected = select_candidate(&candidates);
            let is_whole = selected.is_some_and(|one| one.coverage == DeviceCoverage::Whole);
            assert_eq!(is_whole, expected, "{both:?}");
            // Whatever is selected can be attributed.
            let state = selected.map(|one| one.change.state);
            assert!(state.is_none_or(|state| state == ChangeState::OutcomeUnknown));
        }
    }
}

#[test]
fn only_an_unanswered_change_that_was_sent_before_the_first_result_may_have_made_the_request() {
    let request = UnattributedRequest { first_result_position: 10, account: None, service: None };
    for state in ChangeState::ALL {
        let mut change = change(state);
        assert_eq!(
            request.can_be_made_by(&change, &RULES, Some(9)),
            STATES.contains(&state),
            "{state:?}"
        );
        assert!(!request.can_be_made_by(&change, &RULES, Some(11)), "{state:?}");
        assert!(!request.can_be_made_by(&change, &RULES, None), "{state:?}");
        change.request_ids = vec![RequestId::parse("its-own").unwrap()];
        let is_rival = request.can_be_made_by(&change, &RULES, Some(9));
        assert!(!(is_rival && state == ChangeState::Closed));
    }
}

#[test]
fn a_list_alone_has_to_be_the_whole_set_and_has_to_have_what_was_reported() {
    let coverage = |reported: &[u32], listed: Option<&[u32]>| {
        let mut seen = SeenDevices::default();
        for index in reported {
            seen.add_reported(Some(*index), Match::Exact);
        }
        if let Some(listed) = listed {
            seen.mark_list_received();
            for index in listed {
                seen.add_listed(Some(*index), Match::Exact);
            }
        }
        seen.coverage(2)
    };
    assert_eq!(coverage(&[0, 1], None), DeviceCoverage::Whole);
    assert_eq!(coverage(&[0], None), DeviceCoverage::Part);
    assert_eq!(coverage(&[], None), DeviceCoverage::Other);
    assert_eq!(coverage(&[0], Some(&[1, 0])), DeviceCoverage::Whole);
    for listed in [&[][..], &[0], &[1]] {
        assert_eq!(coverage(&[0, 1], Some(listed)), DeviceCoverage::Part, "{listed:?}");
    }
    for matched in [Match::Assumed, Match::None, Match::Ambiguous] {
        let mut seen = SeenDevices::default();
        seen.add_reported(Some(0), Match::Exact);
        seen.add_listed(Some(1), matched);
        assert_eq!(seen.coverage(2), DeviceCoverage::Other);
    }
}
