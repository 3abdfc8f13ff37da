//! The files of the page.

use super::*;
use crate::support::http::http_get_text;

#[tokio::test]
async fn the_page_and_its_files_are_served_with_strict_headers_and_a_tag() {
    let env = start().await;
    let page = send(http_client().get(url(&env.gateway, "/"))).await;
    assert_eq!(page.url().path(), "/console/");
    assert_secured(page.headers());
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let html = in_time(page.text()).await.unwrap();
    assert!(!html.contains("http://") && !html.contains("https://"), "no other host");
    assert!(!html.contains("style=") && !html.contains("<style"), "no inline style");
    for (name, content_type) in [
        ("main.js", "text/javascript; charset=utf-8"),
        ("console.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let file = url(&env.gateway, &format!("/console/{name}"));
        let response = send(http_client().get(&file)).await;
        assert_eq!(response.status(), 200, "{name}");
        assert_secured(response.headers());
        assert_eq!(response.headers()["content-type"], content_type);
        assert_eq!(response.headers()["cache-control"], "no-cache");
        let tag = response.headers()["etag"].clone();
        let content = in_time(response.bytes()).await.unwrap();
        let head = send(http_client().head(&file)).await;
        assert_eq!(head.headers()["content-length"], content.len().to_string());
        let known = send(http_client().get(&file).header("if-none-match", &tag)).await;
        assert_eq!((known.status().as_u16(), &known.headers()["etag"]), (304, &tag));
        assert_secured(known.headers());
        let other = send(http_client().get(&file).header("if-none-match", "\"other\"")).await;
        assert_eq!(other.status(), 200);
    }
}

#[tokio::test]
async fn every_module_that_a_file_imports_is_served_and_no_script_writes_markup() {
    let env = start().await;
    let (mut names, mut next) = (vec!["main.js".to_owned()], 0);
    while let Some(name) = names.get(next).cloned() {
        let response =
            send(http_client().get(url(&env.gateway, &format!("/console/{name}")))).await;
        assert_eq!(response.status(), 200, "{name}");
        let script = in_time(response.text()).await.unwrap();
        for part in script.split("from \"./").skip(1) {
            let imported = part.split('"').next().unwrap().to_owned();
            if !names.contains(&imported) {
                names.push(imported);
            }
        }
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
            "sessionStorage",
        ] {
            assert!(!script.contains(sink), "{name} uses {sink}");
        }
        next += 1;
    }
    assert!(names.len() >= 12, "{names:?}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let env = start().await;
    let client = direct_client();
    for path in ["/", "/console"] {
        let response = send(client.get(url(&env.gateway, path))).await;
        assert_eq!(
            (response.status().as_u16(), response.headers()["location"].to_str().unwrap()),
            (307, "/console/")
        );
        assert_secured(response.headers());
    }
    for path in [
        "/console/no-such-file.js",
        "/console/../Cargo.toml",
        "/console//main.js",
        "/console/%2e%2e/x",
        "/metrics",
        "/favicon.ico",
    ] {
        let (status, text) = status_and_text(client.get(url(&env.gateway, path))).await;
        assert_eq!(status, 404, "{path}");
        assert!(text.contains("/console/"), "{text}");
    }
    for path in ["/", "/console/", "/console/main.js"] {
        let response = send(client.post(url(&env.gateway, path))).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"GET, HEAD".parse().unwrap())
        );
        assert_secured(response.headers());
    }
    let (status, _) = status_and_text(
        client.get(url(&env.gateway, "/thingspace.gateway.v1.GatewayService/ListChanges")),
    )
    .await;
    assert_eq!(status, 405);
}

#[tokio::test]
async fn without_the_setting_there_is_no_console() {
    let env = TestEnv::start_offline(|setup| setup).await;
    assert_eq!(env.gateway.console, None);
    let response = send(http_client().get(format!("http://{}/console/", env.gateway.grpc))).await;
    assert_eq!(response.status(), 405);
    let admin = http_get_text(&format!("http://{}/console/", env.gateway.admin)).await;
    assert!(!admin.contains("<html"), "{admin}");
}
