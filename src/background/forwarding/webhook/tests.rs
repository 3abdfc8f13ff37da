use super::*;

#[test]
fn credentials_are_inserted_first_and_the_rest_of_the_body_is_unchanged() {
    let secret = |value: &str| Arc::new(SecretString::from(value));
    let login = (secret("us\"er"), secret("pw"));
    let insert = |body: &str| insert_credentials(body, Some(&login));
    assert_eq!(
        insert(r#"{"requestId":"r","x":1.10}"#),
        r#"{"username":"us\"er","password":"pw","requestId":"r","x":1.10}"#
    );
    assert_eq!(insert("{}"), r#"{"username":"us\"er","password":"pw"}"#);
    assert_eq!(insert_credentials(r#"{"a":1}"#, None), r#"{"a":1}"#);
}

#[test]
fn the_service_replaces_its_placeholder() {
    let url = expand_template("https://old.example.com/hooks/{service}?token=hush", "X");
    assert_eq!(url.unwrap().path(), "/hooks/X");
}

#[tokio::test]
async fn an_unusable_url_drops_no_callback() {
    let url = Arc::new(SecretString::from("no URL/{service}"));
    let destination = Destination { url, credentials: None };
    let webhook = Webhook::new(destination, "id".to_owned());
    // Without a service and without a body, which a usable URL would make permanent failures.
    let forward = QueuedForward { id: 1, attempts: 0, service: None, body: None };
    let error = webhook.deliver(&forward).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Unavailable { .. }), "{error:?}");
}
