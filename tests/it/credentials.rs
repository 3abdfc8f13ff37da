//! The gateway's own log-in: five refusals lock the account at Verizon for good.

use std::fs;

use thingspace_gateway::proto::ChangeState;
use tonic::Code;

use crate::support::{
    gateway::{Directory, Setup},
    requests::{change_esim, esim, refuse_esim, told},
    thingspace::{Answer, Call, ThingSpace},
};

#[tokio::test]
async fn a_wrong_password_is_tried_twice_over_ten_restarts_and_service_resumes_when_it_is_right() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let password = directory.join("uws_password");
    fs::write(&password, "wrong").unwrap();
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .without("TSGW_THINGSPACE__UWS_PASSWORD")
        .env(
            "TSGW_THINGSPACE__UWS_PASSWORD_FILE",
            password.to_str().unwrap(),
        );
    let wrong = "UnifiedWebService.INPUT_INVALID.Password.Invalid";
    thingspace.always(Call::LogIn, Answer::error(400, wrong, "no"));
    for restart in 0..10 {
        let gateway = setup.start().await;
        let mut client = gateway.client().await;
        for call in 0..5 {
            let key = format!("{restart}-{call}");
            let refused = refuse_esim(&mut client, esim(&key, [restart])).await;
            let rule = told(&refused);
            assert_eq!(
                rule.rule(),
                (
                    Code::FailedPrecondition,
                    "GATEWAY_CREDENTIALS",
                    "LATER",
                    Some("NO")
                )
            );
        }
        assert!(thingspace.log_ins() <= 2, "restart {restart}");
        gateway.kill().await;
    }
    assert_eq!((thingspace.log_ins(), thingspace.posts()), (2, 0));

    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    fs::write(&password, "right").unwrap();
    thingspace.always(Call::LogIn, Answer::Proper);
    let change = change_esim(&mut client, esim("0-0", [0])).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!((thingspace.log_ins(), thingspace.posts()), (3, 1));
}
