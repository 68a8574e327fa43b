//! `fivefold frame decode` over every vector of classic frames: what is read, what opens, what is refused and why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn fivefold(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fivefold")).args(args).output().unwrap()
}

/// Exit code and JSON.
fn decode(args: &[&str]) -> (i32, Value) {
    let mut all = vec!["frame", "decode", "-o", "json"];
    all.extend_from_slice(args);
    let output = fivefold(&all);
    let told = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), told)
}

fn cases(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/waspmote").join(name);
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all["cases"].as_array().unwrap().clone()
}

fn text<'v>(case: &'v Value, name: &str) -> &'v str {
    case[name].as_str().unwrap_or_else(|| panic!("{} has no {name}", case["id"]))
}

/// Checks what is said of a frame in clear against what the node was given.
fn check(case: &Value, mode: &str, frame: &str, told: &Value) {
    let id = &case["id"];
    assert_eq!(told["suite"], "classic", "{id}");
    assert_eq!(told["generation"], case["hw"], "{id}");
    assert_eq!(told["encoding"], mode, "{id}");
    let type_byte = u8::from_str_radix(&frame[6..8], 16).unwrap();
    assert_eq!(told["type"], type_byte & 0x7f, "{id}");
    let serial = match (case["hw"].as_str(), mode) {
        (Some("v12"), "ascii") => u32::from_str_radix(text(case, "serial_hex"), 16).unwrap().to_string(),
        (Some("v12"), _) => frame[10..18].to_owned(),
        _ => text(case, "serial_hex").to_owned(),
    };
    assert_eq!(told["serial"], serial, "{id}");
    assert_eq!(told["node_id"], text(case, "node_id").replace(['#', ' '], "_"), "{id}");
    assert_eq!(told["sequence"], case["sequence"], "{id}");
    let sent: Vec<&Value> =
        case["sensors"].as_array().unwrap().iter().filter(|sensor| sensor["rejected_by_node"] != true).collect();
    let fields = told["fields"].as_array().unwrap();
    assert_eq!(fields.len(), sent.len(), "{id}: {fields:?}");
    for (field, sensor) in fields.iter().zip(sent) {
        assert_eq!((&field["id"], &field["tag"]), (&sensor["id"], &sensor["tag"]), "{id}");
        let mut wanted = sensor["values"].as_array().unwrap().clone();
        if sensor["call"] == "u8x3_gmt" && mode == "binary" {
            wanted.truncate(3);
        }
        let found = field["values"].as_array().unwrap();
        assert_eq!(found.len(), wanted.len(), "{id}");
        for (found, wanted) in found.iter().zip(&wanted) {
            match (found, wanted) {
                (Value::String(found), wanted) => {
                    assert_eq!(*found, wanted.as_str().unwrap().replace('#', "_"), "{id}")
                }
                // An ASCII frame has the decimals of the table.
                (found, wanted) if sensor["value_bits"].is_array() => {
                    let (found, wanted) = (found.as_f64().unwrap(), wanted.as_f64().unwrap());
                    let off = if mode == "ascii" { 0.06 } else { wanted.abs() * 1e-9 };
                    assert!((found - wanted).abs() <= off, "{id}: {found} {wanted}");
                }
                (found, wanted) => assert_eq!(found, wanted, "{id}"),
            }
        }
    }
}

#[test]
fn every_plain_frame_of_the_vectors_is_printed_as_the_node_was_given_it() {
    let cases = cases("plain-frames.json");
    assert_eq!(cases.len(), 80);
    for case in &cases {
        let frame = text(case, "frame_hex");
        let mut args = vec![frame];
        let reversed = case["id"] == "v12-b-old-api-serial-little-endian-derived";
        if reversed {
            args.extend(["--serial-order", "little"]);
        }
        if case["mode"] == "binary" {
            args.extend(["--table", text(case, "table").trim_end_matches("_xtreme")]);
        }
        let (code, told) = decode(&args);
        assert_eq!(code, 0, "{told}");
        check(case, text(case, "mode"), frame, &told);
        if case["serial_decimal"].is_u64() {
            assert_eq!(told["serial_decimal"], case["serial_decimal"]);
        }
    }
}

#[test]
fn every_encrypted_frame_of_the_vectors_opens_with_its_key_and_says_without_it_what_is_clear() {
    let cases = cases("encrypted-frames.json");
    assert_eq!(cases.len(), 46);
    for case in &cases {
        let frame = text(case, "frame_hex");
        let (code, told) = decode(&[frame]);
        assert_eq!((code, &told["inner"], &told["sequence"]), (0, &Value::Null, &Value::Null), "{told}");
        assert_eq!(told["clear"].as_array().unwrap().contains(&json!("node_id")), case["hw"] == "v12");
        assert!(told["encrypted"].as_array().unwrap().contains(&json!("fields")));
        let bits = case["aes_bits"].to_string();
        let overlong = case["id"].as_str().unwrap().contains("overlong");
        if let Some(key) = case["key_ascii"].as_str() {
            let (code, told) = decode(&["--key-text", key, "--key-bits", &bits, frame]);
            assert_eq!(code, i32::from(overlong), "{told}");
            if overlong {
                assert_eq!(told["refused"], "key-too-long");
                assert!(told["reason"].as_str().unwrap().contains("all-zero key"), "{told}");
            } else {
                check(case, text(case, "inner_mode"), text(case, "inner_frame_hex"), &told["inner"]);
            }
        }
        let (code, told) = decode(&["--key-hex", text(case, "effective_key_hex"), frame]);
        assert_eq!((code, &told["type"]), (0, &case["frame_type_byte"]), "{told}");
        check(case, text(case, "inner_mode"), text(case, "inner_frame_hex"), &told["inner"]);
        assert_eq!(told["key"]["weakness"] == "zero", overlong);
    }
}

#[test]
fn every_malformed_frame_of_the_vectors_is_refused_with_a_reason_or_read_as_asked() {
    let cases = cases("malformed.json");
    assert_eq!(cases.len(), 14);
    for case in &cases {
        let name = if case["id"] == "http-empty" { "frame_parameter" } else { "frame_hex" };
        let mut args = vec![text(case, name)];
        let bits = case["aes_bits"].to_string();
        if let Some(key) = case["key_ascii"].as_str() {
            args.extend(["--key-text", key, "--key-bits", &bits]);
        }
        let (code, told) = decode(&args);
        match text(case, "expect") {
            "reject" => assert!(code == 1 && told["reason"].is_string() && told["code"].is_string(), "{case} {told}"),
            "accept" => assert_eq!(code, 0, "{told}"),
            "reject_field" => {
                assert_eq!((code, &told["refused_fields"][0]["refused"]), (0, &json!("no-value")), "{told}");
                assert_eq!(told["fields"][0]["tag"], "CO");
            }
            other => panic!("{other} is new"),
        }
    }
}

#[test]
fn every_attack_that_one_frame_shows_is_told_with_its_code() {
    let cases = cases("attacks.json");
    let case = |id: &str| cases.iter().find(|case| case["id"] == id).unwrap();
    let key = text(case("replay"), "key_ascii");
    let open = |frame: &str| decode(&["--key-text", key, "--key-bits", "256", frame]);
    let (code, told) = open(text(case("outer-serial-swap"), "frame_hex"));
    assert_eq!((code, &told["code"]), (1, &json!("CL-03")));
    let (code, told) = open(text(case("bit-flip-in-block-1"), "frame_hex"));
    assert_eq!((code, &told["code"]), (1, &json!("CL-04")));
    let (code, told) = open(text(case("type-relabel-0x60-to-0x64"), "frame_hex"));
    assert_eq!((code, &told["destination"]), (0, &json!("cloud")));
    // W16 7: whoever has a key does not speak in clear.
    let (code, told) = open("3c3d3e0621d5184a38d6489d167061726b2d3723404ab81ebd404c666646424df77ebe473437");
    assert_eq!((code, &told["code"], &told["fields"][0]["tag"]), (1, &json!("CL-02"), &json!("TC")));
    // Nothing in one frame shows that it is made of two.
    let (code, told) = open(text(case("ecb-cut-and-paste"), "forged_hex"));
    assert_eq!((code, &told["inner"]["fields"][0]["values"]), (0, &json!([85.25])));
    let (code, told) =
        decode(&["--key-text", "wrong", "--key-bits", "256", text(case("outer-serial-swap"), "frame_hex")]);
    assert_eq!((code, &told["code"], &told["refused"]), (1, &json!("CL-04"), &json!("not-opened")));
}

#[test]
fn pieces_the_time_request_and_over_the_air_commands_are_told_apart() {
    let all = cases("tiny-and-fragments.json");
    let tiny = all.iter().find(|case| case["id"] == "tiny-sigfox-12").unwrap();
    let (code, told) = decode(&["--kind", "classic-tiny", text(&tiny["pieces"][0], "frame_hex")]);
    assert_eq!((code, &told["sequence"], &told["fields"][0]["tag"]), (0, &json!(69), &json!("TC")));
    let request = hex::encode(b"<=>\x9b\x00#387264539#node1#0#");
    let (code, told) = decode(&[&request]);
    assert_eq!((code, &told["type_name"], &told["serial"]), (0, &json!("time-request"), &json!("387264539")));
    let (code, told) = decode(&["3c3d3e7b0011"]);
    assert_eq!((code, &told["code"]), (1, &json!("CL-09")));
}

#[test]
fn an_unknown_sensor_keeps_the_rest_raw_until_ones_own_file_names_it() {
    // Sensor 22 is a hole in the table.
    let frame = "3c3d3e061408090a0b0c0d0e0f6e2307340216000020413403";
    let (code, told) = decode(&[frame]);
    assert_eq!((code, &told["fields"]), (0, &json!([{ "id": 52, "tag": "BAT", "values": [2] }])), "{told}");
    assert_eq!((&told["rest"]["hex"], &told["rest"]["code"]), (&json!("16000020413403"), &json!("CL-16")));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.toml");
    std::fs::write(&file, "[[sensor]]\nid = 22\ntag = \"SNOW\"\ntype = \"float32\"\nunit = \"mm\"\n").unwrap();
    let (code, told) = decode(&["--sensors", file.to_str().unwrap(), frame]);
    assert_eq!((code, &told["fields"][1]), (0, &json!({ "id": 22, "tag": "SNOW", "values": [10.0] })), "{told}");
    assert_eq!(told["fields"][2]["tag"], "BAT");
    std::fs::write(&file, "[[sensor]]\nid = 52\ntag = \"SNOW\"\ntype = \"float32\"\n").unwrap();
    let output = fivefold(&["frame", "decode", "--sensors", file.to_str().unwrap(), frame]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("id 52 is BAT already"));
}

#[test]
fn a_frame_from_before_api_v012_is_read_where_one_says_so() {
    let frame = "3c3d3e00011b3015176e6f6465312307\
                 3450";
    let (code, told) = decode(&[frame]);
    assert_eq!((code, &told["refused"]), (1, &json!("trailing")), "{told}");
    let (code, told) = decode(&["--before-v012", frame]);
    assert_eq!(
        (code, &told["serial"], &told["serial_decimal"]),
        (0, &json!("1b301517"), &json!(387_264_539)),
        "{told}"
    );
    assert_eq!(told["fields"], json!([{ "id": 52, "tag": "BAT", "values": [80] }]), "{told}");
    let (code, told) = decode(&["--before-v012", "3c3d3e00013338373236343533392323073450"]);
    assert_eq!((code, &told["code"], &told["refused"]), (1, &json!("CL-01"), &json!("serial-text")), "{told}");
}

#[test]
fn nothing_from_the_wire_reaches_the_terminal_unescaped() {
    let id = b"\x1b[2J\x9b\xc2\x9b\x7f\xe2\x80\xae";
    let mut frame = b"<=>\x86\x02#0123456789ABCDEF#".to_vec();
    frame.extend(id);
    frame.extend(b"#1#STR:\x1b]0;x\x07\xc2\x85#\x1bX:\x1b[31m#");
    for form in ["human", "json"] {
        let output = fivefold(&["frame", "decode", "-o", form, &hex::encode(&frame)]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let shown = String::from_utf8(output.stdout).unwrap();
        let bad: Vec<char> = shown.chars().filter(|c| c.is_control() && *c != '\n' || *c == '\u{202e}').collect();
        assert!(bad.is_empty(), "{bad:?} in {shown}");
    }
}

#[test]
fn a_question_that_does_not_fit_is_told_so() {
    let plain = "3c3d3e06061111111111111111";
    for (args, word) in [
        (&["00112233"][..], "--kind"),
        (&["--kind", "coap", "--key-hex", "00", "40"], "--kind classic"),
        (&["--key-text", "x", plain], "--key-bits"),
        (&["--key-hex", "0011", "3c3d3e60180102030405060708000102030405060708090a0b0c0d0e0f"], "16, 24 or 32"),
        (&["--table", "air", plain], "agriculture"),
    ] {
        let mut all = vec!["frame", "decode"];
        all.extend_from_slice(args);
        let output = fivefold(&all);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(word), "{args:?}: {told}");
    }
}

#[test]
fn hardened_frames_and_parts_of_key_messages_are_read_as_their_vectors_have_them() {
    let book: Value = serde_json::from_str(include_str!("../../vectors/hardened.json")).unwrap();
    let frames = book["frames"].as_array().unwrap();
    let first = text(&frames[0], "key");
    for case in frames {
        let frame = text(case, "sealed");
        let (code, told) = decode(&[frame]);
        assert_eq!((code, &told["suite"], &told["inner"]), (0, &json!("classic-hardened"), &Value::Null), "{told}");
        assert_eq!(
            (&told["epoch"], &told["number"], &told["seed"]),
            (&case["epoch"], &case["sequence"], &case["seed"])
        );
        let (code, told) = decode(&["--key-hex", text(case, "key"), frame]);
        let (same, clear) = decode(&[text(case, "clear")]);
        assert_eq!((code, &told["inner"]["fields"]), (same, &clear["fields"]), "{told}");
    }
    for case in book["refused"].as_array().unwrap() {
        let (code, told) = decode(&["--kind", "classic", "--key-hex", first, text(case, "frame")]);
        assert_eq!((code, told["reason"].is_string()), (1, true), "{case} {told}");
        if case["word"] == "tag" {
            assert_eq!(told["code"], "CL-14", "{case}");
        }
    }
    let part = book["parts"][0]["frames"][0].as_str().unwrap();
    let (code, told) = decode(&[part]);
    assert_eq!((code, &told["type_name"], &told["part"]), (0, &json!("key-message"), &json!(0)), "{told}");
}
