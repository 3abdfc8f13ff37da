use super::*;

#[test]
fn only_scheme_host_and_port_of_a_foreign_listener_are_shown() {
    let shown = url_origin("https://u:p@old.example.com:9002/token-1?key=2#3");
    assert_eq!(shown, "https://old.example.com:9002");
    assert_eq!(url_origin("what a secret"), "(invalid URL)");
}

#[test]
fn the_default_port_of_the_scheme_is_shown() {
    let shown = url_origin("https://old.example.com/hooks/X?token=hush");
    assert_eq!(shown, "https://old.example.com:443");
}
