//! Tests of `error`.

use super::*;
use serde_json::json;

#[test]
fn every_code_survives_the_way_through_grpc() {
    for code in ErrorCode::ALL {
        let fault = Fault::from(Fault::new(code, "words").into_status());
        assert_eq!(fault.code, code);
        assert_eq!(fault.message, "words");
    }
}

#[test]
fn target_input_details_and_retry_survive_the_way_through_grpc() {
    let mut fault = Fault::unsupported("response_format", json!("json_object"), "not here")
        .with_retry_after(Duration::from_millis(1500));
    fault.details.push(Detail {
        code: "extra_parameter".into(),
        message: "not part: of the API".into(),
        target: "n".into(),
    });
    assert_eq!(Fault::from(fault.clone().into_status()), fault);
}

#[test]
fn an_unreachable_service_is_503_without_transport_details() {
    let fault = Fault::from(tonic::Status::unavailable("tcp connect error 10.0.0.7:50051"));
    assert_eq!(fault.code.http(), 503);
    assert!(!fault.message.contains("10.0.0.7"));
}

#[test]
fn a_huge_input_does_not_overflow_the_metadata() {
    let fault = Fault::unsupported("stop", json!("x".repeat(100_000)), "too long");
    assert!(fault.into_status().details().len() < 4096);
}
