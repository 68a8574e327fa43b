//! Requests of modules, byte for byte, as `vectors/waspmote/http.json` has them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use serde_json::Value;

/// Each case, with its request.
pub(crate) fn of_every_module() -> Vec<(Value, String)> {
    let file = std::fs::read(format!("{}/../vectors/waspmote/http.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let vectors: Value = serde_json::from_slice(&file).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 11);
    cases.iter().map(|case| (case.clone(), request(case))).collect()
}

fn request(case: &Value) -> String {
    let text = |key: &str| case[key].as_str();
    match (text("request_text"), text("body_text"), text("url")) {
        (Some(request), ..) => request.to_owned(),
        (None, Some(body), _) => format!(
            "POST {} HTTP/1.1\r\nHost: h\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{body}",
            text("path").unwrap(),
            text("content_type").unwrap(),
            body.len()
        ),
        (None, None, Some(url)) => format!("GET {url} HTTP/1.1\r\nHost: h\r\n\r\n"),
        _ => panic!("{case}"),
    }
}
